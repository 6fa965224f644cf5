"""The errors of this package, and what error and close codes mean (protocol §7 to §9)."""

from __future__ import annotations

CLIENT_CLOSED = 0
CLIENT_UNAUTHORIZED = 1
CLIENT_BAD_PROTOCOL = 2
TOKEN_EXPIRED = 109
TOO_MANY_REQUESTS = 111
CLOSED_FOR_TOO_MANY_REQUESTS = 3013
MESSAGE_TOO_BIG = 1009
STATE_INVALIDATED = 3014
FIRST_RESUBSCRIBE_CODE = 2500


class TocsinError(Exception):
    """The base class of every error that this package raises."""


class CallError(TocsinError):
    """The server answered a command or a call with an error. A ``temporary`` error may pass."""

    def __init__(self, code: int, message: str, temporary: bool = False) -> None:
        super().__init__(f"{message} (error {code})")
        self.code = code
        self.message = message
        self.temporary = temporary


class PermissionDenied(CallError):
    """The server does not permit what was requested (error 103, close code 3507, HTTP 403)."""


class Unauthorized(TocsinError):
    """The server does not accept the token or API key: it is missing, wrong or expired.

    A ``get_token`` raises it if there will be no token: the client then ends instead of trying again.
    """


class Disconnected(TocsinError):
    """The connection was closed with a code that forbids reconnecting, or the client was closed (0)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"disconnected: {reason} (code {code})")
        self.code = code
        self.reason = reason


class SubscriptionEnded(TocsinError):
    """The server ended one subscription for good (code below 2500). The connection goes on."""

    def __init__(self, channel: str, code: int, reason: str) -> None:
        super().__init__(f"unsubscribed from {channel!r}: {reason} (code {code})")
        self.channel = channel
        self.code = code
        self.reason = reason


class ConnectionLost(TocsinError):
    """The connection broke while a command was in flight: the server may or may not have run it."""


class TimedOut(TocsinError):
    """No answer, or no connection, in time. As with ``ConnectionLost``, the server may have run the call."""


class ServerUnreachable(TocsinError):
    """No response from the server: after several attempts, or since the proxy in between refuses for good."""


class WrongUse(TocsinError, RuntimeError):
    """The object is not entered, is entered twice, or belongs to another event loop, thread or process."""


class BadProtocol(TocsinError):
    """The server does not speak this protocol. Usually the address is not that of a Tocsin server."""


def may_reconnect(code: int) -> bool:
    """Return whether the client may reconnect after a close with this code (protocol §8)."""
    return not (3500 <= code <= 3999 or 4500 <= code <= 4999 or code == MESSAGE_TOO_BIG)


def call_error(code: int, message: str, temporary: bool = False) -> CallError:
    """Turn an error reply into its exception."""
    kind = PermissionDenied if code == 103 else CallError
    return kind(code, message, temporary)


def disconnect_error(code: int, reason: str) -> TocsinError:
    """Turn a terminal disconnect into its exception."""
    if code in (CLIENT_UNAUTHORIZED, TOKEN_EXPIRED, 101, 3500):
        return Unauthorized(f"{reason} (code {code})")
    if code == 3507:
        return PermissionDenied(code, reason)
    if code == CLIENT_BAD_PROTOCOL:
        return BadProtocol(reason)
    return Disconnected(code, reason)


def subscription_error(channel: str, code: int, reason: str) -> TocsinError:
    """Turn the end of a subscription into its exception."""
    if code == 103:
        return PermissionDenied(code, f"not permitted to subscribe to {channel!r}: {reason}")
    if code == CLIENT_UNAUTHORIZED:
        return Unauthorized(f"no token for {channel!r}: {reason}")
    return SubscriptionEnded(channel, code, reason)


def is_temporary(code: int, temporary: bool) -> bool:
    """Return whether the client may send connect or subscribe again after this error (protocol §7)."""
    return temporary or code < 100 or code == TOKEN_EXPIRED
