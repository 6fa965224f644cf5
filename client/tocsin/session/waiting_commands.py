"""The commands of a caller that are not in flight (pure).

A command waits for a connection. After error 111 (too many requests) it waits for another attempt, since the
server has not run it. ``take_unsent`` and ``take_delayed`` return it, or ``expire`` and ``fail_all`` fail it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from tocsin import backoff
from tocsin.errors import TimedOut, TocsinError

from .effects import CommandFinished
from .events import IssueCommand
from .turn import Turn


@dataclass(slots=True)
class WaitingCommand:
    """A command of the caller. ``give_up_at`` is when it fails unless it is sent, or sent again, before."""

    command: IssueCommand
    number: int
    give_up_at: float
    refusals: int = 0


class WaitingCommands:
    """The commands that wait.

    The mutable state is the two heaps: commands without a connection by the time of giving up, and delayed
    ones by the time of the next attempt. Only this class changes them. Each command waits ``timeout_seconds``
    for a connection, and as long for an answer other than 111.
    """

    def __init__(self, turn: Turn, random: Callable[[], float], timeout_seconds: float) -> None:
        self._turn = turn
        self._random = random
        self._timeout = timeout_seconds
        self._numbers = count()
        self._unsent: list[tuple[float, int, WaitingCommand]] = []
        self._delayed: list[tuple[float, int, WaitingCommand]] = []

    @property
    def deadline(self) -> float | None:
        """When the first command gives up, or is sent again."""
        return min((heap[0][0] for heap in (self._unsent, self._delayed) if heap), default=None)

    def new(self, command: IssueCommand) -> WaitingCommand:
        """Return a command of this turn, for ``add`` or for sending."""
        return WaitingCommand(command, next(self._numbers), self._turn.now + self._timeout)

    def add(self, waiting: WaitingCommand) -> None:
        """Keep a command until there is a connection."""
        heappush(self._unsent, (waiting.give_up_at, waiting.number, waiting))

    def delay(self, waiting: WaitingCommand) -> bool:
        """Keep a command that was refused with 111 for another attempt. False: there is no time for one."""
        now = self._turn.now
        if not waiting.refusals:
            waiting.give_up_at = now + self._timeout
        send_at = now + backoff.delay(waiting.refusals, self._random())
        waiting.refusals += 1
        if send_at >= waiting.give_up_at:
            return False
        heappush(self._delayed, (send_at, waiting.number, waiting))
        return True

    def take_unsent(self) -> list[WaitingCommand]:
        """Return the commands to send on a new connection, in the order in which they were issued."""
        unsent, self._unsent = self._unsent, []
        return sorted((waiting for *_, waiting in unsent), key=lambda waiting: waiting.number)

    def take_delayed(self) -> list[WaitingCommand]:
        """Return the commands whose next attempt is due."""
        due = []
        while self._delayed and self._delayed[0][0] <= self._turn.now:
            due.append(heappop(self._delayed)[-1])
        return due

    def expire(self) -> None:
        """Fail the commands that had no connection in time."""
        while self._unsent and self._unsent[0][0] <= self._turn.now:
            command = heappop(self._unsent)[-1].command
            error = TimedOut(f"not connected within {self._timeout:g} s to {command.method}")
            self._turn.emit(CommandFinished(command.key, None, error))

    def fail_all(self, error: TocsinError) -> None:
        """Fail every command: the session has ended."""
        waiting = sorted([*self._unsent, *self._delayed], key=lambda entry: entry[1])
        self._unsent, self._delayed = [], []
        for *_, one in waiting:
            self._turn.emit(CommandFinished(one.command.key, None, error))
