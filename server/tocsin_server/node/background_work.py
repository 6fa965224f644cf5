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
        """Work until it is ended. The node cancels it if it does not end within STOP_SECONDS."""

    def drain(self) -> None:
        """The node drains: release what other nodes may continue with. Idempotent."""

    def stop(self) -> None:
        """The node stops, and has written its last lifecycle events: end. Idempotent."""
