"""The memory engine: its broker, presence store and node registry."""

from __future__ import annotations

import asyncio
import string
import time
from collections.abc import Callable
from random import Random, SystemRandom

from tocsin_server.config.event_options import EventOptions
from tocsin_server.engine.engine import EngineHandler, EngineHealth
from tocsin_server.engine.memory.broker import MemoryBroker
from tocsin_server.engine.memory.deliveries import MemoryDeliveryStore
from tocsin_server.engine.memory.event_log import MemoryEventLog
from tocsin_server.engine.memory.forwarding import MemoryForwarding
from tocsin_server.engine.memory.nodes import MemoryNodeRegistry
from tocsin_server.engine.memory.presence import MemoryPresenceStore
from tocsin_server.engine.memory.revocations import MemoryRevocationStore
from tocsin_server.engine.memory.sweeper import CallLater
from tocsin_server.engine.memory.user_connections import MemoryUserConnections

EPOCH_LETTERS = 8
"""The length of Centrifugo's epochs (docs/protocol.md §10).

Two are equal with a probability of 1 in 10^13.
"""


class MemoryEngine:
    """Implements Engine for one node. After a restart of the process, every channel has another epoch.

    `clock` returns monotonic seconds. `call_later` schedules a call after some seconds. If it is None, the
    running event loop's `call_later` is used. `events` says how lifecycle events are kept.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        call_later: CallLater | None = None,
        random: Random | None = None,
        events: EventOptions | None = None,
    ) -> None:
        self._random = random or SystemRandom()
        self._call_later = call_later
        self._is_running = False
        self._broker = MemoryBroker(clock, self._make_epoch)
        self._presence = MemoryPresenceStore()
        self._users = MemoryUserConnections()
        self._nodes = MemoryNodeRegistry()
        self._revocations = MemoryRevocationStore()
        self._forwarding = MemoryForwarding()
        self._event_log = MemoryEventLog(events or EventOptions(), clock)
        self._deliveries = MemoryDeliveryStore(clock)

    @property
    def broker(self) -> MemoryBroker:
        """Stores history and carries publications."""
        return self._broker

    @property
    def presence(self) -> MemoryPresenceStore:
        """Knows which clients are in a channel."""
        return self._presence

    @property
    def nodes(self) -> MemoryNodeRegistry:
        """Knows this node only."""
        return self._nodes

    @property
    def users(self) -> MemoryUserConnections:
        """Counts the connections of users."""
        return self._users

    @property
    def revocations(self) -> MemoryRevocationStore:
        """Keeps revocations of tokens."""
        return self._revocations

    @property
    def deliveries(self) -> MemoryDeliveryStore:
        """Keeps dead letters, and what is known of failing deliveries."""
        return self._deliveries

    @property
    def forwarding(self) -> MemoryForwarding:
        """Forwards to this node only."""
        return self._forwarding

    @property
    def event_log(self) -> MemoryEventLog:
        """Keeps lifecycle events."""
        return self._event_log

    @property
    def publish_stream(self) -> None:
        """None: no other program can reach the memory of the process."""
        return None

    @property
    def unready_reason(self) -> str:
        """Empty while the engine runs: memory is always available."""
        return "" if self._is_running else "The engine is not running."

    @property
    def lag_seconds(self) -> float:
        """Always 0: the handler receives a message before the publish returns."""
        return 0.0

    @property
    def health(self) -> EngineHealth:
        """The defaults: there is no connection that could fail."""
        return EngineHealth()

    @property
    def may_lose_messages(self) -> bool:
        """Always false: storing and receiving are one step."""
        return False

    async def start(self, handler: EngineHandler) -> None:
        """Call `handler` from now on."""
        self._broker.start(handler, self._call_later or asyncio.get_running_loop().call_later)
        self._nodes.start(handler)
        self._revocations.start(handler)
        self._forwarding.start(handler)
        self._is_running = True

    async def stop(self) -> None:
        """Release the handler and the timer. Idempotent."""
        self._is_running = False
        self._nodes.stop()
        self._revocations.stop()
        self._forwarding.stop()
        self._broker.stop()

    def _make_epoch(self) -> str:
        return "".join(self._random.choices(string.ascii_letters, k=EPOCH_LETTERS))
