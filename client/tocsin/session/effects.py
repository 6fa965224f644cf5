"""The effects of a session: requests to its driver, as values (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tocsin.errors import TocsinError
from tocsin.models import Event


@dataclass(frozen=True, slots=True)
class OpenTransport:
    """Open a transport. One of ``TransportOpened``, ``TransportLost``, ``TransportRefused`` must follow."""


@dataclass(frozen=True, slots=True)
class CloseTransport:
    """Close the transport. It must report no further event."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Send:
    """Send one message on the transport."""

    text: str


@dataclass(frozen=True, slots=True)
class FetchToken:
    """Call the token provider. ``TokenReceived`` or ``TokenFailed`` must follow.

    ``channel`` is None for the connection's token.
    """

    channel: str | None


@dataclass(frozen=True, slots=True)
class Notify:
    """Hand an event to the caller."""

    event: Event


@dataclass(frozen=True, slots=True)
class CommandFinished:
    """The outcome of an ``IssueCommand``: a result of the protocol, or the error to raise."""

    key: int
    result: Any
    error: TocsinError | None


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The session is over: with an error, or because the caller stopped it (None)."""

    error: TocsinError | None


Effect = OpenTransport | CloseTransport | Send | FetchToken | Notify | CommandFinished | SessionEnded
