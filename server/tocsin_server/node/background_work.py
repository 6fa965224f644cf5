"""Work that a node does besides its connections, such as deliveries of lifecycle events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class BackgroundWork(Protocol):
    """Work of a node while it runs, in one task of the node."""

    @property
    def warnings(self) -> Sequence[str]:
        """What the operator should know now, as sentences."""

    async def run(self) -> None:
        """Work until `stop` is called. The node cancels it if it does not end within STOP_SECONDS."""

    def stop(self) -> None:
        """The node drains, or stops: begin nothing new, release what other nodes need. Idempotent."""
