"""The broker of a node that shares a Redis: logs are streams there, announcements its pub/sub."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import structlog

from tocsin_server.config.options import ChannelOptions
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import (
    IDEMPOTENCY_SECONDS,
    NO_POSITION,
    BrokerHandler,
    HistoryQuery,
    NewPublication,
)
from tocsin_server.engine.redis import encoding, scripts
from tocsin_server.engine.redis.clock import SharedClock
from tocsin_server.engine.redis.interfaces import Argument, Calls, Ears
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.seen_positions import Tops
from tocsin_server.protocol.messages import Position, Publication, Push

LONGEST_MS = 2**53
"""Redis takes no lifetime that, added to its clock, leaves 64 bits."""

NOT_LOGGED: tuple[Argument, ...] = (0, 0, 0, "", 0, "", 0, 0, "")
"""Where no log is kept."""

ABOVE_STAMPS = 2**64 - 2
"""The second half of an id above those of all publications at an offset."""

log = structlog.get_logger()


class RedisBroker:
    """Everything that changes a log is a script, so that one step is one, and the order of calls is kept.

    A Redis that restarts or fails over may have lost the end of a log. Then offsets would be given out
    twice in one epoch. So whatever touches a log tells the script the highest position that this node has
    seen of it (only of channels it listens to), and a log whose top is below that, in the same epoch,
    begins anew in another one: by the first publication, or by the first read after `Audience.resume`. An
    end that was lost and replaced by as many other publications shows by a read as well: entries bear the
    stamps of their publications, and this node knows which one it has seen there.
    """

    def __init__(
        self,
        keys: Keys,
        calls: Calls,
        ears: Ears,
        clock: SharedClock,
        make_epoch: Callable[[], str],
    ) -> None:
        self._keys = keys
        self._calls = calls
        self._ears = ears
        self._clock = clock
        self._make_epoch = make_epoch
        self._tops = Tops()
        self._channels: dict[bytes, str] = {}  # that are listened to, by the name of their announcements
        self._audience: BrokerHandler | None = None

    def start(self, audience: BrokerHandler) -> None:
        """Tell `audience` what is heard from now on."""
        self._audience = audience

    def stop(self) -> None:
        """Tell nobody anything any more. Idempotent."""
        self._audience = None

    def resume(self, names: Sequence[bytes]) -> None:
        """The link to these is whole again."""
        channels = [self._channels[name] for name in names if name in self._channels]
        if channels and self._audience is not None:
            self._audience.on_resubscribed(channels)

    async def publish(self, channel: str, draft: NewPublication, options: ChannelOptions) -> Position:
        """Append and announce, as Broker says.

        Where Redis did not answer in time, the publication may have been stored and announced nevertheless:
        with an idempotency key it can be repeated safely.
        """
        body = encoding.encode_body(draft.data, draft.info, draft.tags)
        is_logged = options.keeps_history and not draft.skip_history
        stamp = self._clock.stamp()
        if is_logged:
            logged = self._logged(channel, draft, options, stamp)
            head = encoding.publication_head(stamp)
            position = await self._run(channel, draft.idempotency_key, head, body, logged)
            self._tops.see(channel, *position)
            return position
        return await self._run(channel, draft.idempotency_key, encoding.unlogged_head(stamp), body)

    async def publish_join_leave(self, channel: str, push: Push) -> None:
        """Announce a join or leave, as Broker says."""
        await self._run(channel, "", encoding.encode_push(push), b"")

    async def subscribe(self, channel: str) -> None:
        """Hear a channel, as Broker says."""
        name = self._keys.announcements(channel)
        self._channels[name.encode()] = channel
        self._tops.watch(channel)
        await self._ears.listen(name, partial(self._hear, channel))

    async def unsubscribe(self, channel: str) -> None:
        """Hear a channel no more. Idempotent."""
        name = self._keys.announcements(channel)
        self._channels.pop(name.encode(), None)
        self._tops.drop(channel)
        await self._ears.forget(name)

    async def read_history(self, channel: str, query: HistoryQuery, options: ChannelOptions) -> History:
        """Read a log, as Broker says."""
        answer = await self._calls.run_script(
            scripts.READ,
            [self._keys.meta(channel), self._keys.log(channel)],
            _ms(options.history_meta_ttl),
            self._make_epoch(),
            *self._tops.known(channel),
            *_range(query),
        )
        offset, epoch, entries = answer
        top = Position(int(offset), epoch.decode())
        self._tops.see(channel, *top)
        for newest in entries[:1] if query.is_reverse else entries[-1:]:
            self._tops.see(channel, _offset(newest), top.epoch, _stamp(newest))
        return History(top, [_publication(entry) for entry in entries])

    async def remove_history(self, channel: str) -> None:
        """Drop what a log keeps. Its top and epoch stay."""
        await self._calls.run_script(scripts.REMOVE_HISTORY, [self._keys.log(channel)])

    async def _run(
        self,
        channel: str,
        idempotency_key: str,
        head: bytes,
        body: bytes,
        logged: tuple[Argument, ...] = (),
    ) -> Position:
        """Run the script; with `logged` it keeps a log."""
        keys, calls = self._keys, self._calls
        announcements, *names = keys.of_log(channel)
        if idempotency_key:
            names.append(keys.answer(channel, idempotency_key))
        elif not logged and calls.is_sharded:
            # A plain command, since a cluster asks for a script's keys: while a slot moves, those that are
            # not there are looked for where it moves to, and nobody listens there yet.
            await calls.call(calls.publish, announcements, head + body)
            return NO_POSITION
        offset, epoch = await calls.run_script(
            scripts.PUBLISH,
            names,
            calls.publish,
            announcements,
            head,
            body,
            IDEMPOTENCY_SECONDS * 1000 if idempotency_key else 0,
            *(logged or NOT_LOGGED),
        )
        return Position(int(offset), epoch.decode()) if epoch else NO_POSITION

    def _logged(
        self, channel: str, draft: NewPublication, options: ChannelOptions, stamp: int
    ) -> tuple[Argument, ...]:
        """What the script has to know of the log, as far as this node knows it."""
        known = self._tops.known(channel)
        return (
            options.history_size,
            _ms(options.history_ttl),
            _ms(options.history_meta_ttl),
            self._make_epoch(),
            known.offset,
            known.epoch,
            stamp,
            draft.version,
            draft.version_epoch,
        )

    def _hear(self, channel: str, message: bytes) -> None:
        if self._audience is None:
            return
        try:
            if message.startswith(encoding.PUBLICATION):
                publication, epoch, stamp = encoding.decode_publication(message)
                if not self._tops.see(channel, publication.offset, epoch, stamp):
                    self._audience.on_resubscribed([channel])  # reading the log settles it
                self._audience.on_publication(channel, publication, epoch, self._clock.moment(stamp))
            elif message.startswith((encoding.JOIN, encoding.LEAVE)):
                self._audience.on_join_leave(channel, encoding.decode_push(channel, message))
            else:
                log.warning("an announcement of another version was dropped", channel=channel)
        except ValueError:
            log.warning("an announcement was not understood", channel=channel, exc_info=True)


@lru_cache(maxsize=128)  # as many as there are options, and asked with every publication
def _ms(seconds: float) -> int:
    """Milliseconds, as Redis takes them: at least one, and not beyond its clock."""
    return min(LONGEST_MS, max(1, math.ceil(seconds * 1000)))


def _range(query: HistoryQuery) -> tuple[Argument, ...]:
    """The arguments of the reading script that say which part of the stream."""
    since = query.since.offset if query.since else None
    if query.limit == 0 or (query.is_reverse and since == 0):
        return "", "", "", ""
    count = "" if query.limit < 0 else query.limit
    if query.is_reverse:  # exclusive ends are of Redis 6.2
        return "XREVRANGE", "+" if since is None else f"({since}-0", "-", count
    return "XRANGE", "-" if since is None else f"({since}-{ABOVE_STAMPS}", "+", count


def _publication(entry: Any) -> Publication:
    return encoding.decode_body(entry[1][1], _offset(entry))


def _offset(entry: Any) -> int:
    return int(entry[0].partition(b"-")[0])


def _stamp(entry: Any) -> int:
    return int(entry[0].partition(b"-")[2])
