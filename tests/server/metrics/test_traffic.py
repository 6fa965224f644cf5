"""Metrics of traffic: bytes, fan-out, ages, recoveries and queues."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.server.metrics.metrics_page import of
from tests.server.node.fake_connection import connected, running
from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import ServedNode, is_settled, new_channel, publish, serve_node, until
from tests.support.raw_connection import commands, frame
from tests.support.timing import SOON
from tocsin_server.errors import SHUTDOWN

BIG = b'"' + b"x" * 60_000 + b'"'


async def test_bytes_are_counted_as_on_the_wire() -> None:
    """Received bytes are messages without frames. Sent bytes are frames, once for each subscriber."""
    async with serve_node() as served_node, served_node.tcp() as (one, _), served_node.tcp() as (other, _):
        requests: list[Any] = [{"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "plain:1"}}]
        got = 0
        for connection in (one, other):
            await connection.upgrade()
            await connection.send(commands(*requests))
        await until(lambda: of(served_node.node)["tocsin_subscriptions"] == 2)
        await publish(served_node.node, "plain:1", b'"a message"')
        await until(lambda: is_settled(served_node.node))
        received = len("\n".join(map(json.dumps, requests)))
        assert of(served_node.node)["tocsin_received_bytes_total"] == 2 * received
        sent = of(served_node.node)["tocsin_sent_bytes_total"]
        for connection in (one, other):
            async for op, payload in connection.frames():
                got += len(frame(payload, op, masked=False))
                if b"a message" in payload:
                    break
        assert sent == got


async def test_bytes_of_event_streams_are_counted() -> None:
    """The count is exact without history: the positions in events that streams share are left out."""
    async with (
        serve_node() as served_node,
        served_node.http() as http,
        http.stream("GET", "/events", params={"channel": "plain:1"}) as stream,
    ):
        chunks = stream.aiter_bytes()
        text = await anext(chunks)
        await publish(served_node.node, "plain:1", b'"a message"')
        async with asyncio.timeout(SOON):
            while b"a message" not in text:
                text += await anext(chunks)
        assert of(served_node.node)["tocsin_sent_bytes_total"] == len(text)


async def test_fanout_and_age_are_observed_once_for_each_batch() -> None:
    """The number of subscribers does not matter. Without subscribers there is no observation."""
    async with running() as node:
        for _ in range(3):
            await connected(node, "log:1", "plain:1")
        await publish(node, "log:1", b"1", b"2")
        await publish(node, "plain:1", b"1")
        await publish(node, "plain:empty", b"1")
        await until(lambda: node.fan_out.is_idle)
        samples = of(node)
        for name in ("tocsin_fanout_seconds", "tocsin_publish_to_socket_seconds"):
            assert samples[f"{name}_count"] == 2
            assert samples[f"{name}_bucket{{le=+Inf}}"] == 2
            assert 0 < samples[f"{name}_sum"] < SOON
        assert samples["tocsin_publish_to_socket_seconds_sum"] > samples["tocsin_fanout_seconds_sum"]


async def test_time_in_a_queue_adds_to_the_age() -> None:
    """The age includes the time that a publication waits for the event loop."""
    async with running() as node:
        await connected(node, "plain:1")
        await publish(node, "plain:1", b"1")
        busy = asyncio.get_running_loop().time() + 0.06
        while asyncio.get_running_loop().time() < busy:
            pass
        await until(lambda: node.fan_out.is_idle)
        samples = of(node)
        assert samples["tocsin_publish_to_socket_seconds_sum"] >= 0.05
        assert samples["tocsin_publish_to_socket_seconds_bucket{le=0.05}"] == 0
        assert samples["tocsin_fanout_seconds_sum"] < samples["tocsin_publish_to_socket_seconds_sum"]


def recoveries(served_node: ServedNode) -> dict[str, float]:
    start = "tocsin_recoveries_total"
    return {
        name[len(start) :]: value for name, value in of(served_node.node).items() if name.startswith(start)
    }


async def test_recoveries_over_websockets_are_counted_by_outcome() -> None:
    """Recovered, not recovered, or refused at the client's request. A first subscription does not count."""
    news = new_channel("log")
    async with serve_node() as served_node, served_node.connected(news) as first:
        position = await first.call("history", channel=news)
        await publish(served_node.node, news, b"1", b"2", b"3")
        returning = {"channel": news, "recover": True, "offset": 0, "epoch": position["epoch"]}
        for _ in range(2):
            async with served_node.connected() as wire:
                assert (await wire.call("subscribe", **returning))["recovered"]
        async with served_node.connected() as wire:
            assert "recovered" not in await wire.call("subscribe", **{**returning, "epoch": "another"})
        async with served_node.connected() as wire:
            with pytest.raises(Exception, match="unrecoverable"):
                await wire.call("subscribe", **{**returning, "epoch": "another", "flag": 2})
        assert recoveries(served_node) == {
            "{outcome=recovered,transport=websocket}": 2,
            "{outcome=not_recovered,transport=websocket}": 1,
            "{outcome=refused,transport=websocket}": 1,
        }
        assert of(served_node.node)["tocsin_recovered_publications_total"] == 6


async def test_recoveries_of_event_streams_are_counted_by_outcome() -> None:
    """Each channel of a request counts."""
    one, other, third = (new_channel("log") for _ in range(3))
    async with serve_node() as served_node, served_node.http() as http:
        await publish(served_node.node, one, b"1", b"2")
        position = await publish(served_node.node, other, b"1")
        epoch = (await served_node.node.operations.history(one, 0, None, False)).epoch
        lost = f"{position.offset}@another"
        query: Any = {"channel": [one, other, third], "last_event_id": f"1@{epoch},{lost},{lost}"}
        async with http.stream("GET", "/events", params=query) as stream:
            assert stream.status_code == 200
            assert recoveries(served_node) == {
                "{outcome=recovered,transport=sse}": 1,
                "{outcome=not_recovered,transport=sse}": 2,
            }
            assert of(served_node.node)["tocsin_recovered_publications_total"] == 1


@pytest.mark.parametrize("kind", ["websocket", "sse"])
async def test_bytes_queued_for_clients_are_measured(kind: str) -> None:
    """Bytes are queued once the kernel's buffers are full."""
    async with serve_node() as served_node, AsyncExitStack() as stack:
        connection, _ = await stack.enter_async_context(served_node.tcp(receive_buffer=2048))
        if kind == "websocket":
            await connection.upgrade()
            await connection.send(
                commands({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "plain:1"}})
            )
        else:
            await connection.send(b"GET /events?channel=plain:1 HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(lambda: of(served_node.node)["tocsin_subscriptions"] == 1)
        _shrink_send_buffers(served_node)
        before = of(served_node.node)["tocsin_queued_bytes{queue=clients}"]
        assert before < len(BIG)
        for _ in range(10):
            await publish(served_node.node, "plain:1", BIG)
        await until(lambda: is_settled(served_node.node))
        assert of(served_node.node)["tocsin_queued_bytes{queue=clients}"] > len(BIG)


def _shrink_send_buffers(served_node: ServedNode) -> None:
    connections: set[Any] = served_node.server.server_state.connections
    for connection in connections:
        transport = getattr(connection, "transport", None) or connection._transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


async def test_bytes_queued_in_channels_are_measured() -> None:
    """They are queued until the fan-out, which never begins during a publish."""
    async with running() as node:
        await connected(node, "plain:1")
        await publish(node, "plain:1", BIG)
        assert of(node)["tocsin_queued_bytes{queue=channels}"] > len(BIG)
        await until(lambda: node.fan_out.is_idle)
        assert of(node)["tocsin_queued_bytes{queue=channels}"] == 0


async def test_bytes_held_while_a_client_subscribes_are_measured() -> None:
    """The subscription waits for the presence store."""
    engine, news = FaultyEngine(), new_channel("open")
    async with running(engine) as node:
        connection = await connected(node)
        gate = engine.block("add")
        connection.send_command("subscribe", channel=news)
        await until(lambda: engine.calls["add"])
        await publish(node, news, BIG)
        assert of(node)["tocsin_queued_bytes{queue=subscribing}"] == len(BIG)
        gate.set()
        await until(lambda: connection.reply(2))
        assert of(node)["tocsin_queued_bytes{queue=subscribing}"] == 0


async def test_calls_to_the_engine_are_timed_by_call() -> None:
    """Every call of the engine has a label of its own."""
    engine = FaultyEngine()
    async with running(engine) as node:
        connection = await connected(node, "open:1")
        await connection.call("publish", channel="open:1", data=1)
        for method in ("presence", "presence_stats", "history"):
            await connection.call(method, channel="open:1")
        await node.operations.nodes()
        await node.operations.remove_history("open:1")
        node.disconnect_all(SHUTDOWN)
        await until(lambda: is_settled(node))
        samples = of(node)
        calls = [
            "publish",
            "publish_join_leave",
            "subscribe",
            "unsubscribe",
            "read_history",
            "remove_history",
            "survey",
        ]
        calls += ["presence_add", "presence_remove", "presence_members", "presence_stats"]
        for call in calls:
            assert samples[f"tocsin_engine_call_seconds_count{{call={call}}}"] >= 1, call
            assert samples[f"tocsin_engine_call_seconds_sum{{call={call}}}"] > 0, call


async def test_the_page_has_the_name_of_a_node_and_whether_it_drains() -> None:
    async with serve_node(server={"name": "here"}) as served_node:
        samples = of(served_node.node)
        assert [name for name in samples if name.startswith("tocsin_node_info{name=here,version=")]
        assert samples["tocsin_draining"] == 0
        assert samples["tocsin_engine_ready"] == 1
        assert samples["process_open_fds"] > 0
        await served_node.node.drain(0, lambda: True)
        assert of(served_node.node)["tocsin_draining"] == 1
