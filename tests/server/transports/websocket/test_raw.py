"""WebSockets on the raw transport: how they are read, what they cost, and TLS."""

import asyncio
import sys
from contextlib import AsyncExitStack

import pytest

from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import (
    ServedNode,
    new_channel,
    publish,
    serve_node,
    serve_node_over_tls,
    trusting,
    until,
)
from tests.server.transports.websocket.raw_session import connect, read_messages
from tests.support.raw_connection import Op, close_frame, commands, frame
from tests.support.timing import TICK
from tests.support.wire_client import Close
from tocsin_server import errors

# ---------------------------------------------------------------------------------------------------- reading


async def test_reading_pauses_while_commands_are_in_flight_to_the_engine(engine: FaultyEngine) -> None:
    """A client that sends faster than the engine answers fills its own buffers, not the server's memory."""
    gate = engine.block("publish")
    async with serve_node(engine=engine) as served_node:
        async with served_node.tcp() as (connection, writer):
            await connect(connection)
            writer.transport.set_write_buffer_limits(0)
            publish_command = {"publish": {"channel": "plain:much", "data": "x" * 20_000}}
            sent = 1
            while sent < 10_000:
                sent += 1
                writer.write(commands({"id": sent, **publish_command}))
                try:
                    await asyncio.wait_for(writer.drain(), 3 * TICK)
                except TimeoutError:  # the server has stopped reading
                    break
            assert sent < 10_000, "more than 200 MB were read"
            assert len(served_node.connection.session.backlog) < 20, "at most as many as one read brings"
            assert engine.calls["publish"] == 1
            gate.set()
            replies = [message["id"] for message in await read_messages(connection, sent - 1)]
            assert replies == list(range(2, sent + 1))
        await served_node.until_empty()


async def test_a_client_that_is_lost_while_reading_is_paused_leaves_nothing_behind(
    engine: FaultyEngine,
) -> None:
    """The loss is noticed at the latest when a reply is written."""
    gate = engine.block("publish")
    async with serve_node(engine=engine) as served_node:
        async with served_node.tcp() as (connection, writer):
            await connect(connection)
            publishes = [{"id": n, "publish": {"channel": "plain:lost", "data": n}} for n in (2, 3)]
            await connection.send(commands(*publishes))
            await until(lambda: engine.calls["publish"])
            writer.transport.abort()
        gate.set()
        await served_node.until_empty()


@pytest.mark.parametrize("fragment", [b"", b" "], ids=["empty", "a byte each"])
async def test_fragments_take_only_the_memory_of_their_bytes(fragment: bytes) -> None:
    """The size limit of a message does not count its frames, so their number must not matter."""
    many = 10_000
    pieces = frame(fragment, Op.CONTINUATION, fin=False) * many
    async with (
        serve_node(client={"frame_rate": 0}) as served_node,
        served_node.tcp() as (connection, _),
    ):
        await connect(connection)
        await connection.send(frame(b'{"id": 2,', fin=False) + pieces + frame(b"all?", Op.PING))
        async for received in connection.frames():
            assert received == (Op.PONG, b"all?")
            break
        assert sys.getsizeof(served_node.connection._frames._fragments) < 1000 + 2 * len(fragment) * many
        await connection.send(frame(b'"presence": {"channel": "open:1"}}', Op.CONTINUATION))
        assert await read_messages(connection, 1) == [{"id": 2, "presence": {"presence": {}}}]
        assert sys.getsizeof(served_node.connection._frames._fragments) < 1000
        await connection.send(commands({"id": 3, "presence": {"channel": "open:1"}}))
        assert await read_messages(connection, 1) == [{"id": 3, "presence": {"presence": {}}}]


async def test_a_ping_within_a_message_is_answered_before_the_message(served_node: ServedNode) -> None:
    """Also if the ping and the rest of the message arrive in one segment."""
    first, rest = b'{"id": 2, "presence": ', b'{"channel": "open:1"}}'
    async with served_node.tcp() as (connection, _):
        await connect(connection)
        await connection.send(
            frame(first, fin=False)
            + frame(b"within", Op.PING)
            + frame(rest, Op.CONTINUATION)
            + frame(b"later", Op.PING)
            + close_frame()
        )
        received = [(op, payload) async for op, payload in connection.frames()]
    assert received[0] == (Op.PONG, b"within")
    assert {(op, payload) for op, payload in received if op == Op.PONG} == {
        (Op.PONG, b"within"),
        (Op.PONG, b"later"),
    }
    assert received[-1][0] == Op.CLOSE


# ------------------------------------------------------------------------------------------------------- cost


async def test_a_connection_has_no_task_of_its_own(served_node: ServedNode) -> None:
    """Idle or written to: a task for each of many clients is what this transport saves."""
    channel = new_channel("plain")
    tasks = len(asyncio.all_tasks())
    async with AsyncExitStack() as stack:
        clients = [(await stack.enter_async_context(served_node.tcp()))[0] for _ in range(50)]
        subscribe = {"id": 2, "subscribe": {"channel": channel}}
        await asyncio.gather(*(connect(connection, subscribe) for connection in clients))
        await publish(served_node.node, channel, b"1")
        for connection in clients:
            assert await read_messages(connection, 1) == [{"push": {"channel": channel, "pub": {"data": 1}}}]
        await until(lambda: len(asyncio.all_tasks()) - tasks < len(clients))


async def test_messages_are_not_compressed(served_node: ServedNode) -> None:
    """Not even for a client that offers it: each frame is built once for all subscribers."""
    async with served_node.wire(compression="deflate") as wire:
        request, response = wire.connection.request, wire.connection.response
        assert request is not None
        assert response is not None
        assert "permessage-deflate" in request.headers["Sec-WebSocket-Extensions"]
        assert "Sec-WebSocket-Extensions" not in response.headers
        await wire.connect()


# -------------------------------------------------------------------------------------------------- reachable


async def test_a_plain_request_for_the_path_is_a_bad_request(served_node: ServedNode) -> None:
    async with served_node.http() as http:
        response = await http.get("/connection/websocket")
    assert response.status_code == 400


async def test_websockets_over_tls_work_the_same(certificate: tuple[str, str]) -> None:
    """Two clients at once, a burst, and a close that both sides send."""
    channel = new_channel("log")
    payload = b'"' + b"x" * 30_000 + b'"'
    async with serve_node_over_tls(*certificate) as served_node:
        context = trusting(certificate[0])
        async with served_node.wire(ssl=context) as one, served_node.wire(ssl=context) as two:
            for wire in (one, two):
                await wire.connect()
                await wire.call("subscribe", channel=channel)
            await publish(served_node.node, channel, *([payload] * 50))
            for wire in (one, two):
                assert await wire.offsets(channel, 50) == list(range(1, 51))
            served_node.node.disconnect_all(errors.FORCE_DISCONNECT)
            assert await one.closed() == await two.closed() == Close(3503, "force disconnect")
        await served_node.until_empty()
