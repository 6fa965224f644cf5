"""The events of a session: from its transport, caller, token providers and clock (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from tocsin.errors import TocsinError
from tocsin.protocol.messages import Request

from .subscription_state import SubscriptionState


@dataclass(frozen=True, slots=True)
class Start:
    """The caller starts the client."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The caller closes the client."""


@dataclass(frozen=True, slots=True)
class TransportOpened:
    """The transport is open."""


@dataclass(frozen=True, slots=True)
class TransportLost:
    """The transport is closed, or could not be opened (code 0). Never follows a ``CloseTransport``.

    ``retry_after_seconds`` is the ``Retry-After`` of a server that refused it for now, at most 300.
    """

    code: int
    reason: str
    retry_after_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TransportRefused:
    """The transport can never be opened at this address; another attempt is useless."""

    error: TocsinError


@dataclass(frozen=True, slots=True)
class Received:
    """The transport received one message, or a part of one that holds whole objects."""

    frame: str


@dataclass(frozen=True, slots=True)
class Timeout:
    """The session's deadline has passed."""


@dataclass(frozen=True, slots=True)
class TokenReceived:
    """A provider returned a token. ``channel`` is None for the connection's token."""

    channel: str | None
    token: str


@dataclass(frozen=True, slots=True)
class TokenFailed:
    """A provider raised. ``is_final``: it raised ``Unauthorized``, so there will be no token."""

    channel: str | None
    reason: str
    is_final: bool


@dataclass(frozen=True, slots=True)
class Subscribe:
    """The caller subscribes to a channel. The channel must not have a subscription yet."""

    subscription: SubscriptionState


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """The caller unsubscribes from a channel."""

    channel: str


@dataclass(frozen=True, slots=True)
class Pause:
    """The inbox of the channel's reader is full."""

    channel: str


@dataclass(frozen=True, slots=True)
class Resume:
    """The channel's reader has caught up."""

    channel: str


@dataclass(frozen=True, slots=True)
class Reconnect:
    """The caller needs another connection, which recovers from the current positions."""

    reason: str


@dataclass(frozen=True, slots=True)
class IssueCommand:
    """The caller sends a command. ``CommandFinished`` answers it with the same key."""

    key: int
    method: str
    request: Request


SessionEvent = (
    Start
    | Stop
    | TransportOpened
    | TransportLost
    | TransportRefused
    | Received
    | Timeout
    | TokenReceived
    | TokenFailed
    | Subscribe
    | Unsubscribe
    | Pause
    | Resume
    | Reconnect
    | IssueCommand
)
