"""Subscribing over Server-Sent Events: plain HTTP, for where a WebSocket cannot pass."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from ssl import SSLContext
from typing import Any, NoReturn, Self, Unpack

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

from . import backoff, errors
from .address import http_url
from .callbacks import Callback, ClientCallbacks, by_event, call
from .driver import TokenProvider
from .errors import BadProtocol, Disconnected
from .feed import Feed, Hole, read_disconnect
from .http import HttpClient
from .protocol import WireCode
from .values import Event, Publication, State, StateChanged, Subscribed, Unsubscribed

EVENTS_PATH = "/events"
CONNECTION_EXPIRED = 3005
OPEN_SECONDS = 10.0
SILENCE_SECONDS = 60.0  # the server's keep-alive comments come several times a minute
LONGEST_RETRY_SECONDS = 300.0
_TIMEOUT = httpx.Timeout(OPEN_SECONDS, read=SILENCE_SECONDS)
_PASSING_STATUSES = (408, 425, 429)


class EventStream:
    """Iterate it for publications: ``async for publication in EventStream("http://localhost:8000", "news")``.

    The end of one of several channels is raised as ``SubscriptionEnded``: iterate on for the others.
    It reconnects and resumes by itself, from ``since`` at first (the positions of all channels, as ``Last-
    Event-ID`` holds them), and raises when the server refuses it for good. Nothing runs while nobody waits
    for the next message: a slow reader slows the server's sending, and is disconnected and resumed when it is
    too slow.

    ``recovered`` is False once something may have been missed, True after a return that missed nothing.
    Callbacks are called in between, in order; ``events`` yields everything instead. Ends on ``close``, or by
    leaving ``async with``.
    """

    def __init__(
        self,
        url: str,
        channels: str | Sequence[str],
        *,
        token: str = "",
        get_token: TokenProvider | None = None,
        since: str = "",
        headers: Mapping[str, str] | None = None,
        ssl: SSLContext | None = None,
        **callbacks: Unpack[ClientCallbacks],
    ) -> None:
        names = [channels] if isinstance(channels, str) else list(channels)
        self._reader = Reader(
            http_url(url, EVENTS_PATH),
            names,
            token,
            get_token,
            since,
            partial(HttpClient, headers=headers, timeout=_TIMEOUT, verify=ssl or True),
            by_event(callbacks),
        )
        self._events = self._reader.run()  # the reader knows nothing of us: dropping us ends it

    @property
    def recovered(self) -> bool | None:
        """Whether the last return, up to where you have read, missed nothing."""
        return self._reader.recovered

    @property
    def position(self) -> str:
        """Where to resume: what ``since`` takes."""
        return self._reader.position

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Publication:
        while True:
            event = await anext(self._events)
            if isinstance(event, Publication):
                return event
            if isinstance(event, Unsubscribed):
                raise errors.subscription_error(event.channel, event.code, event.reason)

    async def events(self) -> AsyncIterator[Event]:
        """Iterate everything in order: StateChanged, Subscribed, Publication, Joined, Left, Unsubscribed."""
        async for event in self._events:
            yield event

    async def close(self) -> None:
        """Close the connection and end the iteration; not from a callback, nor while a task iterates."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Reader:
    """One event stream across its connections."""

    def __init__(  # the options of its only owner
        self,
        url: str,
        channels: list[str],
        token: str,
        get_token: TokenProvider | None,
        since: str,
        dial: Callable[[], httpx.AsyncClient],
        callbacks: dict[type, Callback],
    ) -> None:
        self.recovered: bool | None = None
        self._url = url
        self._channels = channels
        self._token = token
        self._get_token = get_token
        self._dial = dial
        self._callbacks = callbacks
        self._feed = Feed(channels, since)
        self._retry_seconds: float | None = None
        self._is_sent_away = False
        self._attempt = 0
        self._is_token_new = False

    @property
    def position(self) -> str:
        """Where to resume."""
        return self._feed.last_event_id

    async def run(self) -> AsyncGenerator[Event, None]:
        """Connect, read, and again, until it is refused for good."""
        async with self._dial() as http:
            yield await self._tell(StateChanged(State.CONNECTING, 0, "connect called"))
            while True:
                why = Disconnected(0, "the stream ended")
                try:
                    async with aclosing(self._read(http)) as connection:
                        async for event in connection:
                            yield await self._tell(event)
                except (Hole, Disconnected, httpx.TransportError) as error:
                    why = _reason(error)
                if not errors.may_come_back(why.code):
                    raise errors.disconnect_error(why.code, why.reason)
                yield await self._tell(StateChanged(State.CONNECTING, why.code, why.reason))
                await asyncio.sleep(self._pause())

    async def _read(self, http: httpx.AsyncClient) -> AsyncGenerator[Event, None]:
        """One connection, until it ends or breaks."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if token := await self._find_token():
            headers["Authorization"] = f"Bearer {token}"
        if self._feed.last_event_id:
            headers["Last-Event-ID"] = self._feed.last_event_id
        query = {"channel": self._channels}
        async with http.stream("GET", self._url, params=query, headers=headers) as response:
            if response.status_code != 200:
                await response.aread()
                self._refused(response)
            self._feed.opened()
            self._is_token_new = False
            yield StateChanged(State.CONNECTED)
            async for sse in _events_of(response):
                self._attempt = 0
                if sse.retry is not None:
                    self._retry_seconds = min(sse.retry / 1000, LONGEST_RETRY_SECONDS)
                if sse.event == "disconnect":
                    self._is_sent_away = True
                    self._ended(read_disconnect(sse.data))
                for event in self._feed.take(sse.event, sse.data, sse.id):
                    yield event

    async def _find_token(self) -> str:
        if self._get_token is not None and not self._token:
            try:
                self._token = await self._get_token()
            except errors.Unauthorized:
                raise
            except Exception as error:
                raise Disconnected(0, f"get_token failed: {error!r}") from error
            self._is_token_new = True
        return self._token

    def _drop_token(self) -> None:
        if self._get_token is not None:
            self._token = ""

    def _ended(self, told: WireCode) -> NoReturn:
        if told.code in (CONNECTION_EXPIRED, errors.STATE_INVALIDATED):
            self._drop_token()
        raise Disconnected(told.code, told.reason)

    def _refused(self, response: httpx.Response) -> NoReturn:
        """Raise what an answer other than 200 means; ``Disconnected`` where coming back may help."""
        status, error = response.status_code, _body(response)
        if status == 401 and self._get_token is not None and not self._is_token_new:
            self._drop_token()  # it may only be expired
            raise Disconnected(errors.TOKEN_EXPIRED, "the token was refused")
        if status >= 500 or status in _PASSING_STATUSES:
            raise Disconnected(0, f"HTTP {status}")
        if status == 401:
            raise errors.Unauthorized(f"the server refused the connection: {error.message}")
        if status == 403:
            raise errors.PermissionDenied(error.code, error.message)
        if status == 400:
            raise error
        raise BadProtocol(f"no event stream at {self._url}: HTTP {status}")

    async def _tell(self, event: Event) -> Event:
        if isinstance(event, Subscribed):
            self.recovered = event.recovered
        await call(self._callbacks.get(type(event)), event)
        return event

    def _pause(self) -> float:
        """If the server sent it away, its ``retry:``, spread by half of it; otherwise backoff."""
        attempt, self._attempt = self._attempt, self._attempt + 1
        is_sent_away, self._is_sent_away = self._is_sent_away, False
        if is_sent_away and self._retry_seconds is not None:
            return self._retry_seconds * random.uniform(1.0, 1.5)  # noqa: S311 # jitter
        return backoff.delay(attempt, random.random())  # noqa: S311 # jitter


async def _events_of(response: httpx.Response) -> AsyncIterator[ServerSentEvent]:
    source = EventSource(response)
    try:
        async for sse in source.aiter_sse():
            yield sse
    except SSEError as error:
        raise BadProtocol(f"{response.url} is no event stream: {error}") from error


def _body(response: httpx.Response) -> errors.CallError:
    """The refusal's own words, if it has any."""
    fields: Any = {}
    try:
        fields = response.json()
        return errors.CallError(int(fields["code"]), str(fields["message"]))
    except (ValueError, LookupError, TypeError):
        return errors.CallError(response.status_code, f"HTTP {response.status_code}")


def _reason(error: Exception) -> Disconnected:
    if isinstance(error, Disconnected):
        return error
    if isinstance(error, Hole):
        return Disconnected(0, "a message is missing")
    return Disconnected(0, str(error) or type(error).__name__)
