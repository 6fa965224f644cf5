"""How connections on the raw transport close, from either side."""

import json

import pytest
from structlog.testing import capture_logs

from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import ServedNode, new_channel, publish, serve_node, until
from tests.server.transports.websocket.raw_session import connect
from tests.support.raw_connection import Op, close_frame, commands, frame
from tests.support.timing import SOON, TICK
from tests.support.wire_client import Close
from tocsin_server import errors
from tocsin_server.transports.websocket import raw


async def test_commands_before_a_close_frame_are_answered_first(engine: FaultyEngine) -> None:
    """In their order, and the close frame is answered after them."""
    gate = engine.block("publish")
    async with serve_node(engine=engine) as served_node:
        async with served_node.tcp() as (connection, _):
            await connect(connection)
            publishes = [{"id": n, "publish": {"channel": "plain:bye", "data": n}} for n in (2, 3)]
            await connection.send(commands(*publishes) + close_frame(1000, b"bye"))
            await until(lambda: engine.calls["publish"])
            server_side = served_node.connection
            assert server_side._is_finishing
            assert not server_side._transport.is_closing()
            gate.set()
            frames = [received async for received in connection.frames()]
        assert [json.loads(payload) for op, payload in frames if op == Op.TEXT] == [
            {"id": n, "publish": {}} for n in (2, 3)
        ]
        assert frames[-1] == (Op.CLOSE, b"\x03\xe8bye")
        await served_node.until_empty()


async def test_a_client_that_closes_and_aborts_leaves_nothing_behind(engine: FaultyEngine) -> None:
    """The connection is lost while its last command is still in flight to the engine."""
    gate = engine.block("publish")
    async with serve_node(engine=engine) as served_node:
        async with served_node.tcp() as (connection, writer):
            await connect(connection)
            publish_command = {"id": 2, "publish": {"channel": "plain:bye", "data": 1}}
            await connection.send(commands(publish_command) + close_frame())
            await until(lambda: engine.calls["publish"])
            writer.transport.abort()
            await until(lambda: not served_node.node.state.connections)
        gate.set()
        await served_node.until_empty()


async def test_a_close_frame_without_an_answer_ends_in_a_dropped_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After CLOSE_REPLY_SECONDS; the session ends at once."""
    monkeypatch.setattr(raw, "CLOSE_REPLY_SECONDS", 2 * TICK)
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        await connect(connection)
        served_node.node.disconnect_all(errors.FORCE_DISCONNECT)
        assert not served_node.node.state.connections
        assert [received async for received in connection.frames()] == [(Op.CLOSE, b"\r\xafforce disconnect")]
        await until(lambda: not served_node.server.server_state.connections)
        await served_node.until_empty()


async def test_a_close_frame_that_is_answered_ends_the_connection(
    served_node: ServedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and no timer is left."""
    monkeypatch.setattr(raw, "CLOSE_REPLY_SECONDS", 100 * SOON)
    async with served_node.tcp() as (connection, _):
        await connect(connection)
        server_side = served_node.connection
        served_node.node.disconnect_all(errors.FORCE_DISCONNECT)
        assert await connection.closed() == Close(3503, "force disconnect")
        await until(lambda: not served_node.server.server_state.connections)
        assert server_side._abort_timer is not None
        assert server_side._abort_timer.cancelled()


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (frame(b"", 0x3), 1002),
        (frame(b"\xff"), 1007),
        (frame(b"x" * 600_000), 1009),
    ],
    ids=["an unknown opcode", "text that is not UTF-8", "a message too large"],
)
async def test_a_client_that_broke_the_protocol_reads_the_end_at_once(
    served_node: ServedNode, monkeypatch: pytest.MonkeyPatch, broken: bytes, code: int
) -> None:
    """The server ends its half, so a client that waits for the end does not wait for a time limit."""
    monkeypatch.setattr(raw, "LINGER_SECONDS", 100 * SOON)
    async with served_node.tcp() as (connection, writer):
        await connect(connection)
        with capture_logs() as lines:
            await connection.send(broken)
            async for op, payload in connection.frames():  # until the end
                assert (op, int.from_bytes(payload[:2])) == (Op.CLOSE, code)
                await connection.send(close_frame(code))
        assert [line["code"] for line in lines if line["event"] == "protocol_broken"] == [code]
        writer.close()
        await until(lambda: not served_node.server.server_state.connections)


NOT_UTF_8 = frame(b"\xff")


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (NOT_UTF_8, 1007),
        (frame(b"\xff", fin=False) + frame(b"", Op.CONTINUATION), 1007),
        (frame(b"", 0x3), 1002),
        (frame(b"x" * 600_000), 1009),
        (NOT_UTF_8 + frame(b"", 0x3), 1007),
        (NOT_UTF_8 + frame(b"\xff", Op.PING), 1007),
        (frame(b"{", fin=False), 1002),
    ],
    ids=[
        *("text", "text in fragments", "an opcode", "a size", "text and an opcode", "text and a ping"),
        "half a message",
    ],
)
async def test_the_first_fault_counts_and_not_what_follows_in_the_same_read(
    served_node: ServedNode, broken: bytes, code: int
) -> None:
    """Such as a close frame with another code (RFC 6455 §7.1.7). A ping after the fault is not answered."""
    async with served_node.tcp() as (connection, _):
        await connect(connection)
        with capture_logs() as lines:
            served_node.connection.data_received(broken + close_frame(1000))
            frames = [received async for received in connection.frames()]
        assert [(op, int.from_bytes(payload[:2])) for op, payload in frames] == [(Op.CLOSE, code)]
        assert [line["code"] for line in lines if line["event"] == "protocol_broken"] == [code]


async def test_a_refused_command_counts_before_text_that_is_not_utf_8(served_node: ServedNode) -> None:
    """And before the close frame after it: the session is over."""
    async with served_node.tcp() as (connection, _):
        await connect(connection)
        served_node.connection.data_received(commands({"id": 0}) + NOT_UTF_8 + close_frame(1000))
        assert (await connection.closed()).code == 3501


async def test_no_message_follows_the_close_frame(served_node: ServedNode) -> None:
    """Neither replies to later commands nor publications."""
    channel = new_channel("log")
    async with served_node.tcp() as (connection, _):
        await connect(connection, {"id": 2, "subscribe": {"channel": channel}})
        served_node.node.disconnect_all(errors.FORCE_DISCONNECT)
        await publish(served_node.node, channel, b"1")
        await connection.send(commands({"id": 3, "publish": {"channel": channel, "data": 2}}))
        await connection.send(frame(b"", Op.PING))
        await connection.send(close_frame(3503))
        assert [op async for op, _ in connection.frames()] == [Op.CLOSE, Op.PONG], "no text"
