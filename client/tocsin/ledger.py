"""What a session has said and not yet handed over, and which commands still wait for their replies (pure)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from . import protocol, values
from .effects import Effect, Send, Tell
from .errors import ConnectionLost, TimedOut, TocsinError
from .protocol import Reply, Request


@dataclass(slots=True)
class Pending:
    """A command under way: exactly one of the two is called, once."""

    method: str
    deadline: float
    answered: Callable[[Reply], None]
    failed: Callable[[TocsinError], None]


class Ledger:
    """One turn's effects and commands, and the table of pending commands. ``now`` is the time of the turn."""

    def __init__(self, timeout_seconds: float) -> None:
        self.now = 0.0
        self._timeout = timeout_seconds
        self._ids = count(1)
        self._effects: list[Effect] = []
        self._commands: list[protocol.Command] = []
        self._pending: dict[int, Pending] = {}

    @property
    def deadline(self) -> float | None:
        """When the first pending command times out. All wait equally long, so it is the oldest."""
        return next(iter(self._pending.values())).deadline if self._pending else None

    def emit(self, effect: Effect) -> None:
        """Ask the shell for something, after everything said so far."""
        self._flush()
        self._effects.append(effect)

    def tell(self, event: values.Event) -> None:
        """Tell the owner something."""
        self._effects.append(Tell(event))

    def ask(
        self,
        method: str,
        request: Request,
        answered: Callable[[Reply], None],
        failed: Callable[[TocsinError], None],
    ) -> int:
        """Send a command with this turn's others; returns its id."""
        command = protocol.command(next(self._ids), method, request)
        self._commands.append(command)
        number: int = command["id"]
        self._pending[number] = Pending(method, self.now + self._timeout, answered, failed)
        return number

    def settle(self, reply: Reply) -> None:
        """Match a reply to its command; one that is too late, or never asked for, is nobody's."""
        pending = self._pending.pop(reply.id, None)
        if pending is not None:
            pending.answered(reply)

    def expire(self) -> None:
        """Fail the commands whose time is up."""
        while self.deadline is not None and self.deadline <= self.now:
            pending = self._pending.pop(next(iter(self._pending)))
            pending.failed(TimedOut(f"no answer to {pending.method} within {self._timeout:g} seconds"))

    def lose(self) -> None:
        """Fail everything under way: the connection it went over is gone."""
        self._commands.clear()
        pending, self._pending = self._pending, {}
        for one in pending.values():
            one.failed(
                ConnectionLost(f"the connection broke during {one.method}: it may or may not have been done")
            )

    def take(self) -> list[Effect]:
        """Hand over this turn's effects."""
        self._flush()
        effects, self._effects = self._effects, []
        return effects

    def _flush(self) -> None:
        if self._commands:
            self._effects.extend(Send(text) for text in protocol.encode(self._commands))
            self._commands.clear()
