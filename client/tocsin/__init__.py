"""The client of Tocsin: subscribe over WebSocket or Server-Sent Events, publish over HTTP."""

from .client import Client
from .errors import (
    BadProtocol,
    CallError,
    ConnectionLost,
    Disconnected,
    PermissionDenied,
    ServerUnreachable,
    SubscriptionEnded,
    TimedOut,
    TocsinError,
    Unauthorized,
)
from .subscription import Subscription
from .values import (
    ClientInfo,
    History,
    Joined,
    Left,
    Position,
    PresenceStats,
    Publication,
    State,
    StateChanged,
    Subscribed,
    Unsubscribed,
)

__all__ = [
    "BadProtocol",
    "CallError",
    "Client",
    "ClientInfo",
    "ConnectionLost",
    "Disconnected",
    "History",
    "Joined",
    "Left",
    "PermissionDenied",
    "Position",
    "PresenceStats",
    "Publication",
    "ServerUnreachable",
    "State",
    "StateChanged",
    "Subscribed",
    "Subscription",
    "SubscriptionEnded",
    "TimedOut",
    "TocsinError",
    "Unauthorized",
    "Unsubscribed",
]
