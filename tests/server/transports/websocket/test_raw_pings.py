"""Ping frames in place of the protocol's pings, where the handshake chooses them (protocol §1)."""

from typing import Any

from tests.server.served_node import serve_node
from tests.server.transports.websocket.raw_session import CONNECT, connect, read_messages
from tests.support.raw_connection import HANDSHAKE, Op, RawConnection, commands, frame
from tests.support.timing import TICK
from tests.support.wire_client import Close

PING_FRAMES_HANDSHAKE = HANDSHAKE.replace(b" HTTP/1.1", b"?cf_ws_frame_ping_pong=true HTTP/1.1")


async def connect_with_ping_frames(connection: RawConnection) -> Any:
    """Upgrade and connect; the connect result."""
    await connection.send(PING_FRAMES_HANDSHAKE)
    assert await connection.response() == 101
    await connection.send(commands(CONNECT))
    (reply,) = await read_messages(connection, 1)
    return reply["connect"]


async def test_ping_frames_keep_a_connection_that_answers_them() -> None:
    """They replace `{}`, and the connect result announces no pings."""
    async with serve_node(client={"ping_interval": 8 * TICK, "pong_timeout": 7 * TICK}) as served_node:
        async with served_node.tcp() as (connection, _):
            result = await connect_with_ping_frames(connection)
            assert not {"ping", "pong"} & result.keys()
            pings = 0
            async for op, payload in connection.frames():
                assert op == Op.PING
                await connection.send(frame(payload, Op.PONG) + frame(b"unasked", Op.PONG))
                pings += 1
                if pings == 3:
                    break
        await served_node.until_empty()


async def test_a_client_that_does_not_answer_ping_frames_is_disconnected() -> None:
    """With 3012, as for the protocol's pings."""
    async with serve_node(client={"ping_interval": 2 * TICK, "pong_timeout": TICK}) as served_node:
        async with served_node.tcp() as (connection, _):
            await connect_with_ping_frames(connection)
            assert await connection.closed() == Close(3012, "no pong")
        await served_node.until_empty()


async def test_a_pong_frame_does_not_answer_a_ping_of_the_protocol() -> None:
    """Where the protocol's pings are announced, only `{}` counts."""
    short_timeouts_server = {"ping_interval": 2 * TICK, "pong_timeout": TICK}
    async with serve_node(client=short_timeouts_server) as served_node, served_node.tcp() as (connection, _):
        (reply,) = await connect(connection)
        assert reply["connect"]["pong"] is True
        async for op, payload in connection.frames():
            await connection.send(frame(b"", Op.PONG))
            if op == Op.CLOSE:
                await connection.send(frame(payload, Op.CLOSE))
        assert (op, payload) == (Op.CLOSE, b"\x0b\xc4no pong")
