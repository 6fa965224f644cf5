"""Invalid frames close the connection with the code of RFC 6455, and harm no other client."""

import struct
from collections.abc import Callable
from contextlib import aclosing

import pytest

from tests.support.api import Api
from tests.support.raw_connection import (
    Op,
    RawConnection,
    close_frame,
    commands,
    frame,
    open_raw_websocket,
    open_tcp,
)
from tests.support.server import Server
from tests.support.wire_client import connect_wire

pytestmark = pytest.mark.usefixtures("other_clients_are_unharmed")

Name = Callable[[str], str]
CONNECT = commands({"id": 1, "connect": {}})
LIMIT = 524_288

WRONG_FRAMES = {
    "invalid UTF-8": (frame(b'{"id": 1, "connect": {"name": "\xff"}}'), 1007),
    "an overlong encoding": (frame(b"\xc0\xaf"), 1007),
    "half a character": (frame(b'{"name": "\xe2\x82'), 1007),
    "an encoded surrogate": (frame(b"\xed\xa0\x80"), 1007),
    "invalid UTF-8 as bytes": (frame(b'{"id": 1, "connect": {"name": "\xff"}}', Op.BINARY), 3501),
    "garbage as bytes": (frame(bytes(range(256)), Op.BINARY), 3501),
    "reserved bit 1": (frame('{"id": 1, "connect": {}}', reserved=4), 1002),
    "reserved bit 2": (frame('{"id": 1, "connect": {}}', reserved=2), 1002),
    "reserved bit 3": (frame('{"id": 1, "connect": {}}', reserved=1), 1002),
    "an unmasked frame": (frame('{"id": 1, "connect": {}}', masked=False), 1002),
    "an unknown opcode": (frame("", 3), 1002),
    "an unknown control opcode": (frame("", 11), 1002),
    "a continuation of nothing": (frame("{}", Op.CONTINUATION), 1002),
    "a message inside a message": (frame("{", fin=False) + frame("}"), 1002),
    "a ping in fragments": (frame("", Op.PING, fin=False), 1002),
    "a ping too long": (frame("x" * 126, Op.PING), 1002),
    "half a close code": (frame(b"\x03", Op.CLOSE), 1002),
    "a close code never to be sent": (close_frame(1005), 1002),
    "a close code below 1000": (close_frame(999), 1002),
    "a message too large": (frame("x" * (LIMIT + 1)), 1009),
    "a message too large, announced only": (b"\x81\xff" + struct.pack("!Q", 2**40) + b"\1\2\3\4", 1009),
    "fragments too large together": (
        frame("x" * 300_000, fin=False) + frame("x" * 300_000, Op.CONTINUATION),
        1009,
    ),
}


async def replied(connection: RawConnection, count: int) -> list[int]:
    """The ids of the next replies."""
    replies: list[int] = []
    async with aclosing(connection.messages()) as messages:
        async for message in messages:
            replies += [message["id"]] if "id" in message else []
            if len(replies) == count:
                break
    return replies


@pytest.mark.parametrize(("data", "code"), WRONG_FRAMES.values(), ids=WRONG_FRAMES)
async def test_an_invalid_frame_closes_the_connection(server: Server, data: bytes, code: int) -> None:
    """As the first frame, and after a connect."""
    for before in (b"", CONNECT):
        async with open_raw_websocket(server) as connection:
            await connection.send(before + data)
            assert (await connection.closed()).code == code


async def test_a_frame_with_a_64_bit_length_is_refused(server: Server) -> None:
    """The highest bit of a length must be 0 (RFC 6455 §5.2). With or without it the frame is too large."""
    async with open_raw_websocket(server) as connection:
        await connection.send(b"\x81\xff" + b"\xff" * 8 + b"\1\2\3\4")
        assert (await connection.closed()).code in {1002, 1009}


async def test_a_close_frame_with_an_invalid_reason_is_answered(server: Server) -> None:
    async with open_raw_websocket(server) as connection:
        await connection.send(close_frame(1000, b"\xff"))
        assert (await connection.closed()).code in {1002, 1007}


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_a_close_frame_is_answered_with_its_code(server: Server, code: int) -> None:
    """This is the closing handshake of RFC 6455 §5.5.1."""
    async with open_raw_websocket(server) as connection:
        await connection.send(CONNECT + close_frame(code))
        assert (await connection.closed()).code == code


async def test_commands_after_a_close_frame_are_ignored(server: Server, api: Api, channel: Name) -> None:
    """Commands after the peer's close frame do nothing."""
    news = channel("open")
    async with open_raw_websocket(server) as connection:
        await connection.send(CONNECT)
        await replied(connection, 1)
        late = commands({"id": 2, "publish": {"channel": news, "data": 1}})
        await connection.send(close_frame() + late)
        assert await replied(connection, 1) == []
    assert (await api.call("history", channel=news))["offset"] == 0


async def test_commands_before_a_close_frame_are_executed(server: Server, channel: Name) -> None:
    """They are executed although the client does not wait for the replies."""
    news = channel("open")
    async with connect_wire(server) as subscriber, open_raw_websocket(server) as connection:
        await subscriber.call("subscribe", channel=news)
        last = commands({"id": 2, "publish": {"channel": news, "data": "last"}})
        await connection.send(CONNECT + last + close_frame())
        assert (await subscriber.push("pub", news))["data"] == "last"


async def test_a_message_of_the_largest_size_is_accepted(server: Server) -> None:
    """One byte beyond the limit is refused."""
    head, tail = '{"id": 2, "publish": {"channel": "plain:1", "data": "', '"}}'
    command = head + "x" * (LIMIT - len(head) - len(tail)) + tail
    async with open_raw_websocket(server) as connection:
        await connection.send(CONNECT + frame(command))
        assert await replied(connection, 2) == [1, 2]


async def test_fragments_are_one_message(server: Server) -> None:
    """The message may be cut anywhere, also within a character, with pings in between."""
    command = '{"id": 2, "publish": {"channel": "plain:1", "data": "größe"}}'.encode()
    fragments = [frame(command[:1], fin=False)]
    fragments += [frame(command[i : i + 1], Op.CONTINUATION, fin=False) for i in range(1, len(command))]
    fragments.insert(30, frame("still there?", Op.PING))
    async with open_raw_websocket(server) as connection:
        await connection.send(CONNECT + b"".join(fragments) + frame("", Op.CONTINUATION))
        assert await replied(connection, 2) == [1, 2]


async def test_ping_frames_are_answered_with_their_payload(server: Server) -> None:
    """Before and after connect, and between the fragments of a message."""
    message = frame('{"id": ', fin=False) + frame("c", Op.PING) + frame('1, "connect": {}}', Op.CONTINUATION)
    async with open_raw_websocket(server) as connection:
        await connection.send(frame("a", Op.PING) + frame("", Op.PING) + message + close_frame())
        frames = [received async for received in connection.frames()]
    assert [payload for op, payload in frames if op == Op.PONG] == [b"a", b"", b"c"]


async def test_unsolicited_pong_frames_are_ignored(server: Server) -> None:
    """RFC 6455 §5.5.3 permits them."""
    async with open_raw_websocket(server) as connection:
        await connection.send(frame("x", Op.PONG) + CONNECT)
        assert await replied(connection, 1) == [1]


async def test_presence_ends_when_the_connection_is_reset(server: Server, channel: Name) -> None:
    """Also when the reset comes in the middle of a frame."""
    news = channel("open")
    async with connect_wire(server) as watcher:
        await watcher.call("subscribe", channel=news)
        await watcher.push("join", news)
        async with open_tcp(server) as connection:
            await connection.upgrade()
            subscribe = commands({"id": 2, "subscribe": {"channel": news}})
            await connection.send(CONNECT + subscribe + frame("x" * 1000)[:500])
            await watcher.push("join", news)
        await watcher.push("leave", news)
