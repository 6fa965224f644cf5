"""Metrics: what a node counts is what happened, and each node counts for itself."""

from __future__ import annotations

import asyncio

from tests.server.metrics.metrics_page import of, read
from tests.server.node.fake_connection import joined, running
from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import House, housed, publish, until
from tests.support.raw_connection import HANDSHAKE, Op, commands
from tocsin_server import errors
from tocsin_server.errors import Disconnect, EngineError
from tocsin_server.metrics.registry import Metrics


async def test_connections_are_counted_while_they_are_open() -> None:
    """By transport, over real sockets; afterwards there are none."""
    async with housed() as house:
        async with (
            house.connected(),
            house.connected("open:1"),
            house.http() as http,
            http.stream("GET", "/events", params={"channel": "open:2"}),
        ):
            samples = of(house.node)
            assert samples["tocsin_connections{transport=websocket}"] == 2
            assert samples["tocsin_connections{transport=sse}"] == 1
            assert samples["tocsin_channels"] == 2
            assert samples["tocsin_subscriptions"] == 2
            assert samples["tocsin_users"] == 1, "nameless ones are one"
        await until(lambda: not house.node._connections)
        samples = of(house.node)
        assert samples["tocsin_connections{transport=websocket}"] == 0
        assert samples["tocsin_connections{transport=sse}"] == 0
        assert samples["tocsin_channels"] == 0


async def test_publications_and_deliveries_are_counted() -> None:
    """One publication to three subscribers is one and three; one to nobody is one and none."""
    async with running() as node:
        for _ in range(3):
            await joined(node, "plain:1")
        await publish(node, "plain:1", b"1", b"2")
        await publish(node, "plain:nobody", b"1")
        await until(lambda: node.fan_out.is_idle)
        samples = of(node)
        assert samples["tocsin_publications_total"] == 3
        assert samples["tocsin_deliveries_total"] == 6


async def test_closes_are_counted_by_their_code() -> None:
    """Those the node decided, not those who just left."""
    async with running() as node:
        for _ in range(2):
            await joined(node)
        node.disconnect_all(errors.FORCE_DISCONNECT)
        (await joined(node)).lose()
        bad = await joined(node)
        bad.say_all({"id": 9, "connect": {}})
        closes = {name: value for name, value in of(node).items() if name.startswith("tocsin_closes_total")}
        assert closes == {"tocsin_closes_total{code=3503}": 2, "tocsin_closes_total{code=3501}": 1}


async def test_codes_that_an_application_made_up_are_counted_as_one() -> None:
    """However many different ones it gives to the API: labels are of the server's own table."""
    async with running() as node:
        for code in (4000, 4001, 4999):
            await joined(node)
            node.disconnect_all(Disconnect(code, "because"))
        closes = {name: value for name, value in of(node).items() if name.startswith("tocsin_closes_total")}
        assert closes == {"tocsin_closes_total{code=other}": 3}


async def test_failures_of_the_engine_are_counted() -> None:
    engine = FaultyEngine()
    async with running(engine) as node:
        peer = await joined(node)
        engine.failing |= dict.fromkeys(["publish", "subscribe"], EngineError("out of reach"))
        await peer.call("publish", channel="plain:1", data=1)
        await peer.call("subscribe", channel="plain:1")
        samples = of(node)
        assert samples["tocsin_engine_errors_total{call=publish}"] == 1
        assert samples["tocsin_engine_errors_total{call=subscribe}"] == 1


async def test_a_peer_that_is_refused_at_the_door_is_no_connection() -> None:
    """A handshake that failed was never one."""
    async with housed() as house, house.tcp() as (connection, _):
        await connection.send(HANDSHAKE[:-2] + b"Origin: https://evil.example\r\n\r\n")
        assert await connection.response() == 403
        assert of(house.node).get("tocsin_connections{transport=websocket}", 0) == 0


async def test_each_node_counts_for_itself() -> None:
    """Two in one process share nothing."""
    async with running() as one, running() as other:
        await publish(one, "plain:1", b"1")
        assert of(one)["tocsin_publications_total"] == 1
        assert of(other)["tocsin_publications_total"] == 0


async def test_the_page_is_served_in_the_text_format() -> None:
    async with housed() as house, house.http() as http:
        await publish(house.node, "plain:1", b"1")
        response = await http.get("/metrics")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/plain; version=")
        assert read(response.content)["tocsin_publications_total"] == 1


async def test_pings_are_not_deliveries() -> None:
    """Only what channels say is counted."""
    async with housed(client={"ping_interval": 0.2, "pong_timeout": 0.1}) as house:
        await _wait_for_a_ping(house)
        assert of(house.node)["tocsin_deliveries_total"] == 0


async def _wait_for_a_ping(house: House) -> None:
    async with house.tcp() as (connection, _):
        await connection.upgrade()
        await connection.send(commands({"id": 1, "connect": {}}))
        async with asyncio.timeout(10):
            async for op, payload in connection.frames():
                if (op, payload) == (Op.TEXT, b"{}"):
                    break


def test_a_gauge_is_read_when_it_is_asked_for() -> None:
    """Nothing is stored: the value is the node's own."""
    metrics = Metrics()
    things: list[int] = []
    metrics.observe("tocsin_things", "Things.", lambda: len(things))
    assert read(metrics.page())["tocsin_things"] == 0
    things.append(1)
    assert read(metrics.page())["tocsin_things"] == 1
