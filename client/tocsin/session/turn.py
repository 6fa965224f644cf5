"""The effects and commands that a session produces while it handles one event (pure)."""

from __future__ import annotations

from tocsin.models import Event
from tocsin.protocol.codec import encode_frames
from tocsin.protocol.messages import Command

from .effects import Effect, Notify, Send


class Turn:
    """The output of one call of ``Session.handle``, in order. ``now`` is the time of the call.

    The mutable state is ``now``, the effects and the commands of the current turn; ``take`` clears both.
    Commands that follow each other are joined into as few messages as possible.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._effects: list[Effect] = []
        self._commands: list[Command] = []

    def emit(self, effect: Effect) -> None:
        """Add an effect. Commands added before it are sent first."""
        self._flush()
        self._effects.append(effect)

    def notify(self, event: Event) -> None:
        """Add an event for the caller."""
        self._effects.append(Notify(event))

    def add_command(self, command: Command) -> None:
        """Add a command, which is sent together with the neighbouring commands."""
        self._commands.append(command)

    def drop_commands(self) -> None:
        """Drop the commands of this turn: their connection is gone."""
        self._commands.clear()

    def take(self) -> list[Effect]:
        """Return the effects of this turn, and begin the next turn without any."""
        self._flush()
        effects, self._effects = self._effects, []
        return effects

    def _flush(self) -> None:
        if self._commands:
            self._effects.extend(Send(text) for text in encode_frames(self._commands))
            self._commands.clear()
