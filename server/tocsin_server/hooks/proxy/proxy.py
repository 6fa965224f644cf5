"""One proxy: its hooks ask a back end, with retries where they are safe, behind a circuit breaker.

    event -> breaker -> request -> connection -> answer, or a fault -> error 100

A fault grants nothing. A connection or subscription that was to be refreshed goes on for `GRACE_SECONDS`, as
in Centrifugo, because a back end that restarts must not disconnect every client.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import structlog
from multidict import CIMultiDict
from yarl import URL

from tocsin_server.config.proxy_options import ProxyOptions
from tocsin_server.errors import INTERNAL_ERROR, bad_request
from tocsin_server.hooks.answers import Answer, Undecided
from tocsin_server.hooks.events import (
    ConnectEvent,
    Event,
    HookKind,
    PublishEvent,
    RefreshEvent,
    RpcEvent,
    SubRefreshEvent,
    SubscribeEvent,
)
from tocsin_server.hooks.proxy.answers import read_answer
from tocsin_server.hooks.proxy.breaker import Breaker
from tocsin_server.hooks.proxy.client import BackEndClient, CallFailed, Progress
from tocsin_server.hooks.proxy.faults import ProxyFault
from tocsin_server.hooks.proxy.metrics import ProxyMetrics
from tocsin_server.hooks.proxy.requests import request_body
from tocsin_server.hooks.proxy.tls import BackEndTls
from tocsin_server.hooks.signing import SIGNATURE_HEADER, signature
from tocsin_server.node.sampled_log import SampledLog
from tocsin_server.protocol.payloads import PayloadNotJson
from tocsin_server.version import __version__

GRACE_SECONDS = 60.0
"""How long a connection or a subscription goes on that the back end could not be asked about."""

RETRY_SECONDS = 0.05
"""The pause before the first retry. Each further one is so much longer."""

STALE_LIMIT = 3
"""How many kept connections may turn out to be closed before one call fails."""

REPEATABLE = {HookKind.CONNECT, HookKind.REFRESH, HookKind.SUBSCRIBE, HookKind.SUB_REFRESH}
"""Events that ask. A back end that is asked twice answers twice, and changes nothing."""

KINDS: Mapping[type, HookKind] = {
    ConnectEvent: HookKind.CONNECT,
    RefreshEvent: HookKind.REFRESH,
    SubscribeEvent: HookKind.SUBSCRIBE,
    SubRefreshEvent: HookKind.SUB_REFRESH,
    PublishEvent: HookKind.PUBLISH,
    RpcEvent: HookKind.RPC,
}

_REFRESHES = {HookKind.REFRESH, HookKind.SUB_REFRESH}

log = structlog.get_logger()


class Proxy:
    """Asks one back end. Use it between `start` and `close`, in one event loop."""

    def __init__(self, name: str, options: ProxyOptions, metrics: ProxyMetrics) -> None:
        self.name = name
        self._options = options
        self._metrics = metrics
        self._log = SampledLog()
        self._tls = BackEndTls(name, options) if options.is_https else None
        self._urls = {kind: URL(options.url_of(kind.value), encoded=True) for kind in HookKind}
        self._breakers = {kind: Breaker(options.breaker_faults, options.breaker_pause) for kind in HookKind}
        self._forwarded = [name for name in options.http_headers if name not in options.static_headers]
        self._headers = CIMultiDict(
            {
                "user-agent": f"tocsin/{__version__}",
                "accept-encoding": "identity",
                "content-type": "application/json",
                **options.static_headers,
            }
        )
        self._secret = options.secret.encode()
        self._clients: dict[HookKind, BackEndClient] = {}
        self._is_running = False

    def start(self) -> None:
        """Make calls possible. No connection is made before the first call."""
        self._is_running = True

    async def close(self) -> None:
        """Close the connections. Calls that are in flight fail."""
        self._is_running = False
        while self._clients:
            await self._clients.popitem()[1].close()

    async def reload_certificates(self) -> None:
        """Read the files of certificates if they have changed."""
        if self._tls is not None and await self._tls.reload():
            for client in self._clients.values():
                client.context = self._tls.context

    def _client_of(self, kind: HookKind) -> BackEndClient:
        """Each kind of event has its own connections, so that calls of one kind hold up no others."""
        if not self._is_running:
            raise ProxyFault("the node is stopping", "closed")
        if (client := self._clients.get(kind)) is None:
            context = None if self._tls is None else self._tls.context
            client = self._clients[kind] = BackEndClient(self._options, context)
        return client

    @property
    def open_breakers(self) -> list[HookKind]:
        """The events about which the back end is not asked, because its circuit breaker is open."""
        return [kind for kind, breaker in self._breakers.items() if breaker.is_open]

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return sum(client.connections for client in self._clients.values())

    @property
    def warnings(self) -> list[str]:
        """Sentences about what an operator should do now."""
        found = []
        if kinds := self.open_breakers:
            names = ", ".join(kind.value for kind in kinds)
            reason = self._breakers[kinds[0]].last_fault
            found.append(f"The circuit breaker of [proxies.{self.name}] is open for {names}: {reason}.")
        if self._tls is not None and self._tls.problem:
            found.append(
                f"The new certificates of [proxies.{self.name}] cannot be used, and the old ones stay: "
                f"{self._tls.problem}."
            )
        return found

    async def __call__(self, event: Event, /) -> Answer:
        """Answer an event. Raises nothing but CancelledError."""
        kind = KINDS[type(event)]
        try:
            body = request_body(event, is_binary=self._options.binary_encoding)
        except PayloadNotJson:
            return bad_request("the data is not JSON")
        breaker = self._breakers[kind]
        if not breaker.begin(event.client, time.monotonic()):
            self._metrics.calls.add(self.name, kind.value, "breaker_open")
            return self._without_answer(kind)
        try:
            answer = await self._answer(kind, event, body)
        except ProxyFault as fault:
            self._failed(kind, event.client, fault)
            return self._without_answer(kind)
        except BaseException:  # the client has left, or the deadline of the hook has come
            breaker.abandoned(event.client)
            raise
        self._metrics.calls.add(self.name, kind.value, "answered")
        if breaker.answered():
            log.info("proxy_breaker_closed", proxy=self.name, kind=kind.value)
        return answer

    def _without_answer(self, kind: HookKind) -> Answer:
        return Undecided(expire_at=time.time() + GRACE_SECONDS) if kind in _REFRESHES else INTERNAL_ERROR

    def _failed(self, kind: HookKind, client: str, fault: ProxyFault) -> None:
        self._metrics.calls.add(self.name, kind.value, fault.label)
        reason = str(fault)
        self._log.write(
            "proxy_call_failed",
            level="warning",
            proxy=self.name,
            kind=kind.value,
            client=client,
            error=reason,
        )
        if self._breakers[kind].failed(client, reason, time.monotonic()):
            log.error("proxy_breaker_opened", proxy=self.name, kind=kind.value, error=reason)

    async def _answer(self, kind: HookKind, event: Event, body: bytes) -> Answer:
        """Call the back end, and read its answer. Raises ProxyFault."""
        try:
            async with asyncio.timeout(self._options.timeout):
                status, answer = await self._post(kind, self._headers_for(event.request.headers, body), body)
        except TimeoutError:
            raise ProxyFault(f"no answer within {self._options.timeout:g} s", "timeout") from None
        return read_answer(kind, status, answer)

    def _headers_for(self, client_headers: Mapping[str, str], body: bytes) -> CIMultiDict[str]:
        headers = self._headers.copy()
        for name in self._forwarded:
            if (value := client_headers.get(name)) is not None:
                headers[name] = value if value.isascii() else _as_sent(value)
        if self._secret:
            headers[SIGNATURE_HEADER] = signature([self._secret], body, int(time.time()))
        return headers

    async def _post(self, kind: HookKind, headers: CIMultiDict[str], body: bytes) -> tuple[int, bytes]:
        """Call the back end until it answers, or it is not safe to call it again. Raises CallFailed."""
        retries = stale = 0
        while True:
            try:
                return await self._client_of(kind).post(self._urls[kind], headers, body)
            except CallFailed as failure:
                if failure.is_stale and stale < STALE_LIMIT:
                    stale += 1
                    pause = 0.0
                elif retries < self._options.retries and may_repeat(kind, failure.progress):
                    retries += 1
                    pause = retries * RETRY_SECONDS
                else:
                    raise
            self._metrics.retries.add(self.name, kind.value)
            await asyncio.sleep(pause)


def may_repeat(kind: HookKind, progress: Progress) -> bool:
    """Whether a failed call may be made again, without the back end doing anything twice."""
    return progress is Progress.NOT_RECEIVED or (progress is Progress.NO_ANSWER and kind in REPEATABLE)


def _as_sent(value: str) -> str:
    """A header that was decoded as Latin-1, so that its bytes are those of the client if they were UTF-8."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value
