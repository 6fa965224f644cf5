"""Nodes: which are there, how one tells all of them something, and how one asks all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from tocsin_server.core.events import ServerDisconnect, ServerRefresh, ServerSubscribe, ServerUnsubscribe


class Drain(Struct, frozen=True, tag=True):
    """One node leaves on purpose, as with SIGTERM."""

    node: str
    """Its uid."""


class ControlCommand(Struct, frozen=True, omit_defaults=True):
    """What every node does to its own connections of one user; the API's disconnect, subscribe and so on."""

    user: str
    event: ServerSubscribe | ServerUnsubscribe | ServerDisconnect | ServerRefresh | Drain
    client: str = ""
    """Only this connection; empty: all of the user's."""
    exclude_clients: tuple[str, ...] = ()
    """Client ids that are left alone."""


class SurveyRequest(Struct, frozen=True, omit_defaults=True):
    """What every node is asked about itself and, if wanted, about its channels."""

    wants_channels: bool = False
    pattern: str = ""
    """A glob that the channels' names must match; empty: all of them."""


class NodeInfo(Struct, frozen=True):
    """What one node answers about itself.

    `uptime` is in seconds, `num_users` counts anonymous ones as one.
    """

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_channels: int
    num_subs: int
    uptime: int
    channels: dict[str, int] = {}
    """Subscribers on this node by channel, if the question wanted them."""
    address: str = ""
    """Where it can be reached: host and port."""
    state: str = ""
    """`ready`, `deaf`, `draining`; `silent` for one that did not answer; empty if a node does not say."""
    memory_bytes: int = 0
    lag_seconds: float = 0
    """How long announcements are under way to it."""


class Survey(NamedTuple):
    """What the nodes answered."""

    nodes: Sequence[NodeInfo]
    silent: Sequence[NodeInfo] = ()
    """Nodes that live and did not answer in time: who they are, as far as is known, without figures."""


class ControlHandler(Protocol):
    """Who carries out orders and answers questions: the node. Synchronous; never raises."""

    @property
    def uid(self) -> str:
        """What the node is told apart by, the same as in its reports."""

    def on_control(self, order: ControlCommand) -> None:
        """Do it to this node's own connections."""

    def node_info(self, question: SurveyRequest) -> NodeInfo:
        """Answer for this node alone."""


class NodeRegistry(Protocol):
    """One per node. Every method raises EngineError if nobody could be reached."""

    async def publish_control(self, order: ControlCommand) -> None:
        """Every node, this one included, obeys. Raises Unanswered if not all of them have said so in time."""

    async def survey(self, question: SurveyRequest) -> Survey:
        """Every living node answers, or is among the silent ones."""
