"""The publish stream interface: entries that programs add to the engine's store, for a node to publish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class StreamEntry(NamedTuple):
    """An entry as it was added."""

    id: str
    """Ids rise in the order in which entries were added."""
    size: int
    """The bytes of all names and values."""
    fields: dict[str, bytes] | None
    """None if the entry has more bytes than the reader takes."""
    has_repeated_field: bool = False


class PublishStream(Protocol):
    """The publish stream as one node uses it. Every method raises EngineError."""

    async def claim(self) -> bool:
        """Become, or stay, the node that reads. A claim ends after a few seconds unless it is renewed.

        Returns False if another node has it.
        """

    async def release(self) -> None:
        """Release the claim, if this node has it. Idempotent."""

    async def read(
        self, after: str, limit: int, limit_bytes: int, entry_limit_bytes: int
    ) -> Sequence[StreamEntry]:
        """Read the oldest entries, or those after the id `after`.

        At most `limit` entries, and about `limit_bytes`, but at least one if there is one. Entries with more
        than `entry_limit_bytes` are named only.
        """

    async def remove(self, ids: Sequence[str]) -> None:
        """Remove entries. Idempotent."""

    async def fail(self, entry_id: str, reason: str, limit: int, entry_limit_bytes: int) -> None:
        """Move an entry to the failures, of which the newest `limit` are kept. Idempotent.

        Of an entry with more than `entry_limit_bytes` only the id is kept.
        """

    async def wait(self, after: str, seconds: float) -> None:
        """Return once there are entries after the id `after` (empty: any entries), or after some seconds."""

    async def unpublished(self) -> tuple[int, float]:
        """Return the number of entries, and the age of the oldest one in seconds."""

    async def close(self) -> None:
        """Release the claim and what `wait` needs. Raises nothing. Idempotent."""
