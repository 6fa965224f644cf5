"""The memory engine, whole."""

from __future__ import annotations

import asyncio
import string
import time
from collections.abc import Callable
from random import Random, SystemRandom

from tocsin_server.engine.engine import EngineHandler, EngineHealth
from tocsin_server.engine.memory.broker import MemoryBroker
from tocsin_server.engine.memory.nodes import MemoryNodeRegistry
from tocsin_server.engine.memory.presence import MemoryPresenceStore
from tocsin_server.engine.memory.sweeper import CallLater

EPOCH_LETTERS = 8
"""As many as Centrifugo takes (protocol §10): two logs share an epoch by chance once in 10^13."""


class MemoryEngine:
    """For one node. Nothing survives the process: after a restart every channel has another epoch.

    `clock` is monotonic, in seconds. `call_later` calls back after seconds; without one, the running event
    loop's is used.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        call_later: CallLater | None = None,
        random: Random | None = None,
    ) -> None:
        self._random = random or SystemRandom()
        self._call_later = call_later
        self._is_running = False
        self._broker = MemoryBroker(clock, self._make_epoch)
        self._presence = MemoryPresenceStore()
        self._nodes = MemoryNodeRegistry()

    @property
    def broker(self) -> MemoryBroker:
        """Logs and announcements."""
        return self._broker

    @property
    def presence(self) -> MemoryPresenceStore:
        """Who is where."""
        return self._presence

    @property
    def nodes(self) -> MemoryNodeRegistry:
        """This node."""
        return self._nodes

    @property
    def unready_reason(self) -> str:
        """Empty while the engine runs: memory is always there."""
        return "" if self._is_running else "The engine is not running."

    @property
    def lag_seconds(self) -> float:
        """Nothing: what is published is heard before the call returns."""
        return 0.0

    @property
    def vitals(self) -> EngineHealth:
        """Nothing to report: nothing is between this node and its store."""
        return EngineHealth()

    @property
    def may_lose_announcements(self) -> bool:
        """Never: publishing and hearing are one step."""
        return False

    async def start(self, resident: EngineHandler) -> None:
        """Let `resident` hear, obey and report."""
        self._broker.start(resident, self._call_later or asyncio.get_running_loop().call_later)
        self._nodes.start(resident)
        self._is_running = True

    async def stop(self) -> None:
        """Let go of the resident and of the timer. Idempotent."""
        self._is_running = False
        self._nodes.stop()
        self._broker.stop()

    def _make_epoch(self) -> str:
        return "".join(self._random.choices(string.ascii_letters, k=EPOCH_LETTERS))
