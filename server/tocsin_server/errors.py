"""Every reason to refuse a command, to close a connection, or to end a subscription, in one table.

The same values serve replies, WebSocket close frames, the last event of an SSE stream, HTTP responses and
metric labels. Codes and messages are those of the Centrifuge protocol, so its SDKs handle them unmodified.
The range of a code says what the client does next:

    refusals       below 400: the protocol's own; 400-1999: an application's
    disconnects    3000-3499 and 4000-4499: the client reconnects; 3500-3999 and 4500-4999: it does not
    unsubscribes   2000-2499: the client stays unsubscribed; 2500-2999: it subscribes again

Tocsin itself never sends these codes. They are here for clients, for applications and for the HTTP API:

    113          Tocsin has neither map subscriptions nor conflicting publishes.
    3000         A client uses it for a connection that ended without a code.
    3009         A connection whose write failed cannot be told anything.
    3011, 3014   The API's `disconnect` may send them, because it accepts any code.
    2502         The API's `unsubscribe` always sends 2000.
    3507         Permissions are refused with 3500, 3501, or error 103, except on unidirectional transports.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one command is answered with an error. The connection goes on.

    A client retries if `temporary` is true or the code is 109. The HTTP API uses `http_status` in transport
    error mode.
    """

    code: int
    message: str
    temporary: bool = False
    http_status: int = 400


def because(refusal: Refusal, reason: str) -> Refusal:
    """The same refusal with a reason at the end of its message. Clients decide by the code."""
    return replace(refusal, message=f"{refusal.message}: {reason}")


def bad_request(reason: str) -> Refusal:
    """Error 107 with the reason in its message."""
    return because(BAD_REQUEST, reason)


def too_many_connections(limit: int) -> Refusal:
    """Error 106 for a user who has `limit` connections.

    It is temporary, so that SDKs come back: one of the connections may be that of a client that has lost its
    network, until the node that has it notices.
    """
    return replace(because(LIMIT_EXCEEDED, f"the limit of connections of a user is {limit}"), temporary=True)


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Why a connection is closed.

    `reason` is never empty, because centrifuge-js reads the code only beside a reason.
    """

    code: int
    reason: str

    @property
    def may_reconnect(self) -> bool:
        """Whether the client may reconnect, by the range of the code."""
        return self.code < 3500 or 4000 <= self.code < 4500 or self.code >= 5000


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """Why the server ended one subscription. From code 2500 on, the client subscribes again."""

    code: int
    reason: str


class EngineError(Exception):
    """The engine could not carry out a call. The caller may retry.

    Nothing was stored or published, unless the message says that the outcome is unknown.
    """


class EngineLimit(EngineError):
    """A limit of the engine refused a call. `limit` is its key in the configuration."""

    def __init__(self, limit: str, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.limit = limit
        self.refusal = refusal


class EngineFull(EngineLimit):
    """The store is full, or nearly, and refuses what would take more of its memory. Nothing was changed."""

    def __init__(self) -> None:
        super().__init__("engine.memory_limit", because(INTERNAL_ERROR, "the memory of Redis is full"))


class PresenceFull(EngineLimit):
    """A channel has as many presence entries as it may have."""

    def __init__(self, limit: int) -> None:
        reason = f"the channel has {limit} presence entries"
        super().__init__("limits.presence_entries", because(LIMIT_EXCEEDED, reason))


class TooManyConnections(EngineLimit):
    """A user has as many connections as one may have."""

    def __init__(self, limit: int) -> None:
        super().__init__("client.user_connection_limit", too_many_connections(limit))


class Unanswered(EngineError):
    """Some nodes are alive and did not answer in time. All other nodes carried out the control command."""

    def __init__(self, uids: Iterable[str]) -> None:
        self.uids = frozenset(uids)
        super().__init__(f"no answer from node {', '.join(sorted(uid[:8] for uid in self.uids))}")


class Refused(Exception):
    """Carries a `Refusal` out of a call that otherwise returns a value."""

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

CLIENT_ERRORS = frozenset(
    refusal.code
    for refusal in (
        UNAUTHORIZED,
        UNKNOWN_CHANNEL,
        PERMISSION_DENIED,
        METHOD_NOT_FOUND,
        BAD_REQUEST,
        NOT_AVAILABLE,
    )
)
"""The codes that count towards `client.error_limit` (3509), because the client should not have asked.

An expired token does not count, because the client cannot know. Nor do limits, or failures of the server.
"""

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
RATE_LIMITED = Disconnect(3013, "too many requests")
STATE_INVALIDATED = Disconnect(3014, "state invalidated")
INVALID_TOKEN = Disconnect(3500, "invalid token")
PROTOCOL_VIOLATION = Disconnect(3501, "bad request")
STALE = Disconnect(3502, "stale")
FORCE_DISCONNECT = Disconnect(3503, "force disconnect")
CONNECTION_LIMIT = Disconnect(3504, "connection limit")
CHANNEL_LIMIT = Disconnect(3505, "channel limit")
INAPPROPRIATE_PROTOCOL = Disconnect(3506, "inappropriate protocol")
DISCONNECT_PERMISSION_DENIED = Disconnect(3507, "permission denied")
UNSUPPORTED = Disconnect(3508, "not available")
TOO_MANY_ERRORS = Disconnect(3509, "too many errors")

_UNIDIRECTIONAL = {
    TOKEN_EXPIRED.code: CONNECTION_EXPIRED,
    EXPIRED.code: CONNECTION_EXPIRED,
    TOO_MANY_REQUESTS.code: RATE_LIMITED,
}


def unidirectional_disconnect(refusal: Refusal) -> Disconnect:
    """Why a unidirectional connection is closed whose connect command is refused: it gets no replies.

    The client does not come back after what it should not have asked, nor after an application's own refusal,
    unless that is temporary. A limit (106), or a state (105, 112, 113), may be another one next time.
    """
    is_final = (refusal.code in CLIENT_ERRORS or refusal.code >= 400) and not refusal.temporary
    return _UNIDIRECTIONAL.get(refusal.code, DISCONNECT_PERMISSION_DENIED if is_final else SERVER_ERROR)


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
