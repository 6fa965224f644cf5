"""The metrics of a node: connections, publications, disconnects and engine errors."""

from __future__ import annotations

import asyncio

from tests.server.metrics.metrics_page import of, read
from tests.server.node.fake_connection import connected, running
from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import ServedNode, publish, serve_node, until
from tests.support.raw_connection import HANDSHAKE, Op, commands
from tocsin_server import errors
from tocsin_server.errors import Disconnect, EngineError
from tocsin_server.metrics.registry import Metrics


async def test_connections_are_counted_while_they_are_open() -> None:
    """They are counted by transport, over real sockets, and the count returns to 0."""
    async with serve_node() as served_node:
        async with (
            served_node.connected(),
            served_node.connected("open:1"),
            served_node.http() as http,
            http.stream("GET", "/events", params={"channel": "open:2"}),
        ):
            samples = of(served_node.node)
            assert samples["tocsin_connections{transport=websocket}"] == 2
            assert samples["tocsin_connections{transport=sse}"] == 1
            assert samples["tocsin_channels"] == 2
            assert samples["tocsin_subscriptions"] == 2
            assert samples["tocsin_users"] == 1, "anonymous clients are one user"
        await until(lambda: not served_node.node.state.connections)
        samples = of(served_node.node)
        assert samples["tocsin_connections{transport=websocket}"] == 0
        assert samples["tocsin_connections{transport=sse}"] == 0
        assert samples["tocsin_channels"] == 0


async def test_publications_and_deliveries_are_counted() -> None:
    """A publication to three subscribers has three deliveries. One without subscribers has none."""
    async with running() as node:
        for _ in range(3):
            await connected(node, "plain:1")
        await publish(node, "plain:1", b"1", b"2")
        await publish(node, "plain:empty", b"1")
        await until(lambda: node.fan_out.is_idle)
        samples = of(node)
        assert samples["tocsin_publications_total"] == 3
        assert samples["tocsin_deliveries_total"] == 6


async def test_disconnects_are_counted_by_their_code() -> None:
    """Connections that the node closed count, connections that clients closed do not."""
    async with running() as node:
        for _ in range(2):
            await connected(node)
        node.disconnect_all(errors.FORCE_DISCONNECT)
        (await connected(node)).drop()
        bad = await connected(node)
        bad.send_commands({"id": 9, "connect": {}})
        disconnects = {
            name: value for name, value in of(node).items() if name.startswith("tocsin_disconnects_total")
        }
        assert disconnects == {
            "tocsin_disconnects_total{code=3503}": 2,
            "tocsin_disconnects_total{code=3501}": 1,
        }


async def test_disconnect_codes_of_an_application_are_counted_as_other() -> None:
    """The API accepts any code, and labels must stay few."""
    async with running() as node:
        for code in (4000, 4001, 4999):
            await connected(node)
            node.disconnect_all(Disconnect(code, "because"))
        disconnects = {
            name: value for name, value in of(node).items() if name.startswith("tocsin_disconnects_total")
        }
        assert disconnects == {"tocsin_disconnects_total{code=other}": 3}


async def test_failed_calls_to_the_engine_are_counted() -> None:
    engine = FaultyEngine()
    async with running(engine) as node:
        connection = await connected(node)
        engine.failures |= dict.fromkeys(["publish", "subscribe"], EngineError("out of reach"))
        await connection.call("publish", channel="plain:1", data=1)
        await connection.call("subscribe", channel="plain:1")
        samples = of(node)
        assert samples["tocsin_engine_errors_total{call=publish}"] == 1
        assert samples["tocsin_engine_errors_total{call=subscribe}"] == 1


async def test_a_refused_handshake_is_not_counted_as_a_connection() -> None:
    """No session was created for it."""
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        await connection.send(HANDSHAKE[:-2] + b"Origin: https://evil.example\r\n\r\n")
        assert await connection.response() == 403
        assert of(served_node.node).get("tocsin_connections{transport=websocket}", 0) == 0


async def test_each_node_counts_for_itself() -> None:
    """Two nodes in one process have separate metrics."""
    async with running() as one, running() as other:
        await publish(one, "plain:1", b"1")
        assert of(one)["tocsin_publications_total"] == 1
        assert of(other)["tocsin_publications_total"] == 0


async def test_the_page_is_served_in_the_text_format() -> None:
    async with serve_node() as served_node, served_node.http() as http:
        await publish(served_node.node, "plain:1", b"1")
        response = await http.get("/metrics")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/plain; version=")
        assert read(response.content)["tocsin_publications_total"] == 1


async def test_pings_are_not_deliveries() -> None:
    """Only what channels say is counted."""
    async with serve_node(client={"ping_interval": 0.2, "pong_timeout": 0.1}) as served_node:
        await _wait_for_a_ping(served_node)
        assert of(served_node.node)["tocsin_deliveries_total"] == 0


async def _wait_for_a_ping(served_node: ServedNode) -> None:
    async with served_node.tcp() as (connection, _):
        await connection.upgrade()
        await connection.send(commands({"id": 1, "connect": {}}))
        async with asyncio.timeout(10):
            async for op, payload in connection.frames():
                if (op, payload) == (Op.TEXT, b"{}"):
                    break


def test_a_gauge_is_read_when_the_page_is_requested() -> None:
    """The registry stores no value of its own."""
    metrics = Metrics()
    things: list[int] = []
    metrics.add_gauge("tocsin_things", "Things.", lambda: len(things))
    assert read(metrics.page())["tocsin_things"] == 0
    things.append(1)
    assert read(metrics.page())["tocsin_things"] == 1
