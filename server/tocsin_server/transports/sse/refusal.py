"""Why a request for an event stream gets an HTTP status instead of a stream.

An EventSource gives up for good on any status but 200, which is right for all of these but 503; there an
application makes a new one (docs/sse.md).
"""

from __future__ import annotations

from typing import Self

from tocsin_server import errors
from tocsin_server.errors import Disconnect
from tocsin_server.protocol.messages import ErrorBody

BAD_REQUEST = 400
UNAUTHENTICATED = 401
FORBIDDEN = 403
TOO_MANY = 429
UNAVAILABLE = 503

STATUS_OF_ERROR = {
    errors.INTERNAL_ERROR.code: UNAVAILABLE,
    errors.UNAUTHORIZED.code: UNAUTHENTICATED,
    errors.LIMIT_EXCEEDED.code: BAD_REQUEST,
    errors.BAD_REQUEST.code: BAD_REQUEST,
    errors.TOKEN_EXPIRED.code: UNAUTHENTICATED,
    errors.EXPIRED.code: UNAUTHENTICATED,
    errors.TOO_MANY_REQUESTS.code: TOO_MANY,
}
"""What is not here is 403; an unknown channel too, so that names cannot be told from permissions."""

STATUS_OF_CLOSE = {errors.CONNECTION_LIMIT.code: TOO_MANY, errors.CHANNEL_LIMIT.code: BAD_REQUEST}
"""What is not here is 503 if the code invites the client back, else 401 or 403."""


class StreamRefused(Exception):
    """An HTTP status, and the code (the protocol's) and message of its body."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    @classmethod
    def by_query(cls, sentence: str, code: int = errors.BAD_REQUEST.code) -> Self:
        """The request makes no sense; `sentence` is for whoever wrote it."""
        return cls(BAD_REQUEST, code, sentence)

    @classmethod
    def by_error(cls, error: ErrorBody, channel: str = "") -> Self:
        """A command of the request was answered with an error; which channel it was about is said."""
        message = f'{error.message}: channel "{channel}"' if channel else error.message
        return cls(STATUS_OF_ERROR.get(error.code, FORBIDDEN), error.code, message)

    @classmethod
    def by_close(cls, why: Disconnect, *, is_connected: bool) -> Self:
        """The session was closed, before or after it knew who the client is.

        Before, a token was missing or bad; after, a subscription token was somebody else's.
        """
        if why.may_reconnect:
            return cls(UNAVAILABLE, why.code, why.reason)
        if why is errors.PROTOCOL_VIOLATION and not is_connected:
            return cls(UNAUTHENTICATED, errors.UNAUTHORIZED.code, "unauthorized: a token is needed")
        status = FORBIDDEN if is_connected else UNAUTHENTICATED
        return cls(STATUS_OF_CLOSE.get(why.code, status), why.code, why.reason)
