"""The event stream of a subscriber, without a socket."""

import json
from base64 import b64encode

from tests.load.recording_transport import RecordingTransport, counters_of, new_subscriber
from tocsin.models import Position
from tocsin_load.receipts import Gap
from tocsin_load.sse_connection import SseConnection
from tocsin_load.subscriber import Subscriber

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def opened(subscriber: Subscriber, token: str = "") -> tuple[SseConnection, RecordingTransport]:
    transport = RecordingTransport()
    connection = SseConnection(subscriber, "news", "http://host:1/events", token)
    connection.connection_made(transport)
    return connection, transport


def event(name: str, data: object, last_id: str = "") -> bytes:
    return f"event: {name}\nid: {last_id}\ndata: {json.dumps(data)}\n\n".encode()


async def test_the_request_has_the_token_and_the_position() -> None:
    subscriber = new_subscriber()
    subscriber.position = Position(3, "E")
    _, transport = opened(subscriber, token="T")
    request = b"".join(transport.written).split(b"\r\n")
    assert request[0] == b"GET /events?channel=news HTTP/1.1"
    assert {b"Authorization: Bearer T", b"Last-Event-ID: 3@E"} <= set(request)


async def test_a_stream_goes_live_with_its_first_event() -> None:
    subscriber = new_subscriber()
    connection, _ = opened(subscriber)
    connection.data_received(HEAD + b"id: 3@E\n\n")
    assert subscriber.is_subscribed
    assert subscriber.position == Position(3, "E")
    message = {"channel": "news", "pub": {"data": {"run": "run", "n": 1, "at": 0.0}, "offset": 4}}
    connection.data_received(event("", message, "4@E"))
    assert subscriber.position == Position(4, "E")
    assert list(subscriber.receipts.received) == [1]


async def test_a_gap_event_is_recorded() -> None:
    subscriber = new_subscriber()
    subscriber.position = Position(3, "E")
    subscriber.receipts.has_begun = True
    connection, _ = opened(subscriber)
    gap = {"channel": "news", "to": {"offset": 9, "epoch": "F"}}
    connection.data_received(HEAD + event("gap", gap, "9@F"))
    assert subscriber.receipts.gaps == [Gap(0, "F", 9)]
    assert subscriber.position == Position(9, "F")


async def test_an_unsubscribe_event_ends_the_subscriber() -> None:
    subscriber = new_subscriber()
    connection, transport = opened(subscriber)
    connection.data_received(HEAD + event("unsubscribe", {"code": 2000, "reason": "no"}))
    assert subscriber.is_ended
    assert transport.abort_count == 1


async def test_an_unsubscribe_event_that_asks_to_subscribe_again_reconnects() -> None:
    subscriber = new_subscriber()
    connection, transport = opened(subscriber)
    connection.data_received(HEAD + event("unsubscribe", {"code": 2501, "reason": "expired"}))
    assert not subscriber.is_ended
    assert transport.abort_count == 1


async def test_the_user_of_the_address_is_sent_beside_the_token() -> None:
    transport = RecordingTransport()
    url = "http://ada:p%23w@host:1/events"
    SseConnection(new_subscriber(), "news", url, "T").connection_made(transport)
    request = b"".join(transport.written).split(b"\r\n")
    authorization = b"Authorization: Basic " + b64encode(b"ada:p#w")
    assert {b"Host: host:1", authorization, b"Cookie: tocsin_token=T"} <= set(request)


async def test_a_disconnect_event_ends_the_connection_and_the_rest_is_dropped() -> None:
    subscriber = new_subscriber()
    connection, _ = opened(subscriber)
    disconnect = event("disconnect", {"code": 3001, "reason": "shutdown"})
    connection.data_received(HEAD + disconnect + event("", "garbage"))
    assert counters_of(subscriber).failures == {"shutdown (code 3001)": 1}
    assert not subscriber.is_ended


async def test_the_last_chunk_ends_the_connection() -> None:
    subscriber = new_subscriber()
    connection, _ = opened(subscriber)
    head = HEAD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    connection.data_received(head + b"9\r\nid: 3@E\n\n\r\n0\r\n\r\n")
    assert counters_of(subscriber).failures == {"the stream ended": 1}
    assert subscriber.position == Position(3, "E")
