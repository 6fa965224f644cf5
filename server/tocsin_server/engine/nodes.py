"""The node registry interface: which nodes are alive, and control commands and surveys to all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from tocsin_server.core.events import ServerDisconnect, ServerRefresh, ServerSubscribe, ServerUnsubscribe

RESPONSE_SECONDS = 2.0
"""How long a node may take to respond to a control command or a survey."""


class Drain(Struct, frozen=True, tag=True):
    """The control event that drains one node, as SIGTERM does."""

    node: str
    """The node's uid."""


class ControlCommand(Struct, frozen=True, omit_defaults=True):
    """An event that every node applies to its own connections of one user, such as a disconnect."""

    user: str
    event: ServerSubscribe | ServerUnsubscribe | ServerDisconnect | ServerRefresh | Drain
    client: str = ""
    """Only the connection with this client id. Empty: all connections of the user."""
    identified_before: tuple[float, str] | None = None
    """Only connections identified before this unix second, or at it with a smaller client id."""
    exclude_clients: tuple[str, ...] = ()
    """Client ids that the command does not apply to."""


class SurveyRequest(Struct, frozen=True, omit_defaults=True):
    """What a survey asks every node for: its figures and, if wanted, its channels."""

    wants_channels: bool = False
    pattern: str = ""
    """A glob that the channels' names must match. Empty: all channels."""


class NodeInfo(Struct, frozen=True):
    """One node's answer to a survey.

    `uptime` is in seconds. `num_users` counts all anonymous users as one.
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
    """The number of subscribers on this node by channel, if the request wanted channels."""
    address: str = ""
    """The host and port at which the node is reached."""
    state: str = ""
    """`ready`, `deaf`, `draining`, or `silent` for a node without an answer.

    Empty if the node does not say.
    """
    memory_bytes: int = 0
    lag_seconds: float = 0
    """How long a message travels from a publish to this node."""
    warnings: tuple[str, ...] = ()
    """Which settings or states of the store endanger a promise, as sentences."""


class Survey(NamedTuple):
    """The result of a survey."""

    nodes: Sequence[NodeInfo]
    silent: Sequence[NodeInfo] = ()
    """Live nodes that did not answer in time: name, version and address if known, and no figures."""


class ControlHandler(Protocol):
    """The callbacks of a node registry, implemented by the node. They never raise."""

    @property
    def uid(self) -> str:
        """The node's unique id, the same as in its NodeInfo."""

    def on_control(self, command: ControlCommand) -> Collection[asyncio.Future[None]]:
        """Apply a control command to this node's own connections.

        Returns what must be done before the command counts as applied.
        """

    async def node_info(self, request: SurveyRequest) -> NodeInfo:
        """Answer a survey for this node. Waits only for other code to run."""


class NodeRegistry(Protocol):
    """The node registry of one node. Every method raises EngineError if no other node could be reached."""

    async def publish_control(self, command: ControlCommand) -> None:
        """Send a control command to every node, this one included.

        Raises Unanswered if a live node does not confirm it in time.
        """

    async def survey(self, request: SurveyRequest) -> Survey:
        """Ask every live node, this one included."""
