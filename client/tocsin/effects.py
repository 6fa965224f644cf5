"""What a session hears (events) and what it asks its shell to do (effects)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import values
from .channel import Channel
from .errors import TocsinError
from .protocol import Request


@dataclass(frozen=True, slots=True)
class Start:
    """The owner wants to be connected."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The transport is open."""


@dataclass(frozen=True, slots=True)
class Received:
    """One message came in."""

    frame: str | bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """The transport is closed, or could not be opened (code 0). Not told after a ``Hangup``."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The transport will never open here, whatever is tried again."""

    error: TocsinError


@dataclass(frozen=True, slots=True)
class TokenFound:
    """A provider answered; ``channel`` is None for the connection's token."""

    channel: str | None
    token: str


@dataclass(frozen=True, slots=True)
class TokenFailed:
    """A provider raised; ``is_final`` when it said that there will be no token."""

    channel: str | None
    reason: str
    is_final: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """The deadline has come."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """The owner wants a channel; it must not have it already."""

    channel: Channel


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """The owner no longer wants a channel."""

    channel: str


@dataclass(frozen=True, slots=True)
class Pause:
    """The channel's reader is too far behind."""

    channel: str


@dataclass(frozen=True, slots=True)
class Resume:
    """The channel's reader has caught up."""

    channel: str


@dataclass(frozen=True, slots=True)
class Reconnect:
    """The owner wants another connection, from the positions known now."""

    reason: str


@dataclass(frozen=True, slots=True)
class Call:
    """The owner calls; the answer carries the same key."""

    key: int
    method: str
    request: Request


@dataclass(frozen=True, slots=True)
class Stop:
    """The owner is done."""


@dataclass(frozen=True, slots=True)
class Open:
    """Open a transport; exactly one of ``Opened``, ``Lost``, ``Refused`` must follow."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send one message."""

    text: str


@dataclass(frozen=True, slots=True)
class Hangup:
    """Close the transport; nothing more is heard from it."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class AskToken:
    """Ask the provider; ``TokenFound`` or ``TokenFailed`` must follow."""

    channel: str | None


@dataclass(frozen=True, slots=True)
class Tell:
    """Something the owner wants to know."""

    event: values.Event


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a ``Call``: a protocol result, or the error to raise."""

    key: int
    result: Any
    error: TocsinError | None


@dataclass(frozen=True, slots=True)
class End:
    """The session is over: with an error, or because the owner stopped it (None)."""

    error: TocsinError | None


Event = (
    Start
    | Opened
    | Received
    | Lost
    | Refused
    | TokenFound
    | TokenFailed
    | Tick
    | Subscribe
    | Unsubscribe
    | Pause
    | Resume
    | Reconnect
    | Call
    | Stop
)
Effect = Open | Send | Hangup | AskToken | Tell | Answer | End
