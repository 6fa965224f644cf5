"""A subscription as its caller uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from .errors import SubscriptionEnded, subscription_error
from .inbox import Inbox
from .models import ChannelEvent, Position, Publication, Subscribed, Unsubscribed


class Subscription:
    """Iterate it for publications: ``async for publication in client.subscribe("news")``.

    The iteration ends when you unsubscribe or close the client. It raises when the server ends the
    subscription or the connection for good. Cancelling loses no publication. Dropping the object
    unsubscribes; so does leaving ``async with``.

    At most the client's ``inbox_bytes`` are queued. Above that, the client unsubscribes from the channel
    until half of them are read, and then recovers from the channel's history. Other channels do not wait. A
    gap is reported as after any other interruption.

    ``recovered`` and ``position`` belong to the event that was read last. ``recovered`` is True after an
    interruption in which no publication was missed, False if some may have been missed, None before the
    first interruption.

    The mutable state is the two attributes above, the inbox and ``_ready``.
    """

    def __init__(self, channel: str, inbox: Inbox[ChannelEvent], unsubscribe: Callable[[], None]) -> None:
        self.channel = channel
        self.recovered: bool | None = None
        self.position: Position | None = None
        self._inbox = inbox
        self._unsubscribe = unsubscribe
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Publication:
        while True:
            event = await self._next_event()
            if isinstance(event, Publication):
                return event

    async def events(self) -> AsyncIterator[ChannelEvent]:
        """Iterate all events in order: Publication, Subscribed, Joined, Left, Unsubscribed."""
        while True:
            try:
                event = await self._next_event()
            except StopAsyncIteration:
                return
            yield event

    async def ready(self) -> Self:
        """Wait for the first subscribe reply. Raises if the subscription is refused."""
        await asyncio.shield(self._ready)
        return self

    async def unsubscribe(self) -> None:
        """Unsubscribe and end the iteration. Events that have arrived can still be read."""
        self._unsubscribe()

    async def __aenter__(self) -> Self:
        return await self.ready()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.unsubscribe()

    def put(self, event: ChannelEvent, size: int) -> None:
        """Add an event. The client calls this for each event of the channel, in order."""
        self._inbox.put(event, size)
        if isinstance(event, Subscribed) and not self._ready.done():
            self._ready.set_result(None)
        elif isinstance(event, Unsubscribed):
            is_own = event.code == 0
            self.end(None if is_own else subscription_error(event.channel, event.code, event.reason))

    def end(self, error: Exception | None) -> None:
        """End the iteration. The client calls this after the last event."""
        self._inbox.close(error)
        if not self._ready.done():
            self._ready.set_exception(
                error or SubscriptionEnded(self.channel, 0, "ended before the first subscribe reply")
            )
            self._ready.exception()  # marks it as retrieved: the iteration raises it too

    async def _next_event(self) -> ChannelEvent:
        event = await self._inbox.take()
        if isinstance(event, Subscribed):
            self.recovered, self.position = event.recovered, event.position
        elif isinstance(event, Publication) and event.position:
            self.position = event.position
        return event
