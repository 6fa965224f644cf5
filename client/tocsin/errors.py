"""Everything this package raises on purpose, and which close codes mean "come back" (protocol §7 to §9)."""

from __future__ import annotations

CLIENT_CLOSED = 0
CLIENT_UNAUTHORIZED = 1
CLIENT_BAD_PROTOCOL = 2
TOKEN_EXPIRED = 109
MESSAGE_TOO_BIG = 1009
STATE_INVALIDATED = 3014
FIRST_RESUBSCRIBE_CODE = 2500


class TocsinError(Exception):
    """The ancestor of every error of this package."""


class CallError(TocsinError):
    """The server answered a command with an error; a ``temporary`` one may be gone later."""

    def __init__(self, code: int, message: str, temporary: bool = False) -> None:
        super().__init__(f"{message} (error {code})")
        self.code = code
        self.message = message
        self.temporary = temporary


class PermissionDenied(CallError):
    """The server knows who asks, and does not allow it (error 103, close code 3507, HTTP 403)."""


class Unauthorized(TocsinError):
    """The server does not accept who asks: no token or key, a wrong or an expired one.

    Raise it from ``get_token`` to say that there will be no token: the client stops instead of trying again.
    """


class Disconnected(TocsinError):
    """The connection ended with a code that forbids coming back, or the client was closed (0)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"disconnected: {reason} (code {code})")
        self.code = code
        self.reason = reason


class SubscriptionEnded(TocsinError):
    """The server ended one subscription for good (code below 2500); the connection lives on."""

    def __init__(self, channel: str, code: int, reason: str) -> None:
        super().__init__(f"unsubscribed from {channel!r}: {reason} (code {code})")
        self.channel = channel
        self.code = code
        self.reason = reason


class ConnectionLost(TocsinError):
    """The connection broke while a call was under way: the server may or may not have done it."""


class TimedOut(TocsinError):
    """No answer in time, or no connection to ask on; as with ``ConnectionLost`` it may have been done."""


class ServerUnreachable(TocsinError):
    """No HTTP answer from the server, even after trying again."""


class BadProtocol(TocsinError):
    """The other side does not speak this protocol; most often the address is not a Tocsin server's."""


def may_come_back(code: int) -> bool:
    """Say whether a connection closed with this code may be opened again (protocol §8)."""
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
    """Say whether an error reply to connect or subscribe is worth another attempt (protocol §7)."""
    return temporary or code < 100 or code == TOKEN_EXPIRED
