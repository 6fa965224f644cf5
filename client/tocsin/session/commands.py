"""The commands of a session that are in flight: sent, and not answered yet (pure)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from tocsin.errors import ConnectionLost, TimedOut, TocsinError
from tocsin.protocol.codec import build_command
from tocsin.protocol.messages import Reply, Request

from .turn import Turn


@dataclass(slots=True)
class PendingCommand:
    """A command in flight. Exactly one of the two callbacks is called, once."""

    method: str
    deadline: float
    on_reply: Callable[[Reply], None]
    on_failure: Callable[[TocsinError], None]


class PendingCommands:
    """The table of commands in flight, by id.

    The mutable state is this table and the counter of ids. Each command gets an entry in ``send`` and loses
    it in ``handle_reply``, ``expire`` or ``fail_all``. Every command may take ``timeout_seconds``.
    """

    def __init__(self, turn: Turn, timeout_seconds: float) -> None:
        self._turn = turn
        self._timeout = timeout_seconds
        self._ids = count(1)
        self._pending: dict[int, PendingCommand] = {}

    @property
    def deadline(self) -> float | None:
        """When the first command times out: the oldest one, since all have the same timeout."""
        return next(iter(self._pending.values())).deadline if self._pending else None

    def send(
        self,
        method: str,
        request: Request,
        on_reply: Callable[[Reply], None],
        on_failure: Callable[[TocsinError], None],
    ) -> int:
        """Send a command in this turn, and return its id."""
        command = build_command(next(self._ids), method, request)
        self._turn.add_command(command)
        number: int = command["id"]
        self._pending[number] = PendingCommand(method, self._turn.now + self._timeout, on_reply, on_failure)
        return number

    def handle_reply(self, reply: Reply) -> None:
        """Match a reply to its command. A reply without a command in flight is ignored."""
        pending = self._pending.pop(reply.id, None)
        if pending is not None:
            pending.on_reply(reply)

    def expire(self) -> None:
        """Fail the commands whose deadline has passed."""
        while self.deadline is not None and self.deadline <= self._turn.now:
            pending = self._pending.pop(next(iter(self._pending)))
            pending.on_failure(TimedOut(f"no reply to {pending.method} within {self._timeout:g} seconds"))

    def fail_all(self) -> None:
        """Fail every command in flight: its connection is gone."""
        self._turn.drop_commands()
        pending, self._pending = self._pending, {}
        for one in pending.values():
            one.on_failure(
                ConnectionLost(f"the connection broke during {one.method}: it may or may not have been done")
            )
