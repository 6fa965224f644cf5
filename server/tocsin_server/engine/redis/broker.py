"""The Redis engine's broker: histories are streams in Redis, and messages travel by its pub/sub."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.positions import History
from tocsin_server.eager_future import EagerFuture
from tocsin_server.engine.broker import (
    IDEMPOTENCY_SECONDS,
    NO_POSITION,
    BrokerHandler,
    HistoryQuery,
    IdempotencyKey,
    NewPublication,
)
from tocsin_server.engine.redis import encoding, scripts
from tocsin_server.engine.redis.clock import SharedClock
from tocsin_server.engine.redis.connections.connection import pack_command
from tocsin_server.engine.redis.dropped_messages import DroppedMessages
from tocsin_server.engine.redis.epochs import Epochs
from tocsin_server.engine.redis.interfaces import Argument, Commands, PubSub, StoreState
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.publish_call import (
    ChannelNames,
    PublishSettings,
    PublishState,
    SeldomWords,
    pack_publish,
)
from tocsin_server.engine.redis.seen_positions import SeenPositions
from tocsin_server.errors import EngineError, EngineFull
from tocsin_server.loop_turns import LoopTurns
from tocsin_server.protocol.messages import Position, Publication, Push

MAX_MS = 2**53
"""Redis rejects a time to live that exceeds 64 bits when it is added to its clock."""

KEYS_AT_ONCE = 200
"""How many idempotency keys one command lets expire: Redis does nothing else for 0.1 ms."""

ABOVE_STAMPS = 2**64 - 2
"""The second half of a stream id that is above the ids of all publications at an offset."""


class ReadArguments(NamedTuple):
    """The arguments of history_read.lua, in its order."""

    epochs: str
    meta_ttl_ms: int
    fresh_epoch: str
    keep: str
    """Size and times to live of the history, for nodes whose configuration gives the channel none."""
    trusts_absence: int
    keeps_epoch: int
    seen_offset: int
    seen_epoch: str
    seen_stamp: int
    range: str
    """XRANGE, XREVRANGE, or an empty string to read only the top."""
    first: str
    last: str
    at_most: Argument
    """How many entries at most. An empty string: all of them."""
    limit_bytes: Argument
    """How many bytes the entries may have. An empty string: any number."""
    least: int
    """How many entries there are at least, of any size."""


class RedisBroker:
    """Implements Broker. Every change of a history is one script, so it is atomic and the order is kept.

    A Redis that restarts or fails over may have lost the end of a history. Its offsets would then be used
    twice in one epoch. To prevent that, each script gets the newest position that this node has seen in the
    channel. If the history's top is below that position in the same epoch, the history starts over in
    another epoch. The first publish detects this, or the first read after `BrokerHandler.on_resubscribed`.

    The lost end may have been replaced with as many other publications. A read detects that as well, by the
    stamp of the newest publication that this node has seen.

    A history without publications is not stored, so that reading endless channel names fills no memory. It
    has the initial epoch, which all such histories share (decision 0016). A missing top proves that there
    were no publications, except if Redis evicts keys, or if nodes disagree about which channels keep history.
    Then `trusts_absence` is false: each read of a missing top stores another epoch for a minute, and a
    publish without history looks for a stored top and continues it.

    The mutable state is the set of subscribed channels and their seen positions; `subscribe` and
    `unsubscribe` change the former, received messages and replies the latter.
    """

    def __init__(
        self,
        keys: Keys,
        commands: Commands,
        pubsub: PubSub,
        clock: SharedClock,
        epochs: Epochs,
        dropped: DroppedMessages,
        state: StoreState,
    ) -> None:
        self._keys = keys
        self._commands = commands
        self._pubsub = pubsub
        self._clock = clock
        self._epochs = epochs
        self._dropped = dropped
        self._trusts_absence = state.trusts_absence
        self._may_grow = state.may_grow
        self._seen = SeenPositions()
        self._names = ChannelNames(keys, self._settings_of)
        self._other_versions = encoding.OtherVersions()
        self._decoding_turns = LoopTurns()
        self._subscribed: dict[bytes, str] = {}  # channels by pub/sub name
        self._handler: BrokerHandler | None = None

    def start(self, handler: BrokerHandler) -> None:
        """Call `handler` with received messages from now on."""
        self._handler = handler

    def stop(self) -> None:
        """Release the handler. Idempotent."""
        self._handler = None

    def on_resubscribed(self, names: Sequence[bytes]) -> None:
        """The subscription to these pub/sub names was interrupted and is restored."""
        channels = [self._subscribed[name] for name in names if name in self._subscribed]
        if channels and self._handler is not None:
            self._handler.on_resubscribed(channels)

    async def publish(self, channel: str, publication: NewPublication, options: ChannelOptions) -> Position:
        """Store and publish, as Broker describes."""
        return await self.begin_publish(channel, publication, options)

    def begin_publish(
        self, channel: str, publication: NewPublication, options: ChannelOptions
    ) -> EagerFuture[Position]:
        """Store and publish. Every publish waits for Redis.

        If Redis does not reply in time, the publication may have been stored and published. With an
        idempotency key, the publish can be repeated safely.
        """
        names = self._names.of(channel)
        if names.options is not options:
            names.use_options(options)
        body = encoding.encode_body(publication.data, publication.info, publication.tags)
        stamp = self._clock.stamp()
        head = names.delta_head if publication.delta else names.head
        is_stored = names.keeps_history and not publication.skip_history
        trusts_absence = publication.skip_history or self._trusts_absence()
        key = publication.idempotency_key
        if not is_stored and trusts_absence and not key:
            # A plain command, because a cluster checks the keys of a script. While a slot moves, Redis
            # redirects missing keys to the server that imports the slot, and no node is subscribed there
            # yet.
            message = encoding.publication_without_history(head, stamp, body)
            packed = pack_command(self._commands.publish_command, names.pubsub_name, message)
            return self._commands.send(packed, names.pubsub_name).then(_no_position)
        state = (head, is_stored, trusts_absence, not is_stored or self._may_grow())
        seldom = _seldom_words(publication) if key or publication.version else None
        if seldom is None:
            beginning = names.beginning(state)
        else:
            first_result = self._keys.idempotency(channel, key) if key else ""
            beginning = names.seldom_beginning(state, first_result)
        fresh_epoch, seen = self._epochs.take(), self._seen.latest(channel)
        packed = pack_publish(beginning, body, str(stamp).encode(), fresh_epoch, seen, seldom)
        return self._commands.send(packed, names.meta).then(self._published, None, channel)

    def _settings_of(self, options: ChannelOptions, state: PublishState) -> PublishSettings:
        head, is_stored, trusts_absence, may_grow = state
        return PublishSettings(
            self._commands.publish_command,
            head,
            options.history_size if is_stored else 0,
            _ms(options.history_ttl),
            _ms(options.history_meta_ttl),
            int(trusts_absence),
            int(may_grow),
        )

    def _published(self, channel: str, reply: Any) -> Position:
        """The position in the reply of publish.lua."""
        if not reply:
            raise EngineFull
        position = Position(int(reply[0]), reply[1].decode()) if reply[1] else NO_POSITION
        self._seen.record(channel, position.offset, position.epoch)
        return position

    async def expire_keys(self, keys: Sequence[IdempotencyKey]) -> None:
        """Let idempotency keys expire, as Broker describes."""
        names = [self._keys.idempotency(channel, key) for channel, key in keys]
        milliseconds = IDEMPOTENCY_SECONDS * 1000
        if self._commands.is_sharded:  # keys of one slot may be on two servers while the slot moves
            replies = [self._commands.execute("PEXPIRE", name, milliseconds) for name in names]
        else:
            parts = [names[first : first + KEYS_AT_ONCE] for first in range(0, len(names), KEYS_AT_ONCE)]
            replies = [self._commands.run_script(scripts.KEYS_EXPIRE, part, milliseconds) for part in parts]
        await asyncio.gather(*replies)

    async def publish_join_leave(self, channel: str, push: Push) -> None:
        """Publish a join or leave, as Broker describes."""
        name = self._keys.pubsub_name(channel)
        await self._commands.execute(self._commands.publish_command, name, encoding.encode_push(push))

    async def subscribe(self, channel: str) -> None:
        """Subscribe this node to a channel, as Broker describes."""
        name = self._keys.pubsub_name(channel)
        self._subscribed[name.encode()] = channel
        self._seen.track(channel)
        await self._pubsub.subscribe(name, partial(self._on_message, channel))

    def subscribe_now(self, channel: str) -> bool:  # noqa: ARG002 - as Broker calls it
        """Return False: every subscribe waits for Redis."""
        return False

    async def unsubscribe(self, channel: str) -> None:
        """Unsubscribe this node from a channel. Idempotent."""
        name = self._keys.pubsub_name(channel)
        self._subscribed.pop(name.encode(), None)
        self._seen.untrack(channel)
        await self._pubsub.unsubscribe(name)

    def unsubscribe_now(self, channel: str) -> bool:  # noqa: ARG002 - as Broker calls it
        """Return False: every unsubscribe waits for Redis."""
        return False

    async def read_history(self, channel: str, query: HistoryQuery, options: ChannelOptions) -> History:
        """Read a channel's history, as Broker describes."""
        names = [self._keys.meta(channel), self._keys.history(channel)]
        command, first, last, at_most, limit_bytes = _range_arguments(query)
        seen = self._seen.latest(channel)
        arguments = ReadArguments(
            self._use_epochs(names, channel, options),
            _ms(options.history_meta_ttl),
            self._epochs.take().decode(),
            _keep(options),
            int(self._trusts_absence()),
            int(query.keeps_epoch),
            seen.offset,
            seen.epoch,
            seen.stamp,
            command,
            first,
            last,
            at_most,
            limit_bytes,
            int(not query.may_be_empty),
        )
        offset, epoch, entries = await self._commands.run_script(scripts.HISTORY_READ, names, *arguments)
        top = Position(int(offset), epoch.decode())
        self._seen.record(channel, top.offset, top.epoch)
        for newest in entries[:1] if query.is_reverse else entries[-1:]:
            self._seen.record(channel, _offset(newest), top.epoch, _stamp(newest))
        return History(top, await self._decoding_turns.map(_publication, entries))

    def read_history_now(self, channel: str, query: HistoryQuery, options: ChannelOptions) -> None:
        """Return None: every read waits for Redis."""

    async def remove_history(self, channel: str) -> None:
        """Remove a channel's stored publications. The top and the epoch stay."""
        await self._commands.execute("DEL", self._keys.history(channel))

    def _use_epochs(self, names: list[str], channel: str, options: ChannelOptions) -> str:
        """Add the names of the initial epoch to the script's keys, on a single server. Returns the first.

        On a cluster the script uses them without declaring them. They are in the slot of the channel, but
        while the slot moves, Redis would reject every script whose keys are not all on one server.
        """
        name = self._keys.epochs(channel)
        if not self._commands.is_sharded:
            names += [name, f"{name}:{_ms(options.history_meta_ttl)}"]
        return name

    def _on_message(self, channel: str, message: bytes) -> None:
        if self._handler is None:
            return
        try:
            if message.startswith((encoding.PUBLICATION, encoding.DELTA_PUBLICATION)):
                publication, epoch, stamp = encoding.decode_publication(message)
                if not self._seen.receive(channel, publication.offset, epoch, stamp):
                    # The end of the history was replaced. Reading it gives it another epoch.
                    self._handler.on_resubscribed([channel])
                self._handler.on_publication(
                    channel,
                    publication,
                    epoch,
                    self._clock.monotonic(stamp),
                    may_be_delta=message.startswith(encoding.DELTA_PUBLICATION),
                )
            elif message.startswith((encoding.JOIN, encoding.LEAVE)):
                self._handler.on_join_leave(channel, encoding.decode_push(channel, message))
            else:
                self._other_versions.ignore("channel messages", channel=channel)
        except ValueError as error:
            name = type(error).__name__  # the text of the error may repeat a part of the message
            self._dropped.drop("malformed_message_dropped", channel=channel, error=name)


def _no_position(_receivers: Any) -> Position:
    return NO_POSITION


def _seldom_words(publication: NewPublication) -> SeldomWords:
    return SeldomWords(publication.version, publication.version_epoch, publication.idempotency_seconds * 1000)


@lru_cache(maxsize=128)  # channel options have few distinct values, and every publish converts some
def _ms(seconds: float) -> int:
    """Convert to the milliseconds of a Redis time to live: at least 1, and at most MAX_MS."""
    return min(MAX_MS, max(1, math.ceil(seconds * 1000)))


@lru_cache(maxsize=128)
def _keep_of(size: int, ttl: float, meta_ttl: float) -> str:
    return f"{size} {_ms(ttl)} {_ms(meta_ttl)}"


def _keep(options: ChannelOptions) -> str:
    """What a node whose configuration gives the channel no history needs to continue it (see publish.lua)."""
    return _keep_of(options.history_size, options.history_ttl, options.history_meta_ttl)


def _range_arguments(query: HistoryQuery) -> tuple[str, str, str, Argument, Argument]:
    """The fields from `range` to `limit_bytes` of ReadArguments."""
    since = query.since.offset if query.since else None
    if query.limit == 0 or (query.is_reverse and since == 0):
        return "", "", "", "", ""
    at_most: Argument = "" if query.limit < 0 else query.limit
    limit_bytes: Argument = query.limit_bytes or ""
    if query.is_reverse:  # "(" excludes the bound; it requires Redis 6.2
        return "XREVRANGE", "+" if since is None else f"({since}-0", "-", at_most, limit_bytes
    return "XRANGE", "-" if since is None else f"({since}-{ABOVE_STAMPS}", "+", at_most, limit_bytes


def _publication(entry: Any) -> Publication:
    field, body = entry[1]
    if field != encoding.FIELD:
        raise EngineError("the history has publications of another version of the format")
    return encoding.decode_body(body, _offset(entry))


def _offset(entry: Any) -> int:
    return int(entry[0].partition(b"-")[0])


def _stamp(entry: Any) -> int:
    return int(entry[0].partition(b"-")[2])
