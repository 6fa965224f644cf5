"""Subscribe over Server-Sent Events: plain HTTP, for networks that do not let a WebSocket pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from ssl import SSLContext
from typing import Self, Unpack

from .binding import LoopBinding
from .callbacks import ClientCallbacks, TokenProvider, by_event
from .errors import subscription_error
from .models import Event, Publication, Unsubscribed
from .transports.address import http_url
from .transports.http import HttpTarget
from .transports.sse import EVENTS_PATH, TIMEOUT, SseTransport


class EventStream:
    """Iterate it for publications: ``async for publication in EventStream("http://localhost:8000", "news")``.

    The end of one of several channels is raised as ``SubscriptionEnded``; iterate on for the others. The
    stream reconnects and recovers by itself, at first from ``since``: the positions of all channels, as
    ``Last-Event-ID`` holds them. It raises when the server refuses it for good.

    It reads only while the caller waits for the next event. A slow reader therefore slows the server's
    sending; if it is too slow, the server disconnects it and it recovers.

    ``recovered`` is True after an interruption in which no publication was missed, and False if some may have
    been missed. Callbacks are called in between, in order; ``events`` yields every event instead. The stream
    ends with ``close``, or by leaving ``async with``. After a cancelled read, the next one reconnects and
    recovers. The stream belongs to the event loop of the first iteration: in
    another loop, thread or forked process, it raises ``WrongUse``.
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
        self._binding: LoopBinding | None = None
        self._transport = SseTransport(
            HttpTarget(http_url(url, EVENTS_PATH), ssl, headers=headers, timeout=TIMEOUT),
            names,
            token,
            get_token,
            since,
            by_event(callbacks),
        )
        # the transport has no reference to this object, so that dropping the object ends the generator
        self._events = self._transport.run()

    @property
    def recovered(self) -> bool | None:
        """Whether the last interruption before the event read last missed no publication."""
        return self._transport.recovered

    @property
    def position(self) -> str:
        """The positions from which to recover, as ``since`` takes them."""
        return self._transport.position

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Publication:
        while True:
            event = await self._next_event()
            if isinstance(event, Publication):
                return event
            if isinstance(event, Unsubscribed):
                raise subscription_error(event.channel, event.code, event.reason)

    async def events(self) -> AsyncIterator[Event]:
        """Iterate all events: StateChanged, Subscribed, Publication, Joined, Left, Unsubscribed, in order."""
        while True:
            try:
                event = await self._next_event()
            except StopAsyncIteration:
                return
            yield event

    async def close(self) -> None:
        """Close the connection and end the iteration. Not from a callback, nor while a task iterates.

        In a forked process it does nothing, since the connection belongs to the parent.
        """
        if self._binding is not None:
            if self._binding.is_forked:
                return
            self._binding.require()
        await self._events.aclose()

    async def _next_event(self) -> Event:
        if self._binding is None:
            self._binding = LoopBinding("event stream")
        self._binding.require()
        try:
            return await anext(self._events)
        except asyncio.CancelledError:
            # cancelling ended the generator; the next one reconnects and recovers
            self._events = self._transport.run()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
