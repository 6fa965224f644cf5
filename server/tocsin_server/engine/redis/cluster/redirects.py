"""Slot queues: hold commands that cannot be sent to the master of their slot yet, and keep their order.

Normally the router sends a command at once. There are three cases in which it is held in the queue of its
slot:

1. A server has redirected the command without carrying it out, because the slot is moving or has moved.
2. The command must not run before another one (`after`), which may be in another slot.
3. The slot has a queue already. Every new command of the slot then joins it, to keep the order.

    held --_send_or_fail()--> in flight --reply--> resolved
      ^---------- redirect ---------'

The queue of a slot is removed when no command is held or in flight. Redis' documentation of MOVED, ASK and
TRYAGAIN: Redis Cluster specification, "Redirection and resharding".
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from tocsin_server.eager_future import EagerFuture
from tocsin_server.engine.redis.cluster.slots import Host
from tocsin_server.engine.redis.interfaces import PendingReply
from tocsin_server.engine.redis.pipeline import EXPIRY_CHECK_SECONDS, MAX_QUEUED_BYTES, RedisCommand

REDIRECT_ERRORS = (MovedError, AskError, TryAgainError, ClusterDownError)
"""Error replies that say that a command was not carried out and can be sent again."""


class RoutedCommand(RedisCommand):
    """A command for the master of a slot.

    If it is redirected, it is passed to `redirect` instead of failing.
    """

    __slots__ = ("after", "ask_host", "is_held", "number", "redirect", "slot")

    def __init__(
        self,
        packed: bytes,
        seconds: float,
        slot: int,
        number: int,
        redirect: Callable[[RoutedCommand, Exception], None],
        after: PendingReply | None = None,
        reply: EagerFuture[Any] | None = None,
    ) -> None:
        super().__init__(packed, seconds, reply)
        self.slot = slot
        self.number = number
        """Its place in the order in which commands were made."""
        self.redirect = redirect
        self.after = after
        """The reply to a command that must be carried out first."""
        self.ask_host: Host | None = None
        """The server that imports the slot, if an ASK redirect named it: the command is sent there once."""
        self.is_held = False
        """Whether the command is in a slot queue, to be sent or to be sent again."""

    def __lt__(self, other: RoutedCommand) -> bool:
        return self.number < other.number

    def resolve(self, reply: Any) -> None:
        """Set the reply, or redirect the command if it was not carried out."""
        if isinstance(reply, REDIRECT_ERRORS) and not self.reply.done():
            self.redirect(self, reply)
        else:
            super().resolve(reply)

    @property
    def is_blocked(self) -> bool:
        """Whether the command that must be carried out first has no reply yet."""
        return self.after is not None and not self.after.done()

    @property
    def dependency_failed(self) -> bool:
        """Whether the command that must be carried out first has failed."""
        after = self.after
        return after is not None and after.done() and (after.cancelled() or after.exception() is not None)


class SlotQueue:
    """The commands of one slot that are held, and those in flight that they must not overtake.

    The mutable state: `hold` and `take_sendable` change `_held`; `track_in_flight`, `hold` and each reply
    change `_in_flight`. `needs_reread` belongs to SlotQueues.
    """

    def __init__(self) -> None:
        self._held: list[RoutedCommand] = []
        self._in_flight: set[RoutedCommand] = set()
        self._none_in_flight = asyncio.Event()
        self.needs_reread = False
        """Whether the topology must be read again before a command is sent again."""

    @property
    def is_empty(self) -> bool:
        """Whether no command is held or in flight."""
        return not self._held and not self._in_flight

    @property
    def has_in_flight(self) -> bool:
        """Whether a command that was sent is not answered or redirected yet."""
        return bool(self._in_flight)

    @property
    def blocked_on(self) -> PendingReply | None:
        """The reply that the first held command waits for, if it is blocked."""
        return self._held[0].after if self._held and self._held[0].is_blocked else None

    def hold(self, command: RoutedCommand) -> None:
        """Hold a command that must not be sent yet, or was redirected."""
        self._end_flight(command)
        command.is_held = True
        heapq.heappush(self._held, command)

    def track_in_flight(self, command: RoutedCommand) -> None:
        """Hold the other commands until this one, which was sent, is answered or redirected."""
        self._in_flight.add(command)
        command.reply.add_done_callback(lambda _: self._end_flight(command))

    def _end_flight(self, command: RoutedCommand) -> None:
        """The command is no longer in flight."""
        self._in_flight.discard(command)
        if not self._in_flight:
            self._none_in_flight.set()

    async def wait_until_none_in_flight(self) -> None:
        """Wait until every command that was sent is answered or redirected."""
        while self._in_flight:
            self._none_in_flight.clear()
            await self._none_in_flight.wait()

    def take_sendable(self, *, may_send: bool, now: float) -> Iterator[RoutedCommand]:
        """Remove and yield commands, in order, until one is blocked.

        Without `may_send`, only commands whose deadline has passed are yielded. The caller must fail these.
        """
        while self._held:
            command = self._held[0]
            if command.deadline > now and (not may_send or command.is_blocked):
                return
            heapq.heappop(self._held)
            command.is_held = False
            yield command


class SlotQueues:
    """The queue of each slot that has held commands.

    `send` sends a command. `wait_for_reread` waits until the topology has been read again.

    The mutable state is the queues and `queued_bytes`. `hold` and `track_in_flight` fill a queue, and one
    task for each queue (`_run_queue`) empties and removes it.
    """

    def __init__(
        self, send: Callable[[RoutedCommand], None], wait_for_reread: Callable[[], Awaitable[None]]
    ) -> None:
        self._send = send
        self._wait_for_reread = wait_for_reread
        self._queues: dict[int, SlotQueue] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self.queued_bytes = 0

    def __contains__(self, slot: int) -> bool:
        return slot in self._queues

    def open(self, tasks: asyncio.TaskGroup) -> None:
        """Accept commands from now on. Each queue is run by one of `tasks`."""
        self._tasks = tasks

    def close(self) -> None:
        """Fail all held commands, and every later one."""
        self._tasks = None
        for queue in self._queues.values():
            for command in queue.take_sendable(may_send=False, now=float("inf")):
                command.fail("the engine is not running")
        self._queues.clear()
        self.queued_bytes = 0

    def hold(self, command: RoutedCommand, *, needs_reread: bool = False) -> None:
        """Send a command later, after the commands of its slot that were made earlier."""
        if self.queued_bytes + len(command.packed) > MAX_QUEUED_BYTES:
            command.fail("too many commands are queued for Redis")
        elif queue := self._queue_for(command.slot):
            self.queued_bytes += len(command.packed)
            queue.needs_reread |= needs_reread
            queue.hold(command)
        else:
            command.fail("the engine is not running")

    def track_in_flight(self, commands: Iterable[RoutedCommand]) -> None:
        """Hold later commands of the same slots until these, which were sent, are answered or redirected.

        Commands that have been redirected by now are held themselves, so no command may wait for them.
        """
        for command in commands:
            is_in_flight = not (command.reply.done() or command.is_held)
            if is_in_flight and (queue := self._queue_for(command.slot)):
                queue.track_in_flight(command)

    def _queue_for(self, slot: int) -> SlotQueue | None:
        queue = self._queues.get(slot)
        if queue is None and self._tasks is not None:
            queue = self._queues[slot] = SlotQueue()
            self._tasks.create_task(self._run_queue(slot, queue))
        return queue

    async def _run_queue(self, slot: int, queue: SlotQueue) -> None:
        loop = asyncio.get_running_loop()
        while not queue.is_empty:
            await queue.wait_until_none_in_flight()
            may_send = await self._wait_until_sendable(queue)
            now = loop.time()
            for command in queue.take_sendable(may_send=may_send, now=now):
                self.queued_bytes -= len(command.packed)
                self._send_or_fail(queue, command, now)
        self._queues.pop(slot, None)

    async def _wait_until_sendable(self, queue: SlotQueue) -> bool:
        """Wait for the reply that blocks the first command, or for a new topology.

        Returns whether commands may be sent. The wait is limited, so that deadlines are checked meanwhile.
        """
        if (reply := queue.blocked_on) is not None:
            await asyncio.wait([reply], timeout=EXPIRY_CHECK_SECONDS)
        elif queue.needs_reread:
            queue.needs_reread = False  # a redirect during the wait sets it again
            try:
                async with asyncio.timeout(EXPIRY_CHECK_SECONDS):
                    await self._wait_for_reread()
            except TimeoutError:
                queue.needs_reread = True
        # A new topology may have added commands in flight: those that were sent to the old master.
        return not queue.needs_reread and not queue.has_in_flight

    def _send_or_fail(self, queue: SlotQueue, command: RoutedCommand, now: float) -> None:
        if command.deadline <= now:
            command.fail("Redis Cluster did not accept the command in time")
        elif command.dependency_failed:
            command.fail("a command that must be carried out first has failed")
        elif not command.reply.done():
            queue.track_in_flight(command)
            self._send(command)
