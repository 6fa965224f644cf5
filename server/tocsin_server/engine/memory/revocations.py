"""The memory engine's revocation store. Its revocations end with the process.

The mutable state is the kept revocations and the handler.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tocsin_server.core.revocations import Revocation, Revocations
from tocsin_server.engine.revocations import RevocationHandler
from tocsin_server.errors import EngineError


class MemoryRevocationStore:
    """Implements RevocationStore for the only node. `unix_clock` returns unix seconds."""

    def __init__(self, unix_clock: Callable[[], float] = time.time) -> None:
        self._unix_clock = unix_clock
        self._kept = Revocations()
        self._handler: RevocationHandler | None = None

    def start(self, handler: RevocationHandler) -> None:
        """Hand what is kept to `handler`, and what is added from now on."""
        self._handler = handler
        self._kept.prune(self._unix_clock())
        if kept := self._kept.all():
            handler.on_revocations(kept)

    def stop(self) -> None:
        """Release the handler. Idempotent."""
        self._handler = None

    async def add(self, revocation: Revocation) -> None:
        """Keep a revocation, as RevocationStore describes."""
        if self._handler is None:
            raise EngineError("the engine is not running")
        self._kept.add(revocation, self._unix_clock())
        self._handler.on_revocations([revocation])
