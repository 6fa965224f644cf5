"""Metrics of what travels: bytes, rounds, ages, recoveries and queues, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.server.metrics.metrics_page import of
from tests.server.node.fake_connection import joined, running
from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import House, housed, is_settled, new_channel, publish, until
from tests.support.raw_connection import commands, frame
from tests.support.timing import SOON
from tocsin_server.errors import SHUTDOWN

BIG = b'"' + b"x" * 60_000 + b'"'


async def test_bytes_are_those_on_the_wire() -> None:
    """Received: the messages, without their frames. Sent: whole frames, shared ones for each who got them."""
    async with housed() as house, house.tcp() as (one, _), house.tcp() as (other, _):
        hello: list[Any] = [{"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "plain:1"}}]
        got = 0
        for connection in (one, other):
            await connection.upgrade()
            await connection.send(commands(*hello))
        await until(lambda: of(house.node)["tocsin_subscriptions"] == 2)
        await publish(house.node, "plain:1", b'"hear this"')
        await until(lambda: is_settled(house.node))
        said = len("\n".join(map(json.dumps, hello)))
        assert of(house.node)["tocsin_received_bytes_total"] == 2 * said
        sent = of(house.node)["tocsin_sent_bytes_total"]
        for connection in (one, other):
            async for op, payload in connection.frames():
                got += len(frame(payload, op, masked=False))
                if b"hear this" in payload:
                    break
        assert sent == got


async def test_the_bytes_of_event_streams_are_counted_too() -> None:
    """Exactly, where the channel keeps no log; ids of positions in events that many share are left out."""
    async with (
        housed() as house,
        house.http() as http,
        http.stream("GET", "/events", params={"channel": "plain:1"}) as stream,
    ):
        chunks = stream.aiter_bytes()
        text = await anext(chunks)
        await publish(house.node, "plain:1", b'"hear this"')
        async with asyncio.timeout(SOON):
            while b"hear this" not in text:
                text += await anext(chunks)
        assert of(house.node)["tocsin_sent_bytes_total"] == len(text)


async def test_rounds_and_ages_are_timed() -> None:
    """One of each for a batch, however many hear it; none where nobody does."""
    async with running() as node:
        for _ in range(3):
            await joined(node, "log:1", "plain:1")
        await publish(node, "log:1", b"1", b"2")
        await publish(node, "plain:1", b"1")
        await publish(node, "plain:nobody", b"1")
        await until(lambda: node.fan_out.is_idle)
        samples = of(node)
        for name in ("tocsin_round_seconds", "tocsin_publish_to_socket_seconds"):
            assert samples[f"{name}_count"] == 2
            assert samples[f"{name}_bucket{{le=+Inf}}"] == 2
            assert 0 < samples[f"{name}_sum"] < SOON
        assert samples["tocsin_publish_to_socket_seconds_sum"] > samples["tocsin_round_seconds_sum"]


async def test_what_waits_adds_to_the_age() -> None:
    """A publication that had to wait for the loop is as old as it is when it is written."""
    async with running() as node:
        await joined(node, "plain:1")
        await publish(node, "plain:1", b"1")
        busy = asyncio.get_running_loop().time() + 0.06
        while asyncio.get_running_loop().time() < busy:
            pass
        await until(lambda: node.fan_out.is_idle)
        samples = of(node)
        assert samples["tocsin_publish_to_socket_seconds_sum"] >= 0.05
        assert samples["tocsin_publish_to_socket_seconds_bucket{le=0.05}"] == 0
        assert samples["tocsin_round_seconds_sum"] < samples["tocsin_publish_to_socket_seconds_sum"]


def recoveries(house: House) -> dict[str, float]:
    start = "tocsin_recoveries_total"
    return {name[len(start) :]: value for name, value in of(house.node).items() if name.startswith(start)}


async def test_recoveries_over_websockets_are_counted_by_their_end() -> None:
    """Recovered, not recovered, or refused because the client had rather be; first subscriptions are none."""
    news = new_channel("log")
    async with housed() as house, house.connected(news) as first:
        position = await first.call("history", channel=news)
        await publish(house.node, news, b"1", b"2", b"3")
        returning = {"channel": news, "recover": True, "offset": 0, "epoch": position["epoch"]}
        for _ in range(2):
            async with house.connected() as wire:
                assert (await wire.call("subscribe", **returning))["recovered"]
        async with house.connected() as wire:
            assert "recovered" not in await wire.call("subscribe", **{**returning, "epoch": "another"})
        async with house.connected() as wire:
            with pytest.raises(Exception, match="unrecoverable"):
                await wire.call("subscribe", **{**returning, "epoch": "another", "flag": 2})
        assert recoveries(house) == {
            "{outcome=recovered,transport=websocket}": 2,
            "{outcome=not_recovered,transport=websocket}": 1,
            "{outcome=refused,transport=websocket}": 1,
        }
        assert of(house.node)["tocsin_recovered_publications_total"] == 6


async def test_recoveries_of_event_streams_are_counted_by_their_end() -> None:
    """Each channel of its request is one."""
    one, other, third = (new_channel("log") for _ in range(3))
    async with housed() as house, house.http() as http:
        await publish(house.node, one, b"1", b"2")
        position = await publish(house.node, other, b"1")
        epoch = (await house.node.operations.history(one, 0, None, False)).epoch
        lost = f"{position.offset}@another"
        query: Any = {"channel": [one, other, third], "last_event_id": f"1@{epoch},{lost},{lost}"}
        async with http.stream("GET", "/events", params=query) as stream:
            assert stream.status_code == 200
            assert recoveries(house) == {
                "{outcome=recovered,transport=sse}": 1,
                "{outcome=not_recovered,transport=sse}": 2,
            }
            assert of(house.node)["tocsin_recovered_publications_total"] == 1


@pytest.mark.parametrize("kind", ["websocket", "sse"])
async def test_what_waits_for_peers_is_seen(kind: str) -> None:
    """As soon as the kernel's buffers are full."""
    async with housed() as house, AsyncExitStack() as stack:
        connection, _ = await stack.enter_async_context(house.tcp(receive_buffer=2048))
        if kind == "websocket":
            await connection.upgrade()
            await connection.send(
                commands({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "plain:1"}})
            )
        else:
            await connection.send(b"GET /events?channel=plain:1 HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(lambda: of(house.node)["tocsin_subscriptions"] == 1)
        _shrink_send_buffers(house)
        before = of(house.node)["tocsin_queue_bytes{place=peers}"]
        assert before < len(BIG)
        for _ in range(10):
            await publish(house.node, "plain:1", BIG)
        await until(lambda: is_settled(house.node))
        assert of(house.node)["tocsin_queue_bytes{place=peers}"] > len(BIG)


def _shrink_send_buffers(house: House) -> None:
    connections: set[Any] = house.server.server_state.connections
    for connection in connections:
        transport = getattr(connection, "transport", None) or connection._transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


async def test_what_waits_in_channels_is_seen() -> None:
    """Until its round begins, which is never in the midst of a publish."""
    async with running() as node:
        await joined(node, "plain:1")
        await publish(node, "plain:1", BIG)
        assert of(node)["tocsin_queue_bytes{place=channels}"] > len(BIG)
        await until(lambda: node.fan_out.is_idle)
        assert of(node)["tocsin_queue_bytes{place=channels}"] == 0


async def test_what_is_held_for_newcomers_is_seen() -> None:
    """While they are being made present, here."""
    engine, news = FaultyEngine(), new_channel("open")
    async with running(engine) as node:
        peer = await joined(node)
        gate = engine.hold("add")
        peer.say("subscribe", channel=news)
        await until(lambda: engine.calls["add"])
        await publish(node, news, BIG)
        assert of(node)["tocsin_queue_bytes{place=newcomers}"] == len(BIG)
        gate.set()
        await until(lambda: peer.reply(2))
        assert of(node)["tocsin_queue_bytes{place=newcomers}"] == 0


async def test_calls_to_the_engine_are_timed_by_name() -> None:
    """Those that fail, too."""
    engine = FaultyEngine()
    async with running(engine) as node:
        peer = await joined(node, "open:1")
        await peer.call("publish", channel="open:1", data=1)
        for question in ("presence", "presence_stats", "history"):
            await peer.call(question, channel="open:1")
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


async def test_a_node_says_who_it_is_and_that_it_drains() -> None:
    async with housed(server={"name": "here"}) as house:
        samples = of(house.node)
        assert [name for name in samples if name.startswith("tocsin_node_info{name=here,version=")]
        assert samples["tocsin_draining"] == 0
        assert samples["tocsin_engine_ready"] == 1
        assert samples["process_open_fds"] > 0
        await house.node.drain(0, lambda: True)
        assert of(house.node)["tocsin_draining"] == 1
