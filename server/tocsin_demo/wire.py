"""What a supervisor and its nodes tell each other over the pipes between them, one JSON value to a line.

supervisor --Plan, then every Roster--> node's standard input     (its end: the supervisor is gone)
node --Ready, then each Wish of a visitor--> supervisor           (the node's standard output)
"""

from typing import Literal

import msgspec

from tocsin_demo.settings import Ground

Condition = Literal["starting", "running", "draining", "ended"]
Deed = Literal["kill", "drain"]


class Plan(msgspec.Struct, frozen=True):
    """What a node is to be."""

    name: str
    ground: Ground
    log_level: str


class Member(msgspec.Struct, frozen=True):
    """One process, as its supervisor sees it. `address` is the node's own, empty until it is ready."""

    name: str
    condition: Condition
    pid: int
    address: str = ""


class Roster(msgspec.Struct, frozen=True):
    """Every process there should be."""

    members: tuple[Member, ...] = ()


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
