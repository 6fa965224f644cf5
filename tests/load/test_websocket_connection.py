"""The WebSocket of a subscriber, without a socket."""

import json
from base64 import b64encode
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from tests.load.recording_transport import RecordingTransport, counters_of, new_subscriber
from tocsin.models import Position
from tocsin_load import frames
from tocsin_load.websocket_connection import WebSocketConnection

HISTORY = {"recoverable": True, "positioned": True, "epoch": "E"}


class OpenConnection:
    """A connection whose handshake is done. `sent` holds the commands since the last call of `receive`."""

    def __init__(self, token: str = "") -> None:
        self.subscriber = new_subscriber()
        self.transport = RecordingTransport()
        self.connection = WebSocketConnection(self.subscriber, "news", "ws://host:1/path?x=1", token)
        self.connection.connection_made(self.transport)
        [request] = self.transport.written
        assert request.startswith(b"GET /path?x=1 HTTP/1.1\r\nHost: host:1\r\n")
        self.transport.written.clear()
        self.connection.data_received(b"HTTP/1.1 101 Switching")
        self.connection.data_received(b" Protocols\r\nUpgrade: websocket\r\n\r\n")

    @property
    def sent(self) -> list[Any]:
        return [
            json.loads(line)
            for written in self.transport.written
            for opcode, payload in [_unmasked(written)]
            if opcode == frames.TEXT
            for line in payload.split(b"\n")
        ]

    def receive(self, *replies: Any) -> None:
        self.transport.written.clear()
        text = "\n".join(json.dumps(reply) for reply in replies).encode()
        self.connection.data_received(Frame(Opcode.TEXT, text).serialize(mask=False))

    def go_live(self) -> None:
        self.receive({"id": 1, "connect": {"client": "C", "ping": 25, "pong": True}})
        self.receive({"id": 2, "subscribe": {**HISTORY, "offset": 3}})

    @property
    def failures(self) -> dict[str, int]:
        return dict(counters_of(self.subscriber).failures)


def _unmasked(frame: bytes) -> tuple[int, bytes]:
    """The opcode and payload of a short frame with a mask of zeros."""
    size = frame[1] & 0x7F
    start = {126: 4, 127: 10}.get(size, 2) + 4
    return frame[0] & 0x0F, frame[start:]


async def test_connect_and_subscribe_are_sent_after_the_handshake() -> None:
    open_connection = OpenConnection(token="T")
    connect, subscribe = open_connection.sent
    assert connect == {"id": 1, "connect": {"token": "T", "name": "tocsin load"}}
    assert subscribe == {"id": 2, "subscribe": {"channel": "news", "positioned": True, "recoverable": True}}


async def test_publications_move_the_position_and_are_recorded() -> None:
    live = OpenConnection()
    live.go_live()
    assert live.subscriber.is_subscribed
    data = {"run": "run", "n": 1, "at": 0.0}
    live.receive({"push": {"channel": "news", "pub": {"data": data, "offset": 4}}})
    live.receive({"push": {"channel": "other", "pub": {"data": data, "offset": 9}}})
    live.receive({"push": {"channel": "news", "pub": {"data": "foreign", "offset": 5}}})
    assert live.subscriber.position == Position(5, "E")
    assert list(live.subscriber.receipts.received) == [1]
    assert counters_of(live.subscriber).foreign == 1


async def test_pings_of_both_kinds_are_answered() -> None:
    live = OpenConnection()
    live.go_live()
    live.receive({})
    assert live.sent == [{}]
    live.transport.written.clear()
    live.connection.data_received(Frame(Opcode.PING, b"?").serialize(mask=False))
    [pong] = live.transport.written
    assert _unmasked(pong) == (frames.PONG, b"?")


async def test_an_unsubscribe_push_from_2500_on_leads_to_a_resubscription() -> None:
    live = OpenConnection()
    live.go_live()
    live.receive({"push": {"channel": "news", "unsubscribe": {"code": 2500, "reason": "gap"}}})
    assert not live.subscriber.is_subscribed
    [command] = live.sent
    recovery = {"recover": True, "offset": 3, "epoch": "E", "positioned": True, "recoverable": True}
    assert command["subscribe"] == {"channel": "news", **recovery}
    assert live.failures == {}


async def test_an_unsubscribe_push_below_2500_ends_the_subscriber() -> None:
    live = OpenConnection()
    live.go_live()
    live.receive({"push": {"channel": "news", "unsubscribe": {"code": 2000, "reason": "no"}}})
    assert live.subscriber.is_ended
    assert live.failures == {"unsubscribed: no (code 3507)": 1}


@pytest.mark.parametrize(
    ("error", "is_ended"),
    [
        ({"code": 100, "message": "internal server error", "temporary": True}, False),
        ({"code": 103, "message": "permission denied"}, True),
    ],
)
async def test_an_error_reply_ends_the_subscriber_unless_it_is_temporary(
    error: dict[str, Any], is_ended: bool
) -> None:
    refused = OpenConnection()
    refused.receive({"id": 1, "error": error})
    assert refused.transport.abort_count == 1
    assert refused.subscriber.is_ended is is_ended
    assert refused.subscriber.url_index == (0 if is_ended else 1)


async def test_a_disconnect_ends_the_connection_and_the_rest_is_dropped() -> None:
    live = OpenConnection()
    live.go_live()
    close = Frame(Opcode.CLOSE, (3001).to_bytes(2, "big") + b"shutdown").serialize(mask=False)
    live.connection.data_received(close + Frame(Opcode.TEXT, b"garbage").serialize(mask=False))
    assert live.failures == {"shutdown (code 3001)": 1}
    assert counters_of(live.subscriber).lost_connections == 1
    live.connection.connection_lost(None)
    assert sum(live.failures.values()) == 1


async def test_a_disconnect_push_has_the_effect_of_a_close_code() -> None:
    live = OpenConnection()
    live.receive({"push": {"disconnect": {"code": 3503, "reason": "force disconnect"}}})
    assert live.subscriber.is_ended


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (b"HTTP/1.1 503 Busy\r\n\r\n", "cannot connect: HTTP 503"),
        (b"x" * 70_000, "not this protocol: the head of the response is too long"),
        (b"HTTP/1.1 101 OK\r\n\r\n\x81\x01x", "not this protocol: "),
    ],
)
async def test_a_wrong_response_is_a_failure_with_its_reason(response: bytes, reason: str) -> None:
    subscriber = new_subscriber()
    connection = WebSocketConnection(subscriber, "news", "ws://host:1", "")
    connection.connection_made(RecordingTransport())
    connection.data_received(response)
    [counted] = counters_of(subscriber).failures
    assert counted.startswith(reason)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "the connection was closed without a code"),
        (ConnectionResetError(), "the connection broke"),
    ],
)
async def test_a_lost_connection_is_a_failure_with_its_reason(error: Exception | None, reason: str) -> None:
    lost = OpenConnection()
    lost.connection.connection_lost(error)
    assert lost.failures == {reason: 1}


async def test_the_user_of_the_address_is_sent_and_is_no_part_of_the_host() -> None:
    transport = RecordingTransport()
    WebSocketConnection(new_subscriber(), "news", "ws://ada:p%23w@host:1/", "T").connection_made(transport)
    lines = b"".join(transport.written).split(b"\r\n")
    assert {b"Host: host:1", b"Authorization: Basic " + b64encode(b"ada:p#w")} <= set(lines)


async def test_a_refused_handshake_is_counted_with_the_reason_of_the_server() -> None:
    subscriber = new_subscriber()
    connection = WebSocketConnection(subscriber, "news", "ws://host:1/", "T")
    connection.connection_made(RecordingTransport())
    connection.data_received(b"HTTP/1.1 400 Bad Request\r\n\r\nno endpoint\n")
    [reason] = counters_of(subscriber).failures
    assert "HTTP 400, 'no endpoint'" in reason
    assert "does not pass the Upgrade header" in reason


async def test_a_server_that_reads_nothing_loses_the_connection() -> None:
    """Each of its pings is answered."""
    open_connection = OpenConnection()
    open_connection.go_live()
    open_connection.transport.unread_bytes = 2**21
    open_connection.receive({})
    assert open_connection.transport.abort_count == 1
    assert open_connection.failures == {"the server does not read": 1}


async def test_a_subscription_that_is_ended_at_once_again_waits_for_the_backoff() -> None:
    """The first time it subscribes at once."""
    open_connection = OpenConnection()
    open_connection.go_live()
    end = {"push": {"channel": "news", "unsubscribe": {"code": 2500, "reason": "r"}}}
    open_connection.receive(end)
    assert [list(one) for one in open_connection.sent] == [["id", "subscribe"]]
    open_connection.receive({"id": 3, "subscribe": HISTORY}, end)
    assert open_connection.sent == []
