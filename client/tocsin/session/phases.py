"""The phases of a session and of its subscriptions, and the transitions between them (pure)."""

from __future__ import annotations

from enum import Enum, auto


class ConnectionPhase(Enum):
    """The step of connecting that a session has reached."""

    NEW = auto()
    WAITING = auto()
    AUTHORIZING = auto()
    OPENING = auto()
    CONNECT_SENT = auto()
    CONNECTED = auto()
    ENDED = auto()


class SubscriptionPhase(Enum):
    """The step of subscribing that a subscription has reached. Every interruption returns it to IDLE."""

    IDLE = auto()
    AUTHORIZING = auto()
    SUBSCRIBING = auto()
    SUBSCRIBED = auto()


_P = ConnectionPhase

TRANSITIONS: dict[ConnectionPhase, frozenset[ConnectionPhase]] = {
    _P.NEW: frozenset({_P.AUTHORIZING, _P.OPENING, _P.ENDED}),
    _P.WAITING: frozenset({_P.AUTHORIZING, _P.OPENING, _P.ENDED}),
    _P.AUTHORIZING: frozenset({_P.OPENING, _P.WAITING, _P.ENDED}),
    _P.OPENING: frozenset({_P.CONNECT_SENT, _P.WAITING, _P.ENDED}),
    _P.CONNECT_SENT: frozenset({_P.CONNECTED, _P.WAITING, _P.ENDED}),
    _P.CONNECTED: frozenset({_P.WAITING, _P.ENDED}),
    _P.ENDED: frozenset(),
}
