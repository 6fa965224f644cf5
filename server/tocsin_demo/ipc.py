"""Messages between the supervisor and its node processes: one JSON value per line, over pipes.

    supervisor -> node's standard input:   NodeConfig, then every ClusterStatus; EOF: the supervisor ended
    node's standard output -> supervisor:  Listening, then every NodeReport and NodeCommand

The pipes are independent of Redis, so a node that has lost Redis still reports to the supervisor.
"""

from typing import Literal

import msgspec

from tocsin_demo.incidents import Incident
from tocsin_demo.settings import DemoConfig

LINE_LIMIT_BYTES = 2**24
"""A report lists every channel of a node, and visitors choose the names of channels."""

Condition = Literal["starting", "running", "draining", "ended"]
Action = Literal["kill", "drain", "deafen", "restore"]


class NodeConfig(msgspec.Struct, frozen=True):
    """What a node process needs to start."""

    name: str
    demo: DemoConfig
    log_level: str


class NodeReport(msgspec.Struct, frozen=True, tag=True):
    """The state of a node, as the node itself reports it.

    `unready_reason` is empty while the node is ready. `channels` maps each channel to the number of its
    subscribers on this node.
    """

    uid: str
    state: str
    unready_reason: str = ""
    num_clients: int = 0
    channels: dict[str, int] = {}
    memory_bytes: int = 0
    lag_seconds: float = 0


class NodeStatus(msgspec.Struct, frozen=True):
    """One node, as the supervisor sees it. Times are in milliseconds since 1970; 0 means none."""

    name: str
    condition: Condition
    pid: int
    address: str = ""
    """The node's own address; empty until the node listens."""
    started_at: float = 0
    report: NodeReport | None = None
    deaf_until: float = 0
    """Until then, the proxy drops everything that Redis publishes to this node."""
    lease_expires_by: float = 0
    """The process has ended, and its lease expires by then at the latest."""
    restarts_at: float = 0
    """The process has ended, and another one takes its name at this time."""

    @property
    def is_ready(self) -> bool:
        """Whether the node runs and reports that it can publish and receive."""
        return self.condition == "running" and self.report is not None and self.report.state == "ready"


class ClusterStatus(msgspec.Struct, frozen=True):
    """The status of every node, and the latest incidents."""

    nodes: tuple[NodeStatus, ...] = ()
    incidents: tuple[Incident, ...] = ()


class Listening(msgspec.Struct, frozen=True, tag=True):
    """The node listens, on the shared port and on an address of its own."""

    address: str


class NodeCommand(msgspec.Struct, frozen=True, tag=True):
    """A visitor's command: apply `action` to the node `name`."""

    action: Action
    name: str


def encode_line(message: msgspec.Struct) -> bytes:
    """Encode one message for a pipe."""
    return msgspec.json.encode(message) + b"\n"
