"""The memory engine's broker: the handler receives a message before the publish returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import (
    IDEMPOTENCY_SECONDS,
    NO_POSITION,
    BrokerHandler,
    HistoryQuery,
    IdempotencyKey,
    NewPublication,
)
from tocsin_server.engine.memory.history import HistoryStore
from tocsin_server.engine.memory.idempotency import IdempotencyKeys
from tocsin_server.engine.memory.sweeper import CallLater, Sweeper
from tocsin_server.errors import EngineError
from tocsin_server.protocol.messages import Position, Publication, Push


class MemoryBroker:
    """Implements Broker. No call waits, so each call is atomic and calls are delivered in their order.

    `clock` returns monotonic seconds. `make_epoch` returns a new epoch for each history.
    """

    def __init__(self, clock: Callable[[], float], make_epoch: Callable[[], str]) -> None:
        self._clock = clock
        self._histories = HistoryStore(make_epoch, self._schedule)
        self._idempotency = IdempotencyKeys()
        self._sweeper = Sweeper((self._histories, self._idempotency), clock)
        self._subscribed: set[str] = set()
        self._handler: BrokerHandler | None = None

    def start(self, handler: BrokerHandler, call_later: CallLater) -> None:
        """Call `handler` with received messages from now on."""
        self._handler = handler
        self._sweeper.start(call_later)

    def stop(self) -> None:
        """Refuse to publish from now on. Idempotent."""
        self._handler = None
        self._sweeper.stop()

    async def publish(self, channel: str, publication: NewPublication, options: ChannelOptions) -> Position:
        """Store and publish, as Broker describes."""
        return self.begin_publish(channel, publication, options)

    def begin_publish(self, channel: str, publication: NewPublication, options: ChannelOptions) -> Position:
        """Store and publish. No publish waits."""
        if self._handler is None:
            raise EngineError("the engine is not running")
        now = self._clock()
        key = publication.idempotency_key
        if not key:
            return self._publish(channel, publication, options, now)
        position = self._idempotency.find(channel, key, now)
        if position is None:
            position = self._publish(channel, publication, options, now)
            seconds = publication.idempotency_seconds
            self._idempotency.remember(channel, key, position, seconds, now)
            self._sweeper.schedule(now + seconds)
        return position

    async def expire_keys(self, keys: Sequence[IdempotencyKey]) -> None:
        """Let idempotency keys expire, as Broker describes."""
        now = self._clock()
        for channel, key in keys:
            self._idempotency.expire(channel, key, now)
        self._sweeper.schedule(now + IDEMPOTENCY_SECONDS)

    async def publish_join_leave(self, channel: str, push: Push) -> None:
        """Publish a join or leave, as Broker describes."""
        if self._handler is None:
            raise EngineError("the engine is not running")
        if channel in self._subscribed:
            self._handler.on_join_leave(channel, push)

    async def subscribe(self, channel: str) -> None:
        """Subscribe this node to a channel. Idempotent."""
        self.subscribe_now(channel)

    def subscribe_now(self, channel: str) -> bool:
        """Subscribe this node to a channel. No subscribe waits."""
        self._subscribed.add(channel)
        return True

    async def unsubscribe(self, channel: str) -> None:
        """Unsubscribe this node from a channel. Idempotent."""
        self.unsubscribe_now(channel)

    def unsubscribe_now(self, channel: str) -> bool:
        """Unsubscribe this node from a channel. No unsubscribe waits."""
        self._subscribed.discard(channel)
        self._histories.drop_unpublished(channel)
        return True

    async def read_history(self, channel: str, query: HistoryQuery, options: ChannelOptions) -> History:
        """Read a channel's history, as Broker describes."""
        return self._read_history(channel, query, options)

    def read_history_now(self, channel: str, query: HistoryQuery, options: ChannelOptions) -> History:
        """Read a channel's history. No read waits."""
        return self._read_history(channel, query, options)

    async def remove_history(self, channel: str) -> None:
        """Remove a channel's stored publications. The top and the epoch stay."""
        self._histories.remove_history(channel)

    def _publish(
        self, channel: str, publication: NewPublication, options: ChannelOptions, now: float
    ) -> Position:
        received: Publication | None
        appended = (
            None if publication.skip_history else self._histories.append(channel, publication, options, now)
        )
        if appended is None:
            top = NO_POSITION
            received = Publication(publication.data, 0, publication.info, publication.tags)
        else:
            top, received = appended
        if received is not None and self._handler is not None and channel in self._subscribed:
            may_be_delta = publication.may_be_delta(options)
            self._handler.on_publication(channel, received, top.epoch, now, may_be_delta=may_be_delta)
        return top

    def _read_history(self, channel: str, query: HistoryQuery, options: ChannelOptions) -> History:
        now = self._clock()
        is_subscribed = channel in self._subscribed
        return self._histories.read(channel, query, options, now, is_subscribed=is_subscribed)

    def _schedule(self, deadline: float) -> None:
        self._sweeper.schedule(deadline)
