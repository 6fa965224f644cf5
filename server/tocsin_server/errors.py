"""Every reason to refuse or to close, in one table.

The same values serve replies, WebSocket close frames, the last event of an SSE stream, HTTP answers and
metric labels. Codes and messages are those of the Centrifuge protocol, so its SDKs react to them untold.
Ranges carry the advice:

    errors       below 400 are the protocol's, 400-1999 an application's
    disconnects  3000-3499 and 4000-4499 say come back, 3500-3999 and 4500-4999 say don't
    unsubscribes 2000-2499 say stay away, 2500-2999 say subscribe again

Some are named for clients and the API alone, and Tocsin never sends them of itself:

    111, 3013    no rates are limited here; an application's RPC method may raise any error, though
    113          there are neither map subscriptions nor publishes that are in conflict with others
    3000         what a client says of an end without a code
    3009         a write that fails finds nobody to tell
    3011, 3014   what the API's `disconnect`, which takes any code, may say; 2502 has no such way
    3507         whoever may not connect hears 3500 or 3501, and of a single command error 103
    3509         the first violation closes already, and errors are not counted
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one command was refused; the connection lives on.

    A client retries when `temporary` is true or the code is 109. `http_status` is used by the HTTP API in
    transport error mode.
    """

    code: int
    message: str
    temporary: bool = False
    http_status: int = 400


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Why a connection is closed.

    `reason` is never empty: centrifuge-js reads the code only beside a reason.
    """

    code: int
    reason: str

    @property
    def may_reconnect(self) -> bool:
        """Whether the code's range invites the client back."""
        return self.code < 3500 or 4000 <= self.code < 4500 or self.code >= 5000


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """Why the server ended one subscription. From 2500 on the client subscribes again by itself."""

    code: int
    reason: str


class EngineError(Exception):
    """The engine could not do what was asked. May be retried.

    Nothing was stored or announced, unless it says that the outcome is unknown.
    """


class Unanswered(EngineError):
    """Some nodes, which live, did not answer in time. The others did, and have obeyed if it was an order."""

    def __init__(self, uids: Iterable[str]) -> None:
        self.uids = frozenset(uids)
        super().__init__(f"no answer from node {', '.join(sorted(uid[:8] for uid in self.uids))}")


class Refused(Exception):
    """Carries a `Refusal` out of a call that answers with a value."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


INTERNAL_ERROR = Refusal(100, "internal server error", temporary=True, http_status=500)
UNAUTHORIZED = Refusal(101, "unauthorized", http_status=401)
UNKNOWN_CHANNEL = Refusal(102, "unknown channel", http_status=404)
PERMISSION_DENIED = Refusal(103, "permission denied", http_status=403)
METHOD_NOT_FOUND = Refusal(104, "method not found", http_status=404)
NOT_FOUND = Refusal(104, "not found", http_status=404)
ALREADY_SUBSCRIBED = Refusal(105, "already subscribed")
LIMIT_EXCEEDED = Refusal(106, "limit exceeded")
BAD_REQUEST = Refusal(107, "bad request")
NOT_AVAILABLE = Refusal(108, "not available")
TOKEN_EXPIRED = Refusal(109, "token expired", http_status=401)
EXPIRED = Refusal(110, "expired")
TOO_MANY_REQUESTS = Refusal(111, "too many requests", temporary=True, http_status=429)
UNRECOVERABLE_POSITION = Refusal(112, "unrecoverable position", http_status=416)
CONCURRENT_PAGINATION = Refusal(113, "concurrent pagination", temporary=True, http_status=409)
CONFLICT = Refusal(113, "conflict", http_status=409)

CONNECTION_CLOSED = Disconnect(3000, "connection closed")
SHUTDOWN = Disconnect(3001, "shutdown")
SERVER_ERROR = Disconnect(3004, "internal server error")
CONNECTION_EXPIRED = Disconnect(3005, "connection expired")
SUBSCRIPTION_EXPIRED = Disconnect(3006, "subscription expired")
SLOW = Disconnect(3008, "slow")
WRITE_ERROR = Disconnect(3009, "write error")
INSUFFICIENT_STATE = Disconnect(3010, "insufficient state")
FORCE_RECONNECT = Disconnect(3011, "force reconnect")
NO_PONG = Disconnect(3012, "no pong")
OVERLOADED = Disconnect(3013, "too many requests")
STATE_INVALIDATED = Disconnect(3014, "state invalidated")
INVALID_TOKEN = Disconnect(3500, "invalid token")
PROTOCOL_VIOLATION = Disconnect(3501, "bad request")
STALE = Disconnect(3502, "stale")
FORCE_DISCONNECT = Disconnect(3503, "force disconnect")
CONNECTION_LIMIT = Disconnect(3504, "connection limit")
CHANNEL_LIMIT = Disconnect(3505, "channel limit")
INAPPROPRIATE_PROTOCOL = Disconnect(3506, "inappropriate protocol")
FORBIDDEN = Disconnect(3507, "permission denied")
UNSUPPORTED = Disconnect(3508, "not available")
TOO_MANY_ERRORS = Disconnect(3509, "too many errors")

SERVER_UNSUBSCRIBE = Unsubscribed(2000, "server unsubscribe")
UNSUBSCRIBED_INSUFFICIENT_STATE = Unsubscribed(2500, "insufficient state")
UNSUBSCRIBED_EXPIRED = Unsubscribed(2501, "subscription expired")
UNSUBSCRIBED_STATE_INVALIDATED = Unsubscribed(2502, "state invalidated")

_HTTP_STATUSES = {
    reason.code: reason.http_status for reason in vars().values() if isinstance(reason, Refusal)
}


def http_status(code: int) -> int:
    """The HTTP status of an error code; 400 for an application's own codes."""
    return _HTTP_STATUSES.get(code, 400)
