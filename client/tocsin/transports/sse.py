"""The connections of one event stream: connect, read, reconnect, and recover by ``Last-Event-ID``."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, NoReturn, cast
from urllib.parse import urlencode, urlsplit

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

from tocsin import backoff, errors
from tocsin.callbacks import Callback, TokenProvider, call, fetch_token
from tocsin.errors import BadProtocol, Disconnected
from tocsin.models import Event, State, StateChanged, Subscribed, Unsubscribed
from tocsin.protocol.messages import WireCode

from .address import redact
from .http import (
    LONGEST_RETRY_SECONDS,
    PASSING_STATUSES,
    HttpClient,
    HttpTarget,
    check_not_compressed,
    is_header_value,
    password_error,
    read_error,
    retry_after,
)
from .sse_events import PublicationMissing, SseEvents, decode_disconnect, decode_refusal

EVENTS_PATH = "/events"
CONNECTION_EXPIRED = 3005
OPEN_SECONDS = 10.0
SILENCE_SECONDS = 60.0  # the server's keep-alive comments come several times a minute
SHORTEST_RETRY_SECONDS = 0.5
EVENT_CHARACTERS = 64 * 1024 * 1024  # of one event, as of one message on a WebSocket
TIMEOUT = httpx.Timeout(OPEN_SECONDS, read=SILENCE_SECONDS)


class SseTransport:
    """One event stream, across its connections.

    The mutable state is the token, the last ``retry:``, the number of failures, the time of opening, the
    positions (``_events``) and ``recovered``; only ``run`` changes it.
    """

    def __init__(  # the options of its only owner
        self,
        target: HttpTarget,
        channels: list[str],
        token: str,
        get_token: TokenProvider | None,
        since: str,
        callbacks: dict[type, Callback],
    ) -> None:
        self.recovered: bool | None = None
        self._target = target
        self._url = add_channels(target.url, channels)
        self._token = token.strip()
        self._get_token = get_token
        self._callbacks = callbacks
        self._events = SseEvents(channels, since)
        self._retry_seconds: float | None = None
        self._retry_after_seconds = 0.0
        self._is_disconnected_by_server = False
        self._failures = 0
        self._opened_at: float | None = None
        self._is_token_new = False

    @property
    def position(self) -> str:
        """The positions from which to recover, as ``Last-Event-ID`` holds them."""
        return self._events.last_event_id

    async def run(self) -> AsyncGenerator[Event, None]:
        """Connect, read and reconnect, until the server refuses the stream for good."""
        async with self._target.new_client(HttpClient) as http:
            yield await self._notify(StateChanged(State.CONNECTING, 0, "connect called"))
            while True:
                reason = Disconnected(0, "the stream ended")
                try:
                    async with aclosing(self._read(http)) as connection:
                        async for event in connection:
                            yield await self._notify(event)
                except (PublicationMissing, Disconnected, httpx.RequestError) as error:
                    reason = self._as_disconnected(error)
                if not errors.may_reconnect(reason.code):
                    raise errors.disconnect_error(reason.code, reason.reason)
                yield await self._notify(StateChanged(State.CONNECTING, reason.code, reason.reason))
                await asyncio.sleep(self._next_delay())

    async def _read(self, http: httpx.AsyncClient) -> AsyncGenerator[Event, None]:
        """Open one connection and yield its events, until it ends or breaks."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if token := await self._current_token():
            headers |= self._token_header(token)
        if self._events.last_event_id:
            headers["Last-Event-ID"] = self._events.last_event_id
        async with aclosing(await self._open(http, headers)) as response:
            self._events.on_connected()
            self._is_token_new = False
            self._opened_at = asyncio.get_running_loop().time()
            yield StateChanged(State.CONNECTED)
            async for sse in _events_of(response):
                if sse.retry is not None:
                    self._retry_seconds = min(sse.retry, LONGEST_RETRY_SECONDS * 1000) / 1000
                if sse.event == "disconnect":
                    self._is_disconnected_by_server = True
                    self._raise_disconnect(decode_disconnect(sse.data))
                if sse.event == "refused":  # as browsers are answered: a proxy dropped Cache-Control
                    self._is_disconnected_by_server = True
                    raise Disconnected(0, decode_refusal(sse.data))
                for event in self._events.handle(sse.event, sse.data, sse.id):
                    if isinstance(event, Unsubscribed) and event.code >= errors.FIRST_RESUBSCRIBE_CODE:
                        raise Disconnected(
                            0, f"{event.channel}: {event.reason}"
                        )  # a new request subscribes again
                    yield event

    async def _open(self, http: httpx.AsyncClient, headers: dict[str, str]) -> httpx.Response:
        """Send the request, and return the response that begins an event stream. Raises if it is refused."""
        request = http.build_request("GET", self._url, headers=headers)
        response: httpx.Response | None = None
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                response = await http.send(request, stream=True)
                if response.status_code != 200:
                    self._raise_refusal(await read_error(response))
                check_not_compressed(response)
        except TimeoutError as error:
            raise Disconnected(0, f"no response within {SILENCE_SECONDS:g} s{self._target.hint}") from error
        except BaseException:
            if response is not None:
                await response.aclose()
            raise
        return response

    async def _current_token(self) -> str:
        if self._get_token is not None and not self._token:
            try:
                self._token = await fetch_token(self._get_token)
            except errors.Unauthorized:
                raise
            except Exception as error:
                raise Disconnected(0, f"get_token failed: {error!r}") from error
            self._is_token_new = True
        return self._token

    def _token_header(self, token: str) -> dict[str, str]:
        """Return the header of the token: a cookie where ``Authorization`` holds the user of the address."""
        if not is_header_value(token):
            raise errors.Unauthorized("the token has characters that an HTTP header cannot hold")
        if "@" in urlsplit(self._url).netloc:
            return {"Cookie": f"tocsin_token={token}"}
        return {"Authorization": f"Bearer {token}"}

    def _drop_token(self) -> None:
        if self._get_token is not None:
            self._token = ""

    def _raise_disconnect(self, disconnect: WireCode) -> NoReturn:
        if disconnect.code in (CONNECTION_EXPIRED, errors.STATE_INVALIDATED):
            self._drop_token()
        raise Disconnected(disconnect.code, disconnect.reason)

    def _raise_refusal(self, response: httpx.Response) -> NoReturn:
        """Raise the error of a response other than 200: ``Disconnected`` if another attempt may succeed."""
        status, error = response.status_code, _error_of(response)
        if status == 401 and (password := password_error(response.headers)):
            raise password
        if status == 401 and self._get_token is not None and not self._is_token_new:
            self._drop_token()  # it may only be expired
            raise Disconnected(errors.TOKEN_EXPIRED, "the token was refused")
        if status >= 500 or status in PASSING_STATUSES:
            self._retry_after_seconds = retry_after(response.headers)
            raise Disconnected(0, self._target.describe(response))
        if misdirected := self._target.misdirected(response):
            raise misdirected
        if status == 401:
            raise errors.Unauthorized(f"the server refused the connection: {error.message}")
        if status == 403:
            raise errors.PermissionDenied(error.code, error.message)
        if status == 400:
            raise error
        raise BadProtocol(f"no event stream at {redact(self._target.url)}: {self._target.describe(response)}")

    def _as_disconnected(self, error: PublicationMissing | Disconnected | httpx.RequestError) -> Disconnected:
        match error:
            case Disconnected():
                return error
            case PublicationMissing():
                return Disconnected(0, "a publication is missing")
            case _:
                return Disconnected(0, self._target.describe(error))

    async def _notify(self, event: Event) -> Event:
        if isinstance(event, Subscribed):
            self.recovered = event.recovered
        await call(self._callbacks.get(type(event)), event)
        return event

    def _next_delay(self) -> float:
        """Return the seconds to wait: the server's ``retry:`` after a disconnect, otherwise the backoff.

        ``retry:`` is lengthened by up to a half, so that disconnected clients do not return all at once. The
        wait is at least ``SHORTEST_RETRY_SECONDS``, and the backoff after connections that did not last.
        ``Retry-After`` of a response that refused the stream for now comes before the backoff.
        """
        now, opened_at, self._opened_at = asyncio.get_running_loop().time(), self._opened_at, None
        if opened_at is not None and now - opened_at >= backoff.STEADY_SECONDS:
            self._failures = 0
        attempt, self._failures = self._failures, self._failures + 1
        pause = backoff.delay(attempt, random.random())  # noqa: S311 # jitter
        is_by_server, self._is_disconnected_by_server = self._is_disconnected_by_server, False
        if is_by_server and self._retry_seconds is not None:
            shortest = pause if attempt else SHORTEST_RETRY_SECONDS
            return max(shortest, self._retry_seconds * random.uniform(1.0, 1.5))  # noqa: S311 # jitter
        least, self._retry_after_seconds = self._retry_after_seconds, 0.0
        return least + pause


def add_channels(url: str, channels: Sequence[str]) -> str:
    """Return the address of an event stream. A query that the base address has stays."""
    query = urlencode([("channel", channel) for channel in channels])
    return f"{url}{'&' if urlsplit(url).query else '?'}{query}"


class _BoundedResponse:
    """The part of a response that httpx_sse reads. An event of more than ``EVENT_CHARACTERS`` is refused.

    The mutable state is ``size``: the characters received since the last event or blank line.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.headers = response.headers
        self.size = 0
        self._response = response

    async def aiter_text(self) -> AsyncIterator[str]:
        """Iterate the text of the response. Raises ``BadProtocol`` for an event that does not end."""
        async for text in self._response.aiter_text():
            self.size = 0 if text.endswith("\n\n") else self.size + len(text)
            if self.size > EVENT_CHARACTERS:
                raise BadProtocol(f"{redact(str(self._response.url))} sent an event that does not end")
            yield text


async def _events_of(response: httpx.Response) -> AsyncIterator[ServerSentEvent]:
    bounded = _BoundedResponse(response)
    try:
        async for sse in EventSource(cast("httpx.Response", bounded)).aiter_sse():
            bounded.size = 0
            yield sse
    except SSEError as error:
        raise BadProtocol(f"{redact(str(response.url))} is not an event stream: {error}") from error


def _error_of(response: httpx.Response) -> errors.CallError:
    """Return the error in the body of a response, or the status if the body has none."""
    fields: Any = {}
    try:
        fields = response.json()
        return errors.CallError(int(fields["code"]), str(fields["message"]))
    except (ValueError, LookupError, TypeError):
        return errors.CallError(response.status_code, f"HTTP {response.status_code}")
