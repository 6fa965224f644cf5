"""The phases of a session, and every transition between them, in one table.

Only `Session` moves between phases, through `next_phase`. docs/protocol.md shows the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Phase(Enum):
    """Where in its life a session is."""

    NEW = "new"
    """Nothing was received yet. Any command but connect closes the connection."""
    AUTHORIZING = "authorizing"
    """The connect command waits for an answer from outside the session."""
    CONNECTING = "connecting"
    """The connection is authorized; its server-side subscriptions are being set up."""
    CONNECTED = "connected"
    """The connect reply was sent."""
    REFUSED = "refused"
    """The connect command was answered with an error. The client leaves, or is closed as stale."""
    CLOSED = "closed"
    """The session is over. It only closes subscriptions whose set-up ends later."""

    __hash__ = object.__hash__  # Enum's own is written in Python


NEW, AUTHORIZING, CONNECTING, CONNECTED, REFUSED, CLOSED = Phase
"""The phases, for what runs often: a member of an Enum takes ten times as long to look up as a name."""


class Cause(Enum):
    """Why a session moves to another phase."""

    AUTHORIZATION_REQUESTED = "authorization requested"
    CONNECT_AUTHORIZED = "connect authorized"
    CONNECT_REFUSED = "connect refused"
    SUBSCRIPTIONS_OPENED = "server-side subscriptions opened"
    CLOSED = "closed, or connection lost"

    __hash__ = object.__hash__


TRANSITIONS: Mapping[tuple[Phase, Cause], Phase] = {
    (Phase.NEW, Cause.AUTHORIZATION_REQUESTED): Phase.AUTHORIZING,
    (Phase.NEW, Cause.CONNECT_AUTHORIZED): Phase.CONNECTING,
    (Phase.NEW, Cause.CONNECT_REFUSED): Phase.REFUSED,
    (Phase.AUTHORIZING, Cause.CONNECT_AUTHORIZED): Phase.CONNECTING,
    (Phase.AUTHORIZING, Cause.CONNECT_REFUSED): Phase.REFUSED,
    (Phase.CONNECTING, Cause.SUBSCRIPTIONS_OPENED): Phase.CONNECTED,
    (Phase.CONNECTING, Cause.CONNECT_REFUSED): Phase.REFUSED,
    (Phase.NEW, Cause.CLOSED): Phase.CLOSED,
    (Phase.AUTHORIZING, Cause.CLOSED): Phase.CLOSED,
    (Phase.CONNECTING, Cause.CLOSED): Phase.CLOSED,
    (Phase.CONNECTED, Cause.CLOSED): Phase.CLOSED,
    (Phase.REFUSED, Cause.CLOSED): Phase.CLOSED,
}


class ImpossibleTransition(Exception):
    """A session was asked to move where the table has no way. This is a defect of the server."""

    def __init__(self, phase: Phase, cause: Cause) -> None:
        super().__init__(f"no transition from {phase.value} on {cause.value}")


def next_phase(phase: Phase, cause: Cause) -> Phase:
    """Return where `cause` leads from `phase`. Raises ImpossibleTransition."""
    following = TRANSITIONS.get((phase, cause))
    if following is None:
        raise ImpossibleTransition(phase, cause)
    return following
