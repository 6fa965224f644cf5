"""What a supervisor and its nodes tell each other over the pipes between them, one JSON value to a line.

supervisor --Plan, then every Roster--> node's standard input     (its end: the supervisor is gone)
node --Ready, then every Report, each Wish of a visitor--> supervisor   (the node's standard output)

The pipes are not Redis, so that a node that is cut off from it is still heard of.
"""

from typing import Literal

import msgspec

from tocsin_demo.incidents import Incident
from tocsin_demo.settings import Ground

LONGEST_LINE = 2**24
"""Bytes. A report lists every channel of a node, whose names visitors choose."""

Condition = Literal["starting", "running", "draining", "ended"]
Deed = Literal["kill", "drain", "deafen", "heal"]


class Plan(msgspec.Struct, frozen=True):
    """What a node is to be."""

    name: str
    ground: Ground
    log_level: str


class Report(msgspec.Struct, frozen=True, tag=True):
    """What a node says of itself, as it would to everybody who asks for `info`.

    `trouble` is why it is not ready; `channels` has how many subscribers each channel has here.
    """

    uid: str
    state: str
    trouble: str = ""
    num_clients: int = 0
    channels: dict[str, int] = {}
    memory_bytes: int = 0
    lag_seconds: float = 0


class Member(msgspec.Struct, frozen=True):
    """One node, as its supervisor sees it. Times are in milliseconds since 1970, 0 if there is none."""

    name: str
    condition: Condition
    pid: int
    address: str = ""
    """Its own, empty until it is ready."""
    started_at: float = 0
    report: Report | None = None
    silent_until: float = 0
    """Its cable swallows what Redis announces until then."""
    lapses_by: float = 0
    """It is gone, but its lease stands still in Redis, until then at the latest."""
    returns_at: float = 0
    """It is gone, and another process has its name then."""

    @property
    def is_ready(self) -> bool:
        """It can publish and hear, as far as it knows."""
        return self.condition == "running" and self.report is not None and self.report.state == "ready"


class Roster(msgspec.Struct, frozen=True):
    """Every process there should be, and what happened to them."""

    members: tuple[Member, ...] = ()
    incidents: tuple[Incident, ...] = ()


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The node listens, on an address of its own too."""

    address: str


class Wish(msgspec.Struct, frozen=True, tag=True):
    """A visitor wants something done to a node."""

    deed: Deed
    name: str


def line_of(message: msgspec.Struct) -> bytes:
    """One message as it goes over a pipe."""
    return msgspec.json.encode(message) + b"\n"
