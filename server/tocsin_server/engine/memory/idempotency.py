"""Answers: what the first publish with an idempotency key was answered, for as long as it counts."""

from __future__ import annotations

from tocsin_server.engine.broker import IDEMPOTENCY_SECONDS
from tocsin_server.engine.memory.expiry import Deadlines
from tocsin_server.protocol.messages import Position


class Answers:
    """By channel and key, whether the channel has a log or not. An answer is never put off or replaced."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], tuple[Position, float]] = {}
        self._lives = Deadlines[tuple[str, str]]()

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def deadline(self) -> float:
        """When there will be something to free; infinite if never."""
        return self._lives.next

    def find(self, channel: str, key: str, now: float) -> Position | None:
        """The answer that a key was given less than IDEMPOTENCY_SECONDS ago."""
        position, lapses = self._answers.get((channel, key), (None, now))
        return position if now < lapses else None

    def remember(self, channel: str, key: str, answer: Position, now: float) -> None:
        """Keep the answer to a key for which none was found."""
        self._answers[channel, key] = (answer, now + IDEMPOTENCY_SECONDS)
        self._lives.put((channel, key), IDEMPOTENCY_SECONDS, now)

    def free(self, now: float) -> bool:
        """Free one lapsed answer; False if there is none."""
        lapsed = self._lives.take(now)
        if lapsed is not None:
            del self._answers[lapsed]
        return lapsed is not None
