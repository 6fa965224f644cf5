"""A channel as its reader sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .errors import SubscriptionEnded, subscription_error
from .inbox import Inbox
from .values import ChannelEvent, Position, Publication, Subscribed, Unsubscribed

if TYPE_CHECKING:
    from .client import Client


class Subscription:
    """Iterate it for publications: ``async for publication in client.subscribe("news")``.

    The iteration ends when you unsubscribe or close the client, and raises when the server ends the
    subscription or the connection for good. Cancelling loses nothing. Dropping the object unsubscribes; so
    does leaving ``async with``.

    It reads ahead up to the client's ``inbox_bytes``. Past that the channel is left until half of it is read,
    and then recovered from the log: the other channels do not wait, and what the log no longer has is told as
    any other loss.

    ``recovered`` and ``position`` are those of the place the reader has reached: True after a return that
    missed nothing, False after one that may have missed something, None before the first.
    """

    def __init__(self, client: Client, channel: str, inbox: Inbox[ChannelEvent]) -> None:
        self.channel = channel
        self.recovered: bool | None = None
        self.position: Position | None = None
        self._client = client
        self._inbox = inbox
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Publication:
        while True:
            event = await self._take()
            if isinstance(event, Publication):
                return event

    async def events(self) -> AsyncIterator[ChannelEvent]:
        """Iterate everything in order: Publication, Subscribed, Joined, Left, Unsubscribed."""
        while True:
            try:
                event = await self._take()
            except StopAsyncIteration:
                return
            yield event

    async def ready(self) -> Self:
        """Wait for the first subscribe reply; raises if the subscription is refused instead."""
        await asyncio.shield(self._begun)
        return self

    async def unsubscribe(self) -> None:
        """Leave the channel and end the iteration; only what has arrived can still be read."""
        self._client.drop(self.channel)

    async def __aenter__(self) -> Self:
        return await self.ready()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.unsubscribe()

    def offer(self, event: ChannelEvent, size: int) -> None:
        """Called by the client for each event of the channel, in order."""
        self._inbox.put(event, size)
        if isinstance(event, Subscribed) and not self._begun.done():
            self._begun.set_result(None)
        elif isinstance(event, Unsubscribed):
            quietly = event.code == 0
            self.end(None if quietly else subscription_error(event.channel, event.code, event.reason))

    def end(self, error: Exception | None) -> None:
        """Called by the client when nothing more will come."""
        self._inbox.close(error)
        if not self._begun.done():
            self._begun.set_exception(error or SubscriptionEnded(self.channel, 0, "ended before it began"))
            self._begun.exception()  # whoever does not wait for it hears of it from the iteration

    async def _take(self) -> ChannelEvent:
        event = await self._inbox.take()
        if isinstance(event, Subscribed):
            self.recovered, self.position = event.recovered, event.position
        elif isinstance(event, Publication) and event.position:
            self.position = event.position
        return event
