"""Why a request for an event stream is answered with an HTTP status instead of a stream.

An EventSource gives up for good on every status but 200. That is right where it is pointless to come back.
Where it is not, an EventSource gets a stream that ends at once instead (docs/sse.md).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Self

from tocsin_server import errors
from tocsin_server.core.admission import NotAdmitted
from tocsin_server.errors import Disconnect
from tocsin_server.protocol.messages import ErrorBody

RETRY_AFTER_SECONDS = 5
"""When a client may try again after 503: about how long a node needs to be ready again."""

_STATUS_OF_ERROR = {
    # The engine failed, and may be back soon: 503 has a Retry-After, as for a node that is not ready.
    errors.INTERNAL_ERROR.code: HTTPStatus.SERVICE_UNAVAILABLE,
    # The same as for a channel that is not permitted, so that names cannot be told from permissions.
    errors.UNKNOWN_CHANNEL.code: HTTPStatus.FORBIDDEN,
    # The subscription that a token grants has expired: a fresh token helps, as with TOKEN_EXPIRED.
    errors.EXPIRED.code: HTTPStatus.UNAUTHORIZED,
}
"""Where the status is not the one that `errors.http_status` names for the HTTP API."""

_STATUS_OF_DISCONNECT = {
    errors.CONNECTION_LIMIT.code: HTTPStatus.TOO_MANY_REQUESTS,
    errors.CHANNEL_LIMIT.code: HTTPStatus.BAD_REQUEST,
}


class StreamRefused(Exception):
    """The HTTP status of a refused request, and the code (the protocol's) and message of its body."""

    def __init__(self, status: int, code: int, message: str, retry_after: int = RETRY_AFTER_SECONDS) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)

    @classmethod
    def for_query(cls, sentence: str, code: int = errors.BAD_REQUEST.code) -> Self:
        """The query is not valid; `sentence` is for its author."""
        return cls(HTTPStatus.BAD_REQUEST, code, sentence)

    @classmethod
    def for_limit(cls, refused: NotAdmitted) -> Self:
        """The node, or the client's address, has too many connections or makes them too fast."""
        code = errors.TOO_MANY_REQUESTS.code
        return cls(HTTPStatus.SERVICE_UNAVAILABLE, code, refused.reason, refused.retry_after)

    @classmethod
    def for_error(cls, error: ErrorBody, channel: str = "") -> Self:
        """A command of the request was answered with an error; the message names the channel it concerns."""
        message = f'{error.message}: channel "{channel}"' if channel else error.message
        status = _STATUS_OF_ERROR.get(error.code) or errors.http_status(error.code)
        if error.temporary and error.code == errors.LIMIT_EXCEEDED.code:
            status = HTTPStatus.TOO_MANY_REQUESTS
        return cls(status, error.code, message)

    @classmethod
    def for_disconnect(cls, disconnect: Disconnect, *, is_connected: bool) -> Self:
        """The session was closed, before or after its connect command was accepted.

        Before, a token was missing or invalid (401). After, a subscription token was for another user (403).
        """
        if disconnect.may_reconnect:
            return cls(HTTPStatus.SERVICE_UNAVAILABLE, disconnect.code, disconnect.reason)
        if disconnect is errors.PROTOCOL_VIOLATION and not is_connected:
            return cls(HTTPStatus.UNAUTHORIZED, errors.UNAUTHORIZED.code, "unauthorized: a token is needed")
        status = HTTPStatus.FORBIDDEN if is_connected else HTTPStatus.UNAUTHORIZED
        return cls(_STATUS_OF_DISCONNECT.get(disconnect.code, status), disconnect.code, disconnect.reason)
