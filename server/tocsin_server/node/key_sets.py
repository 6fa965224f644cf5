"""The key sets of issuers: fetched before their cache expires, and when a token has an unknown key id.

    wait until due -> fetch -> keys replaced, or the last good ones kept -> wait …

Each address has one task. A session waits only for a fetch that is in flight or may begin now. Fetches of one
address begin at most once in MIN_INTERVAL_SECONDS, however many tokens name unknown keys. Between them a
token with an unknown key is refused for the moment, and its client tries again.

The mutable state is that of `KeySet`; only its own task and `wait` change it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog

from tocsin_server.core.events import Approval, Authorize, AuthorizedOutcome
from tocsin_server.core.issuer import Issuer
from tocsin_server.core.tokens import TokenVerifier
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.authorizer import Authorizer
from tocsin_server.node.client_request import ClientRequest, KeptHeaders
from tocsin_server.protocol.messages import (
    ConnectRequest,
    RefreshRequest,
    Request,
    SubRefreshRequest,
    SubscribeRequest,
)

if TYPE_CHECKING:
    import httpx

MIN_INTERVAL_SECONDS = 10.0
"""The shortest time between two fetches of one address."""

CACHE_SECONDS = (60.0, 86_400.0)
"""The shortest and longest time until a set is fetched again. Its headers choose between them."""

DEFAULT_CACHE_SECONDS = 3600.0
"""The time until a set is fetched again if its headers do not say."""

LONGEST_RETRY_SECONDS = 300.0

WAIT_SECONDS = 6.0
"""How long a request waits for a fetch. Longer than one fetch takes."""

WANTED_LIMIT = 1000
"""How many unknown key ids are remembered during a fetch."""

log = structlog.get_logger()


class KeySet:
    """The key set at one issuer's address."""

    def __init__(self, issuer: Issuer, metrics: Metrics) -> None:
        self.issuer = issuer
        self._metrics = metrics
        self._requested = asyncio.Event()
        self._wanted: set[str] = set()
        self._in_flight = False
        self._may_fetch_at = 0.0
        self._failures = 0
        self._reason = "it has not been fetched yet"
        self._fetched_at = time.monotonic()
        self._has_keys = False
        self._waiting: asyncio.Future[None] | None = None

    @property
    def warning(self) -> str:
        """Why the keys are not current, as a sentence; empty if they are."""
        if not self._reason:
            return ""
        rest = "the keys fetched before are used" if self._has_keys else "its tokens are refused for now"
        return f"The key set of [{self.issuer.name}] cannot be fetched ({self._reason}); {rest}."

    def age_seconds(self) -> float:
        """How long ago the set was fetched; before the first time, how long ago the node was made."""
        return time.monotonic() - self._fetched_at

    @property
    def may_wait(self) -> bool:
        """Whether a fetch is in flight, or may begin now."""
        return self._in_flight or self._requested.is_set() or time.monotonic() >= self._may_fetch_at

    async def wait(self, key_id: str) -> None:
        """Have the set fetched for an unknown key id, and wait for the end of that fetch."""
        if not self.may_wait:
            return
        if key_id and len(self._wanted) < WANTED_LIMIT:
            self._wanted.add(key_id)
        self._requested.set()
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._waiting)

    async def run(self, client: httpx.AsyncClient) -> None:
        """Keep the keys current until cancelled."""
        while True:
            self._in_flight = True
            self._may_fetch_at = time.monotonic() + MIN_INTERVAL_SECONDS
            try:
                pause = await self._fetch(client)
            finally:
                self._finish()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._requested.wait()

    def _finish(self) -> None:
        self._in_flight = False
        self._requested.clear()
        self._wanted = set()
        if self._waiting is not None:
            self._waiting.set_result(None)
            self._waiting = None

    async def _fetch(self, client: httpx.AsyncClient) -> float:
        """Fetch once. Returns after how many seconds the set is due again."""
        from tocsin_server.node.key_set_request import FetchFailed, fetch_key_set  # noqa: PLC0415 - see KeySets

        name = self.issuer.name
        try:
            found = await fetch_key_set(client, self.issuer.keys.url)
        except FetchFailed as error:
            return self._failed(str(error))
        except Exception:
            log.exception("key_set_fetch_raised", issuer=name)
            return self._failed("an internal error")
        self.issuer.keys.replace_fetched(found.keys, self._wanted)
        self._fetched_at, self._has_keys = time.monotonic(), True
        self._failures, self._reason = 0, ""
        self._metrics.key_set_fetches.add(name, "fetched")
        ignored = {"ignored": len(found.ignored), "because": found.ignored[0]} if found.ignored else {}
        log.info("key_set_fetched", issuer=name, keys=len(found.keys), **ignored)
        shortest, longest = CACHE_SECONDS
        age = DEFAULT_CACHE_SECONDS if found.max_age is None else found.max_age
        return min(max(age, shortest), longest)

    def _failed(self, reason: str) -> float:
        self._failures += 1
        self._reason = reason
        self._metrics.key_set_fetches.add(self.issuer.name, "failed")
        log.warning("key_set_fetch_failed", issuer=self.issuer.name, error=reason, has_keys=self._has_keys)
        return min(MIN_INTERVAL_SECONDS * 2.0 ** min(self._failures - 1, 10), LONGEST_RETRY_SECONDS)


class KeySets:
    """The key sets of all issuers that have an address. Without any, nothing of httpx is imported."""

    def __init__(self, tokens: TokenVerifier, metrics: Metrics) -> None:
        self._tokens = tokens
        self._sets = {issuer.name: KeySet(issuer, metrics) for issuer in tokens.issuers if issuer.keys.url}
        metrics.add_labeled_gauge(
            "tocsin_key_set_age_seconds",
            "Seconds since the key set of an issuer was fetched.",
            "issuer",
            {name: partial(KeySet.age_seconds, key_set) for name, key_set in self._sets.items()},
        )

    def __len__(self) -> int:
        return len(self._sets)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why keys are not current, as sentences."""
        return tuple(filter(None, (key_set.warning for key_set in self._sets.values())))

    async def run(self) -> None:
        """Keep all key sets current until cancelled. A failure is logged, and ends only this."""
        if not self._sets:
            return
        from tocsin_server.node.key_set_request import new_client  # noqa: PLC0415 - httpx is slow to import

        try:
            async with new_client() as client, asyncio.TaskGroup() as tasks:
                for key_set in self._sets.values():
                    tasks.create_task(key_set.run(client))
        except Exception:  # such as certificates of authorities that cannot be read
            log.exception("key_sets_failed")

    def needs(self, token: str) -> bool:
        """Whether waiting may find the key of a token."""
        found = self._tokens.issuer_to_ask(token) if token else None
        return found is not None and self._sets[found[0].name].may_wait

    async def wait_for(self, tokens: Iterable[str]) -> None:
        """Wait until the keys of these tokens are known, or it is known that they cannot be found now."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_SECONDS):
                for token in tokens:
                    if token and (found := self._tokens.issuer_to_ask(token)) is not None:
                        issuer, key_id = found
                        await self._sets[issuer.name].wait(key_id)


class KeySetAuthorizer:
    """Waits for the keys of requests' tokens, after an embedding application's authorizer has decided."""

    def __init__(self, key_sets: KeySets, inner: Authorizer | None) -> None:
        self._key_sets = key_sets
        self._inner = inner
        self._inner_seconds = 0.0 if inner is None else inner.authorization_seconds
        self.authorization_seconds = self._inner_seconds + WAIT_SECONDS + 1
        self.kept_headers: KeptHeaders | None = None if inner is None else inner.kept_headers

    def start(self) -> bool:
        """Return whether it decides about any request."""
        return True

    def needs_authorization(self, request: Request) -> bool:
        """Whether the application decides about the request, or the key of its token is not known."""
        is_wanted = self._inner is not None and self._inner.needs_authorization(request)
        return is_wanted or self._key_sets.needs(_token_of(request))

    async def authorize(self, authorize: Authorize, request: ClientRequest | None) -> AuthorizedOutcome:
        """Ask the application, then wait for the key unless the application gave claims."""
        outcome: AuthorizedOutcome = Approval(authorize.request)
        if self._inner is not None and self._inner.needs_authorization(authorize.request):
            outcome = await self._inner.authorize(authorize, request)
        if isinstance(outcome, Approval) and outcome.claims is None:
            await self._key_sets.wait_for([_token_of(outcome.request)])
        return outcome


def _token_of(request: Request) -> str:
    if isinstance(request, ConnectRequest | SubscribeRequest | RefreshRequest | SubRefreshRequest):
        return request.token
    return ""


def authorizer_with(key_sets: KeySets, inner: Authorizer | None) -> Authorizer | None:
    """Return a node's authorizer: the application's, or one that also waits for keys if there are any."""
    return KeySetAuthorizer(key_sets, inner) if key_sets else inner
