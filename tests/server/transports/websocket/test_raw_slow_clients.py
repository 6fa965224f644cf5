"""Slow clients on the raw transport are disconnected at the queue limit, and delay no other client."""

import asyncio
import json
from itertools import count

import pytest

from tests.server.served_node import ServedNode, new_channel, publish, serve_node, until
from tests.server.transports.websocket.raw_session import connect, read_messages
from tests.support.raw_connection import Op, frame
from tests.support.timing import TICK
from tests.support.wire_client import Close
from tocsin_server.core.channel import BATCH_BYTES
from tocsin_server.transports.websocket import raw
from tocsin_server.transports.websocket.raw import WebSocketConnection

LIMIT = 200_000
PAYLOAD = b'"' + b"x" * 30_000 + b'"'


async def flood(served_node: ServedNode, slow: WebSocketConnection, channel: str) -> int:
    """Publish until the slow client is disconnected. Returns the last offset.

    Another client receives each publication before the next is published.
    """
    async with served_node.connected(channel) as quick:
        for number in count(1):
            await publish(served_node.node, channel, PAYLOAD)
            assert await quick.offsets(channel, 1) == [number]
            assert slow._transport.get_write_buffer_size() <= LIMIT + BATCH_BYTES
            if slow not in served_node.node.state.connections:
                assert await served_node.node.engine.presence.stats(channel) == (1, 1), (
                    "its presence ends at once"
                )
                return (await publish(served_node.node, channel, b"1", b"2")).offset
    raise AssertionError


async def test_a_slow_client_is_disconnected_delays_no_other_client_and_recovers_everything() -> None:
    """At `queue_limit_bytes` it is sent 3008, after everything before it; then it recovers the rest."""
    channel = new_channel("open")
    async with serve_node(client={"queue_limit_bytes": LIMIT}) as served_node:
        async with served_node.tcp(receive_buffer=8192) as (connection, _):
            _, reply = await connect(connection, {"id": 2, "subscribe": {"channel": channel}})
            last = await flood(served_node, served_node.connection, channel)
            offsets, close = [0], Close(0, "")
            async for op, payload in connection.frames():
                if op == Op.CLOSE:
                    close = Close(int.from_bytes(payload[:2]), payload[2:].decode())
                    await connection.send(frame(payload, Op.CLOSE))
                else:
                    pushes = [json.loads(line)["push"] for line in payload.split(b"\n")]
                    offsets += [push["pub"]["offset"] for push in pushes if "pub" in push]
        assert close == Close(3008, "slow")
        assert offsets == list(range(len(offsets))), "without a gap"
        assert 0 < offsets[-1] < last
        async with served_node.connected() as wire:
            position = {"recover": True, "offset": offsets[-1], "epoch": reply["subscribe"]["epoch"]}
            result = await wire.call("subscribe", channel=channel, **position)
        assert result["recovered"] is True
        missed = [publication["offset"] for publication in result["publications"]]
        assert missed == list(range(offsets[-1] + 1, last + 1))
        await served_node.until_empty()


async def test_a_slow_client_that_never_reads_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its close frame is queued behind bytes that it does not read, so the connection is aborted."""
    monkeypatch.setattr(raw, "CLOSE_REPLY_SECONDS", TICK)
    channel = new_channel("open")
    async with serve_node(client={"queue_limit_bytes": LIMIT}) as served_node:
        async with served_node.tcp(receive_buffer=8192) as (connection, _):
            await connect(connection, {"id": 2, "subscribe": {"channel": channel}})
            await flood(served_node, served_node.connection, channel)
            await until(lambda: not served_node.server.server_state.connections)
        await served_node.until_empty()


async def test_a_burst_disconnects_no_client_that_reads(served_node: ServedNode) -> None:
    """As many bytes as may be queued for a client, published at once, arrive complete."""
    channel = new_channel("log")
    async with served_node.connected(channel) as wire:
        await asyncio.gather(*(publish(served_node.node, channel, PAYLOAD) for _ in range(34)))
        assert await wire.offsets(channel, 34) == list(range(1, 35))


async def test_one_publication_larger_than_the_queue_limit_does_not_make_its_subscriber_slow() -> None:
    """Nor does a small one after it: the client may still be reading."""
    channel = new_channel("log")
    large = b'"' + b"x" * 5_000_000 + b'"'
    async with serve_node(client={"queue_limit_bytes": LIMIT}) as served_node:
        async with served_node.tcp(receive_buffer=8192) as (connection, _):
            await connect(connection, {"id": 2, "subscribe": {"channel": channel}})
            await publish(served_node.node, channel, large)
            await until(lambda: served_node.connection.is_behind)
            await publish(served_node.node, channel, b"2")
            received = await read_messages(connection, 2)
        assert [message["push"]["pub"]["offset"] for message in received] == [1, 2]
        await served_node.until_empty()


async def test_a_second_large_publication_makes_a_client_slow_that_reads_nothing() -> None:
    """One is exempt from the limit, so the queue is bounded."""
    channel = new_channel("log")
    large = b'"' + b"x" * 5_000_000 + b'"'
    async with serve_node(client={"queue_limit_bytes": LIMIT}) as served_node:
        async with served_node.tcp(receive_buffer=8192) as (connection, _):
            await connect(connection, {"id": 2, "subscribe": {"channel": channel}})
            await publish(served_node.node, channel, large)
            await until(lambda: served_node.connection.is_behind)
            await publish(served_node.node, channel, large)
            await until(lambda: not served_node.node.state.connections)
        await served_node.until_empty()


async def test_a_recovery_may_be_larger_than_the_queue_limit() -> None:
    """It comes in pages: the first in the reply, the others as pushes, each once the client has taken one."""
    channel = new_channel("log")
    async with serve_node(client={"queue_limit_bytes": LIMIT, "recovery_page_bytes": 70_000}) as served_node:
        await publish(served_node.node, channel, *[PAYLOAD] * 100)
        async with served_node.tcp(receive_buffer=8192) as (connection, _):
            position = {"recover": True, "offset": 0, "epoch": ""}
            _, reply = await connect(connection, {"id": 2, "subscribe": {"channel": channel, **position}})
            assert reply["subscribe"]["recovered"] is True
            first = [publication["offset"] for publication in reply["subscribe"]["publications"]]
            assert first == [1, 2]
            pushes = await read_messages(connection, 98)
            assert [push["push"]["pub"]["offset"] for push in pushes] == list(range(3, 101))
            await publish(served_node.node, channel, b"1")
            (push,) = await read_messages(connection, 1)
            assert push["push"]["pub"] == {"data": 1, "offset": 101}
        await served_node.until_empty()


async def test_a_client_that_floods_with_pings_and_reads_nothing_is_slow() -> None:
    """Pongs are queued too. Past the limit the client is slow."""
    async with serve_node(client={"queue_limit_bytes": LIMIT}) as served_node:
        async with served_node.tcp(receive_buffer=8192) as (connection, writer):
            await connect(connection)
            pings = frame(b"x" * 125, Op.PING) * 1000
            while served_node.node.state.connections:
                writer.write(pings)
                await asyncio.sleep(0)
        await served_node.until_empty()
