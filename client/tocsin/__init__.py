"""The Python client of Tocsin: subscribe over WebSocket or Server-Sent Events, publish over HTTP."""

from . import api
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
    WrongUse,
)
from .event_stream import EventStream
from .models import (
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
from .publisher import AsyncPublisher, Publisher
from .subscription import Subscription

__all__ = [
    "AsyncPublisher",
    "BadProtocol",
    "CallError",
    "Client",
    "ClientInfo",
    "ConnectionLost",
    "Disconnected",
    "EventStream",
    "History",
    "Joined",
    "Left",
    "PermissionDenied",
    "Position",
    "PresenceStats",
    "Publication",
    "Publisher",
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
    "WrongUse",
    "api",
]
