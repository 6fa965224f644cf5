"""The engine interface: the parts of an engine, all over one store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tocsin_server.engine.broker import Broker, BrokerHandler
from tocsin_server.engine.deliveries import DeliveryStore
from tocsin_server.engine.event_log import EventLog
from tocsin_server.engine.forwarding import Forwarding, ForwardingHandler
from tocsin_server.engine.nodes import ControlHandler, NodeRegistry
from tocsin_server.engine.presence import PresenceStore
from tocsin_server.engine.publish_stream import PublishStream
from tocsin_server.engine.revocations import RevocationHandler, RevocationStore
from tocsin_server.engine.user_connections import UserConnections


class EngineHandler(BrokerHandler, ControlHandler, RevocationHandler, ForwardingHandler, Protocol):
    """All callbacks of an engine, implemented by the node (node/engine_callbacks.py)."""


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """Figures about an engine, for metrics. The defaults are those of an engine that cannot fail."""

    is_deaf: bool = False
    """Whether a pub/sub connection is dead, or no probe has been received on it yet."""
    silence_seconds: float = 0.0
    """How long ago this node last received its own probe. With several shards, the longest time."""
    waiting_bytes: int = 0
    """Bytes of commands that are queued for the store."""
    links: int = 0
    """How often a pub/sub connection was established, the first time included."""
    reaped_nodes: int = 0
    """How many dead nodes this node has reaped."""
    forged_messages: int = 0
    """How many messages between nodes were dropped because no node had made them."""
    restored_channels: int = 0
    """How often the store had lost a channel's presence entries, and this node wrote its own again."""
    warnings: tuple[str, ...] = ()
    """Which settings or states of the store endanger a promise now, as sentences."""
    shared_time: float = 0.0
    """The store's own clock now, in Unix seconds. 0: it has none, or it is not known yet."""


class EngineServices(Protocol):
    """The parts of an engine."""

    @property
    def broker(self) -> Broker:
        """Stores history and carries publications."""

    @property
    def presence(self) -> PresenceStore:
        """Knows which clients are in a channel."""

    @property
    def nodes(self) -> NodeRegistry:
        """Knows which nodes are alive, and carries control commands and surveys."""

    @property
    def users(self) -> UserConnections:
        """Counts the connections of users."""

    @property
    def revocations(self) -> RevocationStore:
        """Keeps revocations of tokens, and hands them to every node."""

    @property
    def deliveries(self) -> DeliveryStore:
        """Keeps dead letters, and what is known of failing deliveries."""

    @property
    def forwarding(self) -> Forwarding:
        """Forwards commands of emulated connections to the nodes that have them."""


class Engine(EngineServices, Protocol):
    """The engine of one node.

    The node calls `start` before anything else and `stop` last. A stopped engine publishes and receives
    nothing.
    """

    @property
    def event_log(self) -> EventLog:
        """Keeps lifecycle events for their subscribers."""

    @property
    def publish_stream(self) -> PublishStream | None:
        """Entries that programs add to the store for a node to publish. None: there is no such store."""

    @property
    def unready_reason(self) -> str:
        """Why this node cannot publish or receive now, as a sentence. Empty if it can."""

    @property
    def lag_seconds(self) -> float:
        """How long a message travels from a publish to this node, as last measured."""

    @property
    def health(self) -> EngineHealth:
        """The current figures."""

    @property
    def may_lose_messages(self) -> bool:
        """Whether a stored publication may fail to reach a subscribed node.

        If so, the node must compare its positions with the tops of the histories from time to time.
        """

    async def start(self, handler: EngineHandler) -> None:
        """Connect to the store and call `handler` from now on. Raises EngineError if that fails."""

    async def stop(self) -> None:
        """Disconnect from the store. Idempotent."""
