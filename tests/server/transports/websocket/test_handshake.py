"""What a WebSocket handshake settles: the values, and a served node that acts by them."""

import pytest
import websockets
from structlog.testing import capture_logs

from tests.server.served_node import ServedNode, serve_node
from tests.support.raw_connection import HANDSHAKE
from tests.support.wire_client import Close
from tocsin_server.errors import INAPPROPRIATE_PROTOCOL, Disconnect
from tocsin_server.protocol.codec import Codec
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.protobuf.codec import PROTOBUF
from tocsin_server.transports.websocket.handshake import Handshake

JSON_ONE, PROTOBUF_ONE = "centrifuge-json", "centrifuge-protobuf"
NEITHER = INAPPROPRIATE_PROTOCOL


@pytest.mark.parametrize(
    ("query", "offered", "codec", "subprotocol", "disconnect"),
    [
        ("", [], JSON, None, None),
        ("", ["other"], JSON, None, None),
        ("", [JSON_ONE], JSON, JSON_ONE, None),
        ("", [PROTOBUF_ONE], PROTOBUF, PROTOBUF_ONE, None),
        ("", [PROTOBUF_ONE, JSON_ONE], JSON, JSON_ONE, None),
        ("format=protobuf", [], PROTOBUF, None, None),
        ("cf_protocol=protobuf", [], PROTOBUF, None, None),
        ("cf_protocol=protobuf&format=protobuf", ["other"], PROTOBUF, None, None),
        ("format=protobuf", [JSON_ONE, PROTOBUF_ONE], PROTOBUF, PROTOBUF_ONE, None),
        ("format=json&cf_protocol=json", [], JSON, None, None),
        ("format=json", [JSON_ONE, PROTOBUF_ONE], JSON, JSON_ONE, None),
        ("format=", [PROTOBUF_ONE], PROTOBUF, PROTOBUF_ONE, None),
        ("format=protobuf", [JSON_ONE], JSON, JSON_ONE, NEITHER),
        ("format=json", [PROTOBUF_ONE], JSON, PROTOBUF_ONE, NEITHER),
        ("format=json&cf_protocol=protobuf", [], JSON, None, NEITHER),
        ("format=avro", [], JSON, None, NEITHER),
        ("cf_protocol=protobuf2", [JSON_ONE], JSON, JSON_ONE, NEITHER),
    ],
)
def test_the_query_and_the_subprotocols_choose_a_codec(
    query: str,
    offered: list[str],
    codec: Codec,
    subprotocol: str | None,
    disconnect: Disconnect | None,
) -> None:
    """A connection whose client asks for no known format, or for two, is closed."""
    handshake = Handshake.read(query, offered)
    assert (handshake.codec, handshake.subprotocol) == (codec, subprotocol)
    assert handshake.disconnect is disconnect


@pytest.mark.parametrize(
    ("query", "uses_ping_frames"),
    [("", False), ("cf_ws_frame_ping_pong=true", True), ("cf_ws_frame_ping_pong=1", False)],
)
def test_a_client_chooses_ping_frames_in_its_query(query: str, uses_ping_frames: bool) -> None:
    assert Handshake.read(query, []).uses_ping_frames is uses_ping_frames


async def test_a_client_whose_format_is_unknown_is_disconnected_for_good(served_node: ServedNode) -> None:
    """With 3506: it could not read any message."""
    async with served_node.wire("?format=avro", subprotocols=["centrifuge-protobuf"]) as wire:
        assert wire.connection.subprotocol == "centrifuge-protobuf"
        assert await wire.closed() == Close(3506, "inappropriate protocol")


async def test_a_client_that_offers_both_subprotocols_gets_json(served_node: ServedNode) -> None:
    async with served_node.wire(subprotocols=["centrifuge-protobuf", "centrifuge-json"]) as wire:
        assert wire.connection.subprotocol == "centrifuge-json"
        await wire.connect()


@pytest.mark.parametrize(("query", "closes"), [(b"?format=json", True), (b"?format=protobuf", False)])
async def test_subprotocols_may_be_offered_in_several_headers(
    served_node: ServedNode, query: bytes, closes: bool
) -> None:
    """RFC 6455 §11.3.4: they count as one header."""
    headers = b"Sec-WebSocket-Protocol: centrifuge-protobuf\r\nSec-WebSocket-Protocol: other\r\n"
    async with served_node.tcp() as (connection, _):
        await connection.send(
            HANDSHAKE.replace(b"Upgrade: websocket\r\n", b"Upgrade: websocket\r\n" + headers).replace(
                b"/connection/websocket", b"/connection/websocket" + query
            )
        )
        assert await connection.response() == 101
        if closes:
            assert await connection.closed() == Close(3506, "inappropriate protocol")


@pytest.mark.parametrize(
    "query", ["lastEventId=1@a", "last_event_id=1@a", "recover=true", "since=1", "cf_connect={}"]
)
async def test_a_position_in_the_query_is_refused(served_node: ServedNode, query: str) -> None:
    """A WebSocket recovers with its commands, and would begin live without them."""
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with served_node.wire(f"?{query}"):
            pass
    assert refused.value.response.status_code == 400
    assert b"subscribe commands" in (refused.value.response.body or b"")


async def test_a_position_in_a_header_is_refused_and_other_parameters_are_not(
    served_node: ServedNode,
) -> None:
    with pytest.raises(websockets.InvalidStatus):
        async with served_node.wire(additional_headers={"Last-Event-ID": "1@a"}):
            pass
    async with served_node.wire("?v=2&session=x") as wire:
        await wire.connect()


@pytest.mark.parametrize("name", [b"Cookie", b"X-Trace"], ids=["a long line", "many lines"])
async def test_the_head_of_a_handshake_has_the_same_limit_as_that_of_any_request(
    served_node: ServedNode, name: bytes
) -> None:
    """A long token in the query or a large cookie suffices for 8 KiB, and proxies add headers."""
    lines = b"Cookie: a=%b\r\n" % (b"x" * 40_000) if name == b"Cookie" else b"X-Trace: 1\r\n" * 400
    async with served_node.tcp() as (connection, _):
        await connection.send(HANDSHAKE.replace(b"Upgrade: websocket\r\n", b"Upgrade: websocket\r\n" + lines))
        assert await connection.response() == 101


async def test_a_handshake_with_a_body_is_refused(served_node: ServedNode) -> None:
    """Its bytes would be read as frames."""
    lines = b"Upgrade: websocket\r\nContent-Length: 5\r\n"
    async with served_node.tcp() as (connection, _):
        await connection.send(HANDSHAKE.replace(b"Upgrade: websocket\r\n", lines) + b"12345")
        assert await connection.response() == 400


@pytest.mark.parametrize(
    ("old", "new", "status", "reason"),
    [
        (b"Host", b"Origin: https://evil.example\r\nHost", 403, "origin"),
        (b"Version: 13", b"Version: 8", 400, "version"),
    ],
)
async def test_a_refused_handshake_leaves_a_line_in_the_log(
    served_node: ServedNode, old: bytes, new: bytes, status: int, reason: str
) -> None:
    """With its status and the reason that the client is told."""
    with capture_logs() as lines:
        async with served_node.tcp() as (connection, _):
            await connection.send(HANDSHAKE.replace(old, new, 1))
            assert await connection.response() == status
    (line,) = (line for line in lines if line["event"] == "request_refused")
    assert (line["transport"], line["status"]) == ("websocket", status)
    assert reason in line["reason"].lower()


async def status_for(served_node: ServedNode, origin: str | None) -> int:
    """The status that a page of this origin gets."""
    headers = {} if origin is None else {"Origin": origin}
    try:
        async with served_node.wire(additional_headers=headers):
            return 101
    except websockets.InvalidStatus as refused:
        return refused.response.status_code


async def test_only_pages_of_allowed_origins_connect() -> None:
    """Globs over the origin; "self" is a page of the host and port that it connects to."""
    origins = ["self", "https://*.example.com"]
    async with serve_node(server={"allowed_origins": origins}) as served_node:
        here = served_node.url
        statuses = {
            None: 101,
            here: 101,
            here.replace("http", "https"): 101,  # TLS may end at a proxy
            "https://app.example.com": 101,
            "HTTPS://app.EXAMPLE.com": 101,
            f"http://127.0.0.1:{served_node.port + 1}": 403,
            f"{here}.evil.example": 403,
            "http://localhost": 403,
            "https://example.com": 403,
            "http://app.example.com": 403,
            "null": 403,
            "": 403,
        }
        for origin, status in statuses.items():
            assert await status_for(served_node, origin) == status, origin
        await served_node.until_empty()


async def test_no_page_connects_by_default() -> None:
    """Not even one that this server served: that takes the pattern "self"."""
    async with serve_node() as served_node:
        assert await status_for(served_node, served_node.url) == 403
        assert await status_for(served_node, None) == 101


@pytest.mark.parametrize(("origins", "status"), [(["https://app.example"], 403), (["*"], 400)])
async def test_a_handshake_with_several_origins_is_refused(origins: list[str], status: int) -> None:
    """RFC 6454 §7.3 allows one. A permitted origin does not hide another."""
    headers = b"Origin: https://app.example\r\nOrigin: https://evil.example\r\n"
    async with (
        serve_node(server={"allowed_origins": origins}) as served_node,
        served_node.tcp() as (connection, _),
    ):
        await connection.send(
            HANDSHAKE.replace(b"Upgrade: websocket\r\n", b"Upgrade: websocket\r\n" + headers)
        )
        assert await connection.response() == status
