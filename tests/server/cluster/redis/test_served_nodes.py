"""Two served nodes over one Redis, as their clients and the back end see them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.cluster.redis.redis_server import RedisServer
from tests.support.api import Api
from tests.support.configs import USUAL
from tests.support.server import Server, serving
from tests.support.tokens import connection_token
from tests.support.wire import connected


@pytest.fixture(scope="module")
def servers(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Real processes."""
    with contextlib.ExitStack() as stack:

        def serve(folder: Path) -> Server:
            config = {**USUAL, "engine": {"url": redis_server.url, "prefix": "served"}}
            return stack.enter_context(serving(config, folder))

        yield [serve(tmp_path_factory.mktemp(name)) for name in ("first", "second")]


async def test_what_one_node_publishes_another_delivers(servers: list[Server]) -> None:
    """In order, with the position that the publisher was told."""
    here, there = servers
    async with connected(there) as wire, Api(here) as api:
        await wire.call("subscribe", channel="open:1")
        assert await api.publish_numbers("open:1", range(1, 21)) == list(range(1, 21))
        assert await wire.offsets("open:1", 20) == list(range(1, 21))


async def test_a_client_goes_on_at_another_node(servers: list[Server]) -> None:
    """From the position it had at the first."""
    here, there = servers
    async with connected(here) as wire, Api(there) as api:
        start = await wire.call("subscribe", channel="open:2")
        await api.publish_numbers("open:2", range(1, 4))
        await wire.offsets("open:2", 3)
    async with Api(here) as api:
        await api.publish_numbers("open:2", range(4, 7))
    async with connected(there) as wire:
        position = {"recover": True, "epoch": start["epoch"], "offset": 3}
        result = await wire.call("subscribe", channel="open:2", **position)
        assert result["recovered"]
        assert [publication["offset"] for publication in result["publications"]] == [4, 5, 6]


async def test_presence_and_nodes_are_of_all(servers: list[Server]) -> None:
    """Whichever is asked; and one order reaches a user everywhere."""
    here, there = servers
    token = connection_token("42")
    async with connected(here, token=token) as one, connected(there, token=token) as other:
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


async def test_links_that_break_lose_nothing(servers: list[Server], redis_server: RedisServer) -> None:
    """The client stays connected, and hears every publication once and in order."""
    here, there = servers
    async with connected(there) as wire, Api(here) as api:
        await wire.call("subscribe", channel="open:4")
        for first in range(1, 151, 50):
            await api.publish_numbers("open:4", range(first, first + 25))
            assert redis_server.cut_links()
            await api.publish_numbers("open:4", range(first + 25, first + 50))
        assert await wire.offsets("open:4", 150) == list(range(1, 151))
