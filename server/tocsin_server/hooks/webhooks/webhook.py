"""A webhook: sends events to an address of the application, as signed POST requests.

A request in flight is limited in time, and the answer is not kept. Redirects are not followed, and proxies of
the environment are not used, so that events reach the configured address only. Cookies are not kept.
Connections are: at most one for each part of the event log.

The mutable state is the HTTP client, which `open` makes.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING

import msgspec

from tocsin_server.config.webhook_options import WebhookOptions
from tocsin_server.core.delivery import Outcome, Result
from tocsin_server.core.lifecycle import LifecycleEvent
from tocsin_server.engine.deliveries import DeadLetterLimits
from tocsin_server.hooks.event_filter import EventFilter
from tocsin_server.hooks.signing import SIGNATURE_HEADER, signature
from tocsin_server.hooks.subscriber import DeliveryOptions
from tocsin_server.hooks.webhooks.answers import outcome_of
from tocsin_server.version import __version__

if TYPE_CHECKING:
    import httpx

DELIVERY_HEADER = "X-Tocsin-Delivery"

ANSWER_LIMIT_BYTES = 65_536
"""How much of an answer is read, so that its connection can be kept. A longer one closes it."""

IDLE_SECONDS = 60.0
"""How long an idle connection is kept."""

NOT_RUNNING = Outcome(Result.UNREACHABLE, "the node is not running")

_encode = msgspec.json.Encoder().encode


class Webhook:
    """Implements Subscriber. `clock` returns unix seconds."""

    def __init__(
        self,
        name: str,
        options: WebhookOptions,
        clock: Callable[[], float] = time.time,
        connections: int = 64,
    ) -> None:
        self.name = f"webhooks.{name}"
        self.options = DeliveryOptions(
            options.batch_size,
            options.batch_delay,
            options.retry_for,
            DeadLetterLimits(options.dead_letter_limit, options.dead_letter_ttl),
        )
        self.shown_url = options.shown_url
        self._options = options
        self.wants = EventFilter(options.types, options.channels).matches
        self._clock = clock
        self._connections = connections
        self._client: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Have an HTTP client."""
        async with _new_client(self._options, self._connections) as client:
            self._client = client
            try:
                yield
            finally:
                self._client = None

    async def deliver(self, delivery: str, events: Sequence[LifecycleEvent]) -> Outcome:
        """Send one request, and wait for its complete answer.

        The delivery id is in the body, so that it is signed: by it the receiver knows a request that someone
        recorded and sent again.
        """
        if self._client is None:
            return NOT_RUNNING
        import httpx  # noqa: PLC0415 - only nodes with webhooks load it

        try:
            async with asyncio.timeout(self._options.timeout):
                return await self._post(
                    self._client, delivery, _encode({"delivery": delivery, "events": events})
                )
        except TimeoutError:
            error = f"no complete answer within {self._options.timeout:g} s"
            return Outcome(Result.UNREACHABLE, error)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return Outcome(Result.UNREACHABLE, _described(error))

    async def _post(self, client: httpx.AsyncClient, delivery: str, body: bytes) -> Outcome:
        headers = {
            **self._options.static_headers,
            "Content-Type": "application/json",
            DELIVERY_HEADER: delivery,
        }
        if self._options.secrets:
            secrets = [secret.encode() for secret in self._options.secrets]
            headers[SIGNATURE_HEADER] = signature(secrets, body, int(self._clock()))
        async with client.stream("POST", self._options.url, content=body, headers=headers) as response:
            read = 0
            async for chunk in response.aiter_raw():
                read += len(chunk)
                if read > ANSWER_LIMIT_BYTES:
                    break
            permanent = self._options.permanent_statuses
            return outcome_of(response.status_code, response.headers, permanent, self._clock())


def _new_client(options: WebhookOptions, connections: int) -> httpx.AsyncClient:
    import httpx  # noqa: PLC0415 - only nodes with webhooks load it

    client = httpx.AsyncClient(
        timeout=None,  # noqa: S113 - `deliver` limits the whole request
        trust_env=False,
        verify=_tls_context(options) if options.url.startswith("https:") else False,
        headers={"User-Agent": f"Tocsin/{__version__}", "Accept-Encoding": "identity"},
        limits=httpx.Limits(
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=IDLE_SECONDS,
        ),
    )
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return client


def _tls_context(options: WebhookOptions) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.tls_ca or None)
    if options.tls_certificate:
        context.load_cert_chain(options.tls_certificate, options.tls_key, password=lambda: "")
    return context


def _described(error: Exception) -> str:
    """An error as a clause for the operator, without the address, whose query may hold a secret."""
    kind = type(error).__name__
    text = str(error).strip()
    return f"{kind}: {text}"[:200] if text and "://" not in text else kind
