"""The broker of a node that stands alone: what is published is heard before the call returns."""

from __future__ import annotations

from collections.abc import Callable

from tocsin_server.config.options import ChannelOptions
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import (
    IDEMPOTENCY_SECONDS,
    NO_POSITION,
    BrokerHandler,
    HistoryQuery,
    NewPublication,
)
from tocsin_server.engine.memory.idempotency import Answers
from tocsin_server.engine.memory.logs import Logs
from tocsin_server.engine.memory.sweeper import CallLater, Sweep
from tocsin_server.errors import EngineError
from tocsin_server.protocol.messages import Position, Publication, Push


class MemoryBroker:
    """Nothing here waits, so every call is one step and the order of calls is the order of announcements."""

    def __init__(self, clock: Callable[[], float], make_epoch: Callable[[], str]) -> None:
        self._clock = clock
        self._logs = Logs(make_epoch)
        self._answers = Answers()
        self._sweep = Sweep((self._logs, self._answers), clock)
        self._listening: set[str] = set()
        self._audience: BrokerHandler | None = None

    def start(self, audience: BrokerHandler, call_later: CallLater) -> None:
        """Announce to `audience` from now on."""
        self._audience = audience
        self._sweep.start(call_later)

    def stop(self) -> None:
        """Publish nothing more. Idempotent."""
        self._audience = None
        self._sweep.stop()

    async def publish(self, channel: str, draft: NewPublication, options: ChannelOptions) -> Position:
        """Append and announce, as Broker says."""
        if self._audience is None:
            raise EngineError("the engine is not running")
        now = self._clock()
        if not draft.idempotency_key:
            return self._publish(channel, draft, options, now)
        answer = self._answers.find(channel, draft.idempotency_key, now)
        if answer is None:
            answer = self._publish(channel, draft, options, now)
            self._answers.remember(channel, draft.idempotency_key, answer, now)
            self._sweep.expect(now + IDEMPOTENCY_SECONDS)
        return answer

    async def publish_join_leave(self, channel: str, push: Push) -> None:
        """Announce a join or leave, as Broker says."""
        if self._audience is None:
            raise EngineError("the engine is not running")
        if channel in self._listening:
            self._audience.on_join_leave(channel, push)

    async def subscribe(self, channel: str) -> None:
        """Hear a channel. Idempotent."""
        self._listening.add(channel)

    async def unsubscribe(self, channel: str) -> None:
        """Hear a channel no more. Idempotent."""
        self._listening.discard(channel)

    async def read_history(self, channel: str, query: HistoryQuery, options: ChannelOptions) -> History:
        """Read a log, as Broker says."""
        now = self._clock()
        history = self._logs.read(channel, query, options, now)
        self._sweep.expect(now + options.history_meta_ttl)
        return history

    async def remove_history(self, channel: str) -> None:
        """Drop what a log keeps. Its top and epoch stay."""
        self._logs.remove_history(channel)

    def _publish(self, channel: str, draft: NewPublication, options: ChannelOptions, now: float) -> Position:
        if not options.keeps_history or draft.skip_history:
            self._tell(channel, Publication(draft.data, 0, draft.info, draft.tags), "", now)
            return NO_POSITION
        top, publication = self._logs.append(channel, draft, options, now)
        # ChannelOptions sees to it that history_meta_ttl is no shorter.
        self._sweep.expect(now + options.history_ttl)
        if publication:
            self._tell(channel, publication, top.epoch, now)
        return top

    def _tell(self, channel: str, publication: Publication, epoch: str, now: float) -> None:
        if self._audience and channel in self._listening:
            self._audience.on_publication(channel, publication, epoch, now)
