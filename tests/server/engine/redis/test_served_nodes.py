"""Two served nodes over one Redis, as their clients and the back end see them."""

import asyncio
import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.cli.test_nodes import nodes
from tests.server.engine.redis.redis_server import RedisServer
from tests.server.node.fake_connection import FakeConnection, running
from tests.server.served_node import token_of, until
from tests.support.api import Api
from tests.support.configs import API_KEY, STANDARD
from tests.support.server import Server, run_server
from tests.support.timing import SOON
from tests.support.tokens import connection_token
from tests.support.wire_client import connect_wire
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.engine import RedisEngine


@pytest.fixture(scope="module")
def servers(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two nodes, each in its own process."""
    with contextlib.ExitStack() as stack:

        def serve(name: str) -> Server:
            engine = {"url": redis_server.url, "prefix": "served"}
            config = {**STANDARD, "server": {**STANDARD["server"], "name": name}, "engine": engine}
            return stack.enter_context(run_server(config, tmp_path_factory.mktemp(name)))

        yield [serve(name) for name in ("first", "second")]


async def test_a_publication_through_one_node_is_delivered_by_another(servers: list[Server]) -> None:
    """In order, with the position that the publisher got."""
    here, there = servers
    async with connect_wire(there) as wire, Api(here) as api:
        await wire.call("subscribe", channel="open:1")
        assert await api.publish_numbers("open:1", range(1, 21)) == list(range(1, 21))
        assert await wire.offsets("open:1", 20) == list(range(1, 21))


async def test_a_client_recovers_at_another_node(servers: list[Server]) -> None:
    """From its position at the first node."""
    here, there = servers
    async with connect_wire(here) as wire, Api(there) as api:
        start = await wire.call("subscribe", channel="open:2")
        await api.publish_numbers("open:2", range(1, 4))
        await wire.offsets("open:2", 3)
    async with Api(here) as api:
        await api.publish_numbers("open:2", range(4, 7))
    async with connect_wire(there) as wire:
        position = {"recover": True, "epoch": start["epoch"], "offset": 3}
        result = await wire.call("subscribe", channel="open:2", **position)
        assert result["recovered"]
        assert [publication["offset"] for publication in result["publications"]] == [4, 5, 6]


SINGLE = {"personal_channel": True, "personal_channel_single_connection": True}


@pytest.mark.parametrize("count", [1, 5], ids=["one each", "five each"])
async def test_of_simultaneous_connections_of_a_user_one_stays(
    redis_server: RedisServer, tmp_path: Path, count: int
) -> None:
    """Each closes only the connections identified before it, in one order for all nodes."""
    url, prefix = redis_server.url, f"single-{count}"
    async with (
        running(RedisEngine(parse_address(url), prefix), client=SINGLE) as here,
        running(RedisEngine(parse_address(url), prefix), client=SINGLE) as there,
    ):
        connections = [FakeConnection(node) for node in (here, there) for _ in range(count)]
        for connection in connections:
            connection.send_command("connect", token=token_of("ann"))
        await until(lambda: sum(connection.closed_with is None for connection in connections) == 1)
        await asyncio.gather(here.operations.nodes(), there.operations.nodes())  # follows every command
        assert sum(connection.closed_with is None for connection in connections) == 1


async def test_presence_and_info_cover_all_nodes(servers: list[Server]) -> None:
    """From any node. One disconnect reaches a user's connections everywhere."""
    here, there = servers
    token = connection_token("42")
    async with connect_wire(here, token=token) as one, connect_wire(there, token=token) as other:
        for wire in (one, other):
            await wire.call("subscribe", channel="open:3")
        async with Api(here) as api:
            presence = await api.call("presence", channel="open:3")
            assert sorted(presence["presence"]) == sorted([one.client, other.client])
            assert (await api.call("presence_stats", channel="open:3"))["num_users"] == 1
            assert len((await api.call("info"))["nodes"]) == 2
            channels = await api.call("channels", pattern="open:3")
            assert channels["channels"] == {"open:3": {"num_clients": 2}}
            await api.call("disconnect", user="42")
        for wire in (one, other):
            assert (await wire.closed()).code == 3503


async def test_api_calls_for_a_user_reach_connections_at_another_node(servers: list[Server]) -> None:
    """Subscribe, unsubscribe and refresh. Other users are not affected."""
    here, there = servers
    async with (
        Api(here) as api,
        connect_wire(there, token=connection_token("43")) as wire,
        connect_wire(there, token=connection_token("44")) as other,
    ):
        await api.call("subscribe", user="43", channel="plain:5", data={"seat": 1})
        assert (await wire.push("subscribe", "plain:5"))["data"] == {"seat": 1}
        await api.publish("plain:5", {"n": 1})
        assert (await wire.push("pub", "plain:5"))["data"] == {"n": 1}
        await api.call("unsubscribe", user="43", channel="plain:5")
        assert (await wire.push("unsubscribe", "plain:5"))["code"] == 2000
        await api.call("refresh", user="43", expire_at=int(time.time()) + 1000)
        refreshed = await wire.push("refresh")
        assert refreshed["expires"]
        assert refreshed["ttl"] > 0
        await api.call("refresh", user="43", expired=True)
        assert (await wire.closed()).code == 3005
        await other.call("subscribe", channel="plain:5")
        assert not [message for message in other.received if "push" in message]


async def numbers_of(api: Api) -> dict[str, tuple[int, int]]:
    """The numbers of clients and channels of each node."""
    nodes = (await api.call("info"))["nodes"]
    return {node["name"]: (node["num_clients"], node["num_channels"]) for node in nodes}


async def test_the_table_of_nodes_shows_each_node_and_its_figures(servers: list[Server]) -> None:
    """One row for each, in the order of their names, from any node."""
    here, there = servers
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(Api(here))
        both = "plain:6", "plain:7"
        for server, *channels in ((here, *both), (here, *both), (here,), (there, "plain:6")):
            wire = await stack.enter_async_context(connect_wire(server))
            for channel in channels:
                await wire.call("subscribe", channel=channel)
        async with asyncio.timeout(SOON):
            while await numbers_of(api) != {"first": (3, 2), "second": (1, 1)}:
                pass  # clients of other tests are still leaving
        ids = {node["name"]: node["uid"][:8] for node in (await api.call("info"))["nodes"]}
        table = await asyncio.to_thread(nodes, there, "--api-key", API_KEY)
    headings, *rows = table.lines
    assert " ".join(headings.split()) == "id name address uptime clients channels memory lag state"
    expected = ("first", here, "3 +2"), ("second", there, "1 +1")
    for row, (name, server, numbers) in zip(rows, expected, strict=True):
        place = rf"{ids[name]} +{name} +127\.0\.0\.1:{server.port}"
        figures = rf"\d+:\d\d:\d\d +{numbers} +[1-9]\d* MiB +\d+\.\d ms"
        assert re.fullmatch(rf"{place} +{figures} +ready *", row)


async def test_broken_pubsub_connections_lose_nothing(
    servers: list[Server], redis_server: RedisServer
) -> None:
    """The client stays connected, and gets every publication once and in order."""
    here, there = servers
    async with connect_wire(there) as wire, Api(here) as api:
        await wire.call("subscribe", channel="open:4")
        for first in range(1, 151, 50):
            await api.publish_numbers("open:4", range(first, first + 25))
            await until(redis_server.kill_pubsub_connections)  # a node may not have connected again yet
            await api.publish_numbers("open:4", range(first + 25, first + 50))
        assert await wire.offsets("open:4", 150) == list(range(1, 151))
