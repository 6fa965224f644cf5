"""The HTTP status of each reason to refuse a stream."""

import pytest

from tocsin_server import errors
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.protocol.messages import ErrorBody
from tocsin_server.transports.sse.refusal import StreamRefused


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (errors.INTERNAL_ERROR, 503),
        (errors.UNAUTHORIZED, 401),
        (errors.UNKNOWN_CHANNEL, 403),
        (errors.PERMISSION_DENIED, 403),
        (errors.LIMIT_EXCEEDED, 400),
        (errors.BAD_REQUEST, 400),
        (errors.TOKEN_EXPIRED, 401),
        (errors.EXPIRED, 401),
        (errors.TOO_MANY_REQUESTS, 429),
    ],
)
def test_an_error_reply_has_a_status(refusal: Refusal, status: int) -> None:
    """That of the HTTP API, except where an EventSource needs another; the message names the channel."""
    refused = StreamRefused.for_error(ErrorBody(refusal.code, refusal.message), "news")
    assert (refused.status, refused.code) == (status, refusal.code)
    assert refused.message == f'{refusal.message}: channel "news"'


@pytest.mark.parametrize(
    ("disconnect", "before_connect", "after_connect"),
    [
        (errors.SHUTDOWN, 503, 503),
        (Disconnect(4001, "moved"), 503, 503),
        (errors.CONNECTION_LIMIT, 429, 429),
        (errors.CHANNEL_LIMIT, 400, 400),
        (errors.INVALID_TOKEN, 401, 403),
        (errors.FORCE_DISCONNECT, 401, 403),
        (errors.PROTOCOL_VIOLATION, 401, 403),
    ],
)
def test_a_disconnect_has_a_status(disconnect: Disconnect, before_connect: int, after_connect: int) -> None:
    """503 where its code invites the client back; otherwise by whether the client was authorized."""
    before = StreamRefused.for_disconnect(disconnect, is_connected=False)
    after = StreamRefused.for_disconnect(disconnect, is_connected=True)
    assert (before.status, after.status) == (before_connect, after_connect)
    assert after.code == disconnect.code


def test_a_session_without_a_token_is_unauthorized() -> None:
    """The protocol calls it a bad request; a browser's author is helped by 401."""
    refused = StreamRefused.for_disconnect(errors.PROTOCOL_VIOLATION, is_connected=False)
    assert (refused.status, refused.code) == (401, errors.UNAUTHORIZED.code)
    assert "token" in refused.message
