"""Publishing the entries of a source: each channel in order, and the channels beside each other.

    ready --begin--> waiting for the engine --end--> ready, while the channel has entries left

No channel has a task. Its next publication begins in the call that ends the one before, if calls of this kind
have time left in this turn of the event loop. Otherwise the channel is ready, and `Batch.run` continues it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from tocsin_server.core.glob import Glob
from tocsin_server.eager_future import EagerFuture
from tocsin_server.errors import EngineError, Refused
from tocsin_server.loop_turns import LoopTurns
from tocsin_server.node.operations import Operations
from tocsin_server.node.sampled_log import SampledLog
from tocsin_server.protocol.messages import Position
from tocsin_server.sources.entry import InvalidEntry, SourceEntry, new_publication
from tocsin_server.sources.source import Failure, Source

PUBLISH_SECONDS = 10.0
"""How long one publication may take, with the wait for room in its channel's queue."""

BATCH_SECONDS = 60.0
"""How long after it was read the entries of a batch are published. Another node may have the claim by then.

If that one has published and removed them, the engine knows their keys for IDEMPOTENCY_SECONDS longer.
"""

CHECK_SECONDS = 1.0
"""How often publications that take too long are looked for. A timer for each costs more than its publish."""

DEFECT = "an internal error; see the log"

if TYPE_CHECKING:
    Begun = Position | EagerFuture[Position] | Coroutine[Any, Any, Position]
    """A publication that has ended, or what to wait for."""

    Pending = EagerFuture[Position] | asyncio.Task[Position]


class Deadline:
    """When a batch ends: some seconds from now, by the first of two clocks.

    One of them stands still while the machine is suspended, and the other one may be set back.
    """

    def __init__(
        self, seconds: float, clocks: Sequence[Callable[[], float]] = (time.monotonic, time.time)
    ) -> None:
        self._ends = [(clock, clock() + seconds) for clock in clocks]

    @property
    def seconds_left(self) -> float:
        """How long the batch may go on. 0 or less: it ends."""
        return min([end - clock() for clock, end in self._ends])


class Outcome:
    """What became of a batch of entries."""

    def __init__(self) -> None:
        self.published: list[SourceEntry] = []
        self.failures: list[Failure] = []
        self.held: set[str] = set()
        """Channels in which an entry could not be published now. What follows it there was not tried."""


class EntryPublisher:
    """Publishes batches of entries of one source.

    A channel's next entry is published once the one before it is: only so the order survives a publication
    that fails and is repeated.
    """

    def __init__(self, source: Source, operations: Operations, sampled_log: SampledLog) -> None:
        self._name = source.name
        self._globs = [Glob(glob) for glob in source.channels]
        self._operations = operations
        self._turns = LoopTurns()
        self._sampled_log = sampled_log

    async def publish(self, entries: Sequence[SourceEntry], deadline: Deadline) -> Outcome:
        """Publish a batch. Raises nothing: each entry is published, failed, or left for another time.

        No publication begins after the deadline.
        """
        outcome = Outcome()
        await Batch(entries, deadline, self._turns, self._begin, partial(self._settle, outcome)).run()
        order = {entry.id: number for number, entry in enumerate(entries)}
        outcome.failures.sort(key=lambda failure: order[failure.entry.id])
        return outcome

    def _begin(self, entry: SourceEntry) -> Begun:
        publication = new_publication(entry)
        if self._globs and not any(glob.matches(entry.channel) for glob in self._globs):
            raise InvalidEntry(f"its channel is not one of {self._name}.channels")
        return self._operations.begin_publish(entry.channel, publication)

    def _settle(self, outcome: Outcome, entry: SourceEntry, error: BaseException | None) -> bool:
        """Note how a publication ended. Returns whether the next one of its channel may begin."""
        match error:
            case None:
                outcome.published.append(entry)
            case Refused() if error.refusal.temporary:
                self._hold(entry, str(error), outcome)
                return False
            case InvalidEntry() | Refused():
                outcome.failures.append(Failure(entry, str(error)))
            case EngineError() | TimeoutError():
                self._hold(entry, str(error) or "no answer in time", outcome)
                return False
            case _:  # logged as an error; the entry is kept with this reason
                self._sampled_log.write(
                    "source_entry_raised", level="error", exc_info=error, source=self._name, entry=entry.id
                )
                outcome.failures.append(Failure(entry, DEFECT))
        return True

    def _hold(self, entry: SourceEntry, error: str, outcome: Outcome) -> None:
        outcome.held.add(entry.channel)
        self._sampled_log.write(
            "source_channel_held",
            level="warning",
            source=self._name,
            entry=entry.id,
            channel=entry.channel,
            error=error,
        )


class _Channel:
    """The entries of one channel that are left, and the publication that is waited for."""

    __slots__ = ("entries", "pending", "until")

    def __init__(self) -> None:
        self.entries: deque[SourceEntry] = deque()
        self.pending: Pending | None = None
        self.until = 0.0
        """Until when it is waited for, in the event loop's time."""


class Batch:
    """The entries of one read while they are published. Each channel goes on by itself.

    `begin` begins the publication of an entry. `settle` is told how one ended, with its exception if it has
    one, and says whether the channel goes on.

    The mutable state is the channels that are ready and those that wait, and the future that wakes `run`.
    """

    def __init__(
        self,
        entries: Sequence[SourceEntry],
        deadline: Deadline,
        turns: LoopTurns,
        begin: Callable[[SourceEntry], Begun],
        settle: Callable[[SourceEntry, BaseException | None], bool],
    ) -> None:
        self._deadline = deadline
        self._turns = turns
        self._begin = begin
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        channels: dict[str, _Channel] = {}
        for entry in entries:
            channels.setdefault(entry.channel, _Channel()).entries.append(entry)
        self._ready = deque(channels.values())
        self._waiting: set[_Channel] = set()
        self._woken: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Return when no channel goes on. If the caller is cancelled, no further publication begins."""
        try:
            while self._ready or self._waiting:
                if not self._ready:
                    await self._wait()
                elif not self._turns.take():
                    await self._turns.wait()
                if self._ready:
                    self._proceed(self._ready.popleft())
        finally:
            self._ready.clear()
            waiting, self._waiting = self._waiting, set()
            for channel in waiting:
                if channel.pending is not None:
                    channel.pending.cancel()

    def _proceed(self, channel: _Channel) -> None:
        """Begin the next publication of a channel, unless the batch has ended."""
        seconds = min(PUBLISH_SECONDS, self._deadline.seconds_left)
        if seconds <= 0:
            return
        entry = channel.entries.popleft()
        try:
            begun = self._begin(entry)
        except Exception as error:  # noqa: BLE001 - `settle` logs what it does not know
            self._end(channel, entry, error)
            return
        if isinstance(begun, Position):
            self._end(channel, entry, None)
            return
        channel.pending = begun if isinstance(begun, EagerFuture) else self._loop.create_task(begun)
        channel.until = self._loop.time() + seconds
        self._waiting.add(channel)
        channel.pending.add_done_callback(partial(self._on_end, channel, entry))

    def _on_end(self, channel: _Channel, entry: SourceEntry, pending: Pending) -> None:
        """A publication that was waited for has ended."""
        error = TimeoutError() if pending.cancelled() else pending.exception()
        channel.pending = None
        if channel not in self._waiting:  # the batch was cancelled
            return
        self._waiting.remove(channel)
        self._end(channel, entry, error)
        if self._ready and self._ready[-1] is channel and self._turns.take():
            self._proceed(self._ready.pop())
        if self._woken is not None and not self._woken.done() and (self._ready or not self._waiting):
            self._woken.set_result(None)

    def _end(self, channel: _Channel, entry: SourceEntry, error: BaseException | None) -> None:
        if self._settle(entry, error) and channel.entries:
            self._ready.append(channel)

    async def _wait(self) -> None:
        """Wait until a channel is ready or none waits, and cancel publications that take too long."""
        self._woken = self._loop.create_future()
        with suppress(TimeoutError):
            async with asyncio.timeout(CHECK_SECONDS):
                await self._woken
        now = self._loop.time()
        for channel in [one for one in self._waiting if one.until <= now]:
            if channel.pending is not None:
                channel.pending.cancel()
