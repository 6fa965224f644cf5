"""An engine: broker, presence and nodes over one store, started and stopped together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tocsin_server.engine.broker import Broker, BrokerHandler
from tocsin_server.engine.nodes import ControlHandler, NodeRegistry
from tocsin_server.engine.presence import PresenceStore


class EngineHandler(BrokerHandler, ControlHandler, Protocol):
    """What a node is to its engine."""


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """What an engine says of itself to whoever watches it; as it stands, of one that cannot fail."""

    is_deaf: bool = False
    """Whether a link over which this node hears is dead, or has not been proven yet."""
    silence_seconds: float = 0.0
    """How long ago this node last heard itself: the age of its canary, the oldest if it has several."""
    waiting_bytes: int = 0
    """Calls that wait to be sent to the store."""
    links: int = 0
    """Links that were whole so far, the first included: more than there are, if some had to be replaced."""
    reaped_nodes: int = 0
    """Nodes that died, and after which this one has cleared away."""


class EngineServices(Protocol):
    """What of an engine is called."""

    @property
    def broker(self) -> Broker:
        """Logs and announcements."""

    @property
    def presence(self) -> PresenceStore:
        """Who is where."""

    @property
    def nodes(self) -> NodeRegistry:
        """The other nodes."""


class Engine(EngineServices, Protocol):
    """One per node. `start` before anything else, `stop` last: after it nothing is published or heard."""

    @property
    def unready_reason(self) -> str:
        """Why this node can at present not publish or hear, as a sentence; empty if it can."""

    @property
    def lag_seconds(self) -> float:
        """How long announcements are under way to this node, as last measured."""

    @property
    def vitals(self) -> EngineHealth:
        """What watches it may know, as of now."""

    @property
    def may_lose_announcements(self) -> bool:
        """Whether what is stored may go unheard, so that logs have to be looked at now and then."""

    async def start(self, resident: EngineHandler) -> None:
        """Reach the store; what is heard goes to `resident`. Raises EngineError if it cannot be reached."""

    async def stop(self) -> None:
        """Let go of the store. Idempotent."""
