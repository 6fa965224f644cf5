"""What a client may send on a raw WebSocket: how many frames, in how much time, and how they take turns."""

from __future__ import annotations

import pytest

from tests.server.served_node import ServedNode, serve_node, until
from tests.server.transports.websocket.raw_session import CONNECT, connect, read_messages
from tests.support.raw_connection import Op, close_frame, commands, frame
from tests.support.timing import SOON, TICK
from tests.support.wire_client import Close
from tocsin_server.transports.websocket.frame_protocol import FRAMES_PER_TURN
from tocsin_server.transports.websocket.message_reader import COUNTED_BYTES, DISCARD_RATE

LIMITED = {"frame_rate": 1}
BURST = 5
PING = frame(b"", Op.PING)
CALL = {"id": 2, "presence": {"channel": "open:1"}}
ANSWER = {"id": 2, "presence": {"presence": {}}}


def limits_reached(served_node: ServedNode, limit: str) -> int:
    return served_node.node.metrics.limits_reached.counts[limit,]


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"", PING),
        (b"", frame(b"", Op.PONG)),
        (frame(b"", fin=False), frame(b"", Op.CONTINUATION, fin=False)),
        (frame(b"", fin=False), frame(b" ", Op.CONTINUATION, fin=False)),
    ],
    ids=["pings", "pongs", "empty fragments", "fragments"],
)
async def test_a_client_that_sends_too_many_frames_is_disconnected(first: bytes, again: bytes) -> None:
    """Exactly the frames of five seconds may come at once."""
    allowed = BURST - bool(first)
    async with serve_node(client=LIMITED) as served_node:
        async with served_node.tcp() as (connection, _):
            await connect(connection)
            await connection.send(first + again * allowed + close_frame(1000))
            assert (await connection.closed()).code in (1000, 1002)  # 1002: the message is not complete
        async with served_node.tcp() as (connection, _):
            await connect(connection)
            await connection.send(first + again * (allowed + 1))
            assert await connection.closed() == Close(3013, "too many requests")
        assert limits_reached(served_node, "client.frame_rate") == 1
        await served_node.until_empty()


async def test_whole_messages_do_not_count() -> None:
    async with serve_node(client=LIMITED) as served_node, served_node.tcp() as (connection, _):
        await connect(connection)
        await connection.send(commands(CALL) * (3 * BURST))
        assert await read_messages(connection, 3 * BURST) == [ANSWER] * (3 * BURST)


async def test_a_client_that_is_closed_and_goes_on_sending_is_not_read() -> None:
    """After the server's close frame only that of the client is awaited."""
    async with serve_node(client=LIMITED) as served_node, served_node.tcp() as (connection, _):
        await connect(connection)
        raw = served_node.connection
        await connection.send(commands(CONNECT) + commands(CALL) * (BURST + 2))
        await until(lambda: raw._ignores_input)
        assert raw.is_paused
        assert not raw._frames.protocol.frames.buffer
        assert (await connection.closed()).code == 3501
        assert limits_reached(served_node, "client.frame_rate") == 0


async def test_a_client_that_broke_the_protocol_and_sends_without_end_is_not_read() -> None:
    """A little more is discarded, so that the end of the connection is noticed."""
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        await connect(connection)
        raw = served_node.connection
        await connection.send(frame(b"", reserved=4))
        await until(lambda: raw._is_finishing)
        raw.data_received(bytes(round(DISCARD_RATE.burst)))
        was_paused = raw.is_paused
        raw.data_received(bytes(round(DISCARD_RATE.burst)))
        assert (was_paused, raw.is_paused) == (False, True)
        assert (await connection.closed()).code == 1002
        await served_node.until_empty()


async def test_a_large_message_after_the_close_counts_as_many_frames() -> None:
    """The first message is closed for; the second would be decoded in vain."""
    async with serve_node(client=LIMITED) as served_node, served_node.tcp() as (connection, _):
        await connect(connection)
        raw = served_node.connection
        await connection.send(commands(CONNECT) + frame(b" " * (BURST * COUNTED_BYTES)))
        await until(lambda: raw._ignores_input)
        assert (await connection.closed()).code == 3501


async def test_one_read_takes_a_few_frames_and_the_rest_has_later_turns() -> None:
    """However many frames one read brings, their order is kept and nothing is lost."""
    count = 100 * FRAMES_PER_TURN
    async with serve_node(client={"frame_rate": 0}) as served_node, served_node.tcp() as (connection, _):
        await connect(connection)
        raw = served_node.connection
        raw.data_received(PING * count + commands(CALL))
        assert len(raw._frames.protocol.frames.buffer) > len(PING) * (count - FRAMES_PER_TURN)
        assert raw.is_paused
        received = [await anext(frames) for frames in [connection.frames()] for _ in range(count + 1)]
        assert received[:count] == [(Op.PONG, b"")] * count
        assert received[count].op == Op.TEXT
        assert not raw.is_paused


async def test_what_is_unread_is_discarded_when_the_client_is_lost() -> None:
    async with serve_node(client={"frame_rate": 0}) as served_node:
        async with served_node.tcp() as (connection, writer):
            await connect(connection)
            served_node.connection.data_received(PING * 100 * FRAMES_PER_TURN)
            writer.transport.abort()
        await served_node.until_empty()
        await until(lambda: not served_node.node.reading_turns)


@pytest.mark.parametrize(
    "start",
    [
        b"\x81",
        frame(b"{" * 200)[:3],
        frame(b"{" * 200)[:50],
        frame(b"{", fin=False),
        frame(b"{", fin=False) + PING,
    ],
    ids=["one byte", "half a head", "half a frame", "a fragment", "a fragment and a ping"],
)
async def test_a_message_that_does_not_end_is_closed(start: bytes) -> None:
    async with (
        serve_node(client={"message_timeout": TICK}) as served_node,
        served_node.tcp() as (connection, _),
    ):
        await connect(connection)
        await connection.send(start)
        assert await connection.closed() == Close(1008, "message timeout")
        assert limits_reached(served_node, "client.message_timeout") == 1
        await served_node.until_empty()


async def test_each_message_has_its_own_time() -> None:
    """A client that always has the next message under way is not late."""
    message = commands(CALL)
    async with (
        serve_node(client={"message_timeout": SOON}) as served_node,
        served_node.tcp() as (connection, _),
    ):
        await connect(connection)
        raw = served_node.connection
        await connection.send(message[:10])
        await until(lambda: raw._frames._message_since)
        first = raw._frames._message_since
        await connection.send(message[10:] + message[:10])
        assert await read_messages(connection, 1) == [ANSWER]
        assert raw._frames._message_since > first
        await connection.send(message[10:])
        assert await read_messages(connection, 1) == [ANSWER]
        assert not raw._frames._message_since
