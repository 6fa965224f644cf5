"""permessage-deflate: off by default, one compressed frame for all subscribers, and bombs refused in time."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import PayloadTooBig
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from tests.server.served_node import ServedNode, new_channel, publish, serve_node
from tests.server.transports.websocket.raw_session import CONNECT, read_messages
from tests.support.protobuf_client import protobuf_client
from tests.support.raw_connection import HANDSHAKE, Op, RawConnection, close_frame, commands, frame
from tests.support.wire_client import Close, WireClient
from tocsin_server.transports.websocket.compression import (
    EXTENSIONS,
    LARGEST_BYTES,
    SMALLEST_BYTES,
    WINDOW_BITS,
    Inflation,
    frame_of,
)
from tocsin_server.transports.websocket.framing import DEFLATED_FRAMING

COMPRESSED = {"compression": True}
TEXT = json.dumps({"text": "all work and no play " * 100}).encode()
"""A payload that is compressed well."""


@pytest.fixture
async def compressing() -> AsyncIterator[ServedNode]:
    async with serve_node(client=COMPRESSED) as served_node:
        yield served_node
        await served_node.until_empty()


def offered(wire: WireClient) -> str | None:
    """What the server answered to the offer of a client."""
    assert wire.connection.response is not None
    return wire.connection.response.headers.get("Sec-WebSocket-Extensions")


def deflated(payload: bytes, *, window: int = 15) -> bytes:
    """A compressed message, as a client sends it."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -window)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def payload_of(data: bytes) -> bytes:
    """The payload of a frame, as a client reads it that negotiated the smallest window and keeps none."""
    reader = StreamReader()
    reader.feed_data(data)
    client = PerMessageDeflate(True, True, WINDOW_BITS, 15)
    parsing = Frame.parse(reader.read_exact, mask=False, extensions=[client])
    try:
        while True:
            next(parsing)
    except StopIteration as end:
        return bytes(end.value.data)


# ------------------------------------------------------------------------------------------------ negotiation


OFFERS: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"client_max_window_bits": True}, True),
    ({"server_no_context_takeover": True, "client_no_context_takeover": True}, True),
    ({"server_max_window_bits": WINDOW_BITS}, True),
    ({"server_max_window_bits": WINDOW_BITS - 1}, False),
    ({"client_max_window_bits": 9}, True),
]


async def test_an_offer_is_accepted_if_every_connection_can_share_the_frames(compressing: ServedNode) -> None:
    """Neither side keeps a window between two messages, whether the client asked for that or not."""
    for offer, is_accepted in OFFERS:
        extensions = [ClientPerMessageDeflateFactory(**offer)]
        async with compressing.wire(extensions=extensions) as wire:
            answer = offered(wire)
            if is_accepted:
                assert answer is not None
                assert {"server_no_context_takeover", "client_no_context_takeover"} <= set(answer.split("; "))
            else:
                assert answer is None
            await wire.connect()
            await wire.call("subscribe", channel=new_channel("plain"))


async def test_a_client_that_offers_nothing_gets_plain_frames(compressing: ServedNode) -> None:
    """The raw connection of these tests accepts no other."""
    channel = new_channel("plain")
    async with compressing.tcp() as (connection, _):
        await connection.upgrade()
        await connection.send(commands(CONNECT, {"id": 2, "subscribe": {"channel": channel}}))
        await read_messages(connection, 2)
        await publish(compressing.node, channel, TEXT)
        (message,) = await read_messages(connection, 1)
        assert message["push"]["pub"]["data"] == json.loads(TEXT)


# ----------------------------------------------------------------------------------------------- what is sent


async def test_a_publication_is_compressed_once_for_all_connections_that_negotiated_it(
    compressing: ServedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that did not get the same publication as it is."""
    made: list[bytes] = []

    def counting(opcode: Opcode, payload: bytes) -> bytes:
        made.append(payload)
        return frame_of(opcode, payload)

    channel = new_channel("plain")
    async with AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(compressing.wire(compression="deflate" if number % 2 else None))
            for number in range(10)
        ]
        for wire in wires:
            await wire.connect()
            await wire.call("subscribe", channel=channel)
        monkeypatch.setattr(DEFLATED_FRAMING, "make_frame", counting)
        sent = compressing.node.metrics.sent_bytes.count
        await publish(compressing.node, channel, TEXT)
        for wire in wires:
            assert (await wire.push("pub", channel))["data"] == json.loads(TEXT)
        assert len(made) == 1
        sizes = len(made[0]) + 4, len(frame_of(Opcode.TEXT, made[0]))
        assert compressing.node.metrics.sent_bytes.count - sent == 5 * sum(sizes)
        assert sizes[1] < sizes[0] / 5


async def test_clients_that_speak_protobuf_get_compressed_frames_too(compressing: ServedNode) -> None:
    """And they send compressed commands."""
    channel = new_channel("plain")
    async with protobuf_client(compressing.websocket_url, compression="deflate") as client:
        await client.call("connect", name="x" * 1000)
        await client.call("subscribe", channel=channel)
        sent = compressing.node.metrics.sent_bytes.count
        await publish(compressing.node, channel, TEXT)
        push = await client.push("pub")
        assert push.data == TEXT
        assert compressing.node.metrics.sent_bytes.count - sent < len(TEXT) / 5


@given(st.binary(max_size=3000) | st.text(max_size=2000).map(str.encode), st.integers(1, 60))
def test_every_client_can_read_every_frame(payload: bytes, repeated: int) -> None:
    """Each by itself, with the smallest window that is negotiated."""
    assert payload_of(frame_of(Opcode.TEXT, payload * repeated)) == payload * repeated


@pytest.mark.parametrize(
    ("payload", "is_compressed"),
    [
        (b"x" * (SMALLEST_BYTES - 1), False),
        (b"x" * SMALLEST_BYTES, True),
        (bytes(range(256)) * 2, True),
        (bytes(range(256)), False),
        (b"x" * LARGEST_BYTES, True),
        (b"x" * (LARGEST_BYTES + 1), False),
    ],
)
def test_a_message_is_compressed_where_that_pays(payload: bytes, is_compressed: bool) -> None:
    """Neither small and large ones, nor those that would grow."""
    made = frame_of(Opcode.BINARY, payload)
    assert made[0] == (0xC2 if is_compressed else 0x82)
    assert payload_of(made) == payload
    assert len(made) <= len(payload) + 10


# ------------------------------------------------------------------------------------------- what is received


@asynccontextmanager
async def raw_connection(served_node: ServedNode) -> AsyncIterator[RawConnection]:
    """A connection that negotiated compression, and whose frames a test writes itself."""
    offer = b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
    async with served_node.tcp() as (connection, _):
        await connection.send(HANDSHAKE.replace(b"\r\n", offer, 1))
        assert await connection.response() == 101
        yield connection


RSV1 = 4
CALL = b'{"id":2,"presence":{"channel":"open:1"}}'


async def test_compressed_commands_are_run_whole_and_in_fragments(compressing: ServedNode) -> None:
    """Plain ones too: a client may compress any of its messages."""
    async with raw_connection(compressing) as connection:
        await connection.send(commands(CONNECT))
        message = deflated(CALL)
        await connection.send(frame(message, reserved=RSV1) + frame(CALL))
        await connection.send(frame(message[:5], fin=False, reserved=RSV1))
        await connection.send(frame(message[5:], Op.CONTINUATION))
        assert [reply["id"] for reply in await read_messages(connection, 4)] == [1, 2, 2, 2]


BOMB = deflated(b" " * 50_000_000)
"""Some 50 KB, which are no large message."""


def in_fragments(message: bytes, size: int) -> bytes:
    """A compressed message in fragments."""
    pieces = [message[start : start + size] for start in range(0, len(message), size)]
    first, *others = pieces
    return (
        frame(first, fin=False, reserved=RSV1)
        + b"".join(frame(piece, Op.CONTINUATION, fin=False) for piece in others)
        + frame(b"", Op.CONTINUATION)
    )


@pytest.mark.parametrize("bomb", [frame(BOMB, reserved=RSV1), in_fragments(BOMB, 100)], ids=["one", "many"])
async def test_a_bomb_is_refused_at_the_limit_of_a_message(compressing: ServedNode, bomb: bytes) -> None:
    """In one frame or in fragments that are each below the limit."""
    async with raw_connection(compressing) as connection:
        await connection.send(commands(CONNECT))
        await read_messages(connection, 1)
        await connection.send(bomb)
        assert (await connection.closed()).code == 1009


def test_a_bomb_is_not_inflated_beyond_the_limit() -> None:
    """Neither in time nor in memory."""
    limit = 100_000
    inflation = Inflation(PerMessageDeflate(True, True, 15, 15))
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooBig):
            inflation.decode(Frame(Opcode.TEXT, BOMB, rsv1=True), max_size=limit)
        assert tracemalloc.get_traced_memory()[1] < 3 * limit + 2 * len(BOMB)
    finally:
        tracemalloc.stop()


async def test_a_client_that_sends_many_small_bombs_is_disconnected() -> None:
    """Each is below the limit of a message. What they are inflated to counts as frames."""
    limits = {
        **COMPRESSED,
        "frame_rate": 20,
        "command_rate": 0,
        "user_command_rate": 0,
        "error_limit": 10_000,
    }
    line = CALL.replace(b"{", b"{" + b" " * 100_000, 1)
    async with serve_node(client=limits) as served_node, raw_connection(served_node) as connection:
        await connection.send(commands(CONNECT))
        await read_messages(connection, 1)
        await connection.send(frame(deflated(line), reserved=RSV1) * 50)
        assert await connection.closed() == Close(3013, "too many requests")
        assert served_node.node.metrics.limits_reached.counts == {("client.frame_rate",): 1}


async def test_messages_of_usual_ratios_count_as_no_frames() -> None:
    """However many there are."""
    limits = {**COMPRESSED, "frame_rate": 1, "command_rate": 0, "user_command_rate": 0}
    line = json.dumps({"id": 2, "rpc": {"method": "none", "data": [{"n": n} for n in range(1000)]}}).encode()
    message = deflated(line)
    assert len(line) < 10 * len(message)
    async with serve_node(client=limits) as served_node, raw_connection(served_node) as connection:
        await connection.send(commands(CONNECT))
        for _ in range(5):
            await connection.send(frame(message, reserved=RSV1) * 10)
        assert len(await read_messages(connection, 51)) == 51


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (frame(deflated(b"\xff\xfe"), reserved=RSV1), 1007),
        (frame(b"\xff\xff\xff", reserved=RSV1), 1002),
        (frame(BOMB, reserved=RSV1), 1009),
    ],
    ids=["text", "not compressed", "a size"],
)
async def test_the_first_fault_counts_and_not_what_follows_in_the_same_read(
    compressing: ServedNode, broken: bytes, code: int
) -> None:
    """Such as a close frame with another code."""
    async with raw_connection(compressing) as connection:
        await connection.send(commands(CONNECT))
        await read_messages(connection, 1)
        compressing.connection.data_received(broken + close_frame(1000))
        assert (await connection.closed()).code == code


BROKEN = [
    frame(b"\xff\xff\xff", reserved=RSV1),
    frame(b"", reserved=RSV1),
    frame(b"", Op.PING, reserved=RSV1),
    frame(CALL, reserved=2),
    frame(deflated(CALL)[:3], fin=False, reserved=RSV1) + frame(b"", Op.CONTINUATION, reserved=RSV1),
    frame(deflated(b"\xff\xfe"), reserved=RSV1),
]


async def test_what_is_not_compressed_as_negotiated_is_refused(compressing: ServedNode) -> None:
    """And the node goes on."""
    for broken in BROKEN:
        async with raw_connection(compressing) as connection:
            await connection.send(commands(CONNECT))
            await read_messages(connection, 1)
            await connection.send(broken)
            assert (await connection.closed()).code in (1002, 1007, 3501)
    async with compressing.connected():
        pass


def test_no_window_is_kept_between_messages() -> None:
    """A connection that negotiated compression costs hardly more memory than another one."""
    response, inflation = EXTENSIONS[0].process_request_params([], [])
    assert dict(response) == {"server_no_context_takeover": None, "client_no_context_takeover": None}
    message = Frame(Opcode.TEXT, deflated(CALL), rsv1=True)
    decode: Callable[..., Frame] = inflation.decode
    assert bytes(decode(message, max_size=1000).data) == CALL
    assert not {"decoder", "encoder"} & set(vars(inflation))
