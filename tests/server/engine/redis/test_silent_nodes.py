"""Silent nodes: a node that is alive and does not respond is named, and does not block the others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.server.engine.redis.blackhole_proxy import BlackholeProxy
from tests.server.engine.redis.redis_server import RedisServer
from tests.support.api import Api
from tests.support.configs import USUAL
from tests.support.server import Server, serving
from tests.support.timing import STARTED
from tests.support.tokens import connection_token
from tests.support.wire import Json, connected


@pytest.fixture
async def servers(
    redis_server: RedisServer, proxy: BlackholeProxy, prefix: str, tmp_path: Path
) -> AsyncIterator[list[Server]]:
    """Three nodes, each in its own process. The last one reaches Redis through the proxy."""
    with contextlib.ExitStack() as stack:

        def serve(name: str, url: str) -> Server:
            folder = tmp_path / name
            folder.mkdir()
            config = {**USUAL, "server": {"name": name}, "engine": {"url": url, "prefix": prefix}}
            return stack.enter_context(serving(config, folder))

        three = ("one", redis_server.url), ("two", redis_server.url), ("deaf", proxy.url)
        yield [await asyncio.to_thread(serve, *each) for each in three]  # the proxy needs this loop
        proxy.pass_all()


async def nodes(api: Api) -> dict[str, Json]:
    return {node["name"]: node for node in (await api.call("info"))["nodes"]}


async def test_a_deaf_node_is_named_and_blocks_no_other_node(
    servers: list[Server], proxy: BlackholeProxy
) -> None:
    """It is in the table, API calls that need it fail with its uid, and other nodes can be drained.

    Each call waits for the silent node, so calls that do not depend on each other are made together.
    """
    one, two, deaf = servers
    async with Api(one) as api, connected(one, token=connection_token("42")) as wire:
        uid = (await nodes(api))["deaf"]["uid"]
        proxy.drop_pubsub()
        proxy.drop_subscribers()
        found, *responses = await asyncio.gather(
            nodes(api),
            api.post("channels", {}),
            api.post("disconnect", {"user": "42"}),
            api.post("drain", {"node": "deaf"}),
        )
        assert {name: node["state"] for name, node in found.items()} == {
            "one": "ready",
            "two": "ready",
            "deaf": "silent",
        }
        assert found["deaf"]["uid"] == uid
        refusal = {"error": {"code": 100, "message": f"internal server error: no answer from node {uid[:8]}"}}
        assert [response.json() for response in responses] == [refusal] * 3
        assert (await wire.closed()).code == 3503, "the called node applied the command"
        async with Api(deaf) as deaf_api:
            drained, info = await asyncio.gather(api.call("drain", node="two"), deaf_api.call("info"))
            assert drained == {}
            states = {node["uid"]: node["state"] for node in info["nodes"]}
            assert states.pop(uid) == "deaf", "it knows that without receiving any message"
            assert set(states.values()) == {"silent"}
            assert await deaf_api.call("drain", node="deaf") == {}
    for server in (two, deaf):
        assert await asyncio.to_thread(server.process.wait, STARTED) == 0
