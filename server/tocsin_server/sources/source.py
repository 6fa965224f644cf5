"""The source interface: what back ends have written, and a node reads, publishes and removes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from tocsin_server.sources.entry import SourceEntry


class SourceError(Exception):
    """A source cannot be used now. The message is the end of a sentence, without its full stop."""


class Failure(NamedTuple):
    """An entry that can never be published as it is, and why."""

    entry: SourceEntry
    reason: str


class Unpublished(NamedTuple):
    """What is not published yet."""

    waiting: int
    """The number of entries; a source may stop counting at a bound that its docs name."""
    lag_seconds: float
    """The age of the oldest entry. 0: there is none."""


class OpenSource(Protocol):
    """A source to which a node is connected. Every method raises SourceError.

    Only the node whose `claim` returned True reads. It may lose its claim at any time without being told:
    then another node publishes the same entries with the same idempotency keys.
    """

    async def claim(self) -> bool:
        """Become, or stay, the node that reads. Returns False if another node is."""

    async def release(self) -> None:
        """Let another node read. Idempotent."""

    async def read(self, held: Collection[str]) -> Sequence[SourceEntry]:
        """Return the oldest entries, in order, without those whose channels are `held`.

        Empty if there is none now. The result is bounded in entries and in bytes.
        """

    async def remove(self, published: Sequence[SourceEntry]) -> Sequence[SourceEntry]:
        """Remove entries that were published. Returns those that no node will read again."""

    async def fail(self, failures: Sequence[Failure]) -> int:
        """Put entries aside, with the reasons, for an operator. Returns how many were."""

    async def wait(self, seconds: float) -> None:
        """Return once there may be further entries, or after some seconds."""

    async def unpublished(self) -> Unpublished:
        """Return how much is not published yet."""


class Source(Protocol):
    """A source of one node."""

    name: str
    """`outbox` or `publish_stream`: its section, and its label in metrics and logs."""
    channels: tuple[str, ...]
    """Globs of the channels into which it may publish. Empty: every channel."""
    wait_seconds: float
    """How long to wait for further entries at most."""

    def opened(self) -> AbstractAsyncContextManager[OpenSource]:
        """Connect, and disconnect at the end of the context. Raises SourceError."""
