"""A node that lives and does not answer the others: who is asked says so, and does what can be done."""

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
    redis_server: RedisServer, swallower: BlackholeProxy, prefix: str, tmp_path: Path
) -> AsyncIterator[list[Server]]:
    """Real processes; the last one hears nothing any more, and can still call Redis."""
    with contextlib.ExitStack() as stack:

        def serve(name: str, url: str) -> Server:
            folder = tmp_path / name
            folder.mkdir()
            config = {**USUAL, "server": {"name": name}, "engine": {"url": url, "prefix": prefix}}
            return stack.enter_context(serving(config, folder))

        three = ("one", redis_server.url), ("two", redis_server.url), ("deaf", swallower.url)
        yield [await asyncio.to_thread(serve, *each) for each in three]  # the way is of this loop
        swallower.pass_all()


async def nodes(api: Api) -> dict[str, Json]:
    return {node["name"]: node for node in (await api.call("info"))["nodes"]}


async def test_a_deaf_node_is_seen_is_named_and_keeps_nobody_from_anything(
    servers: list[Server], swallower: BlackholeProxy
) -> None:
    """It is in the table, no call that needs it fails without its name, and other nodes can be drained."""
    one, two, deaf = servers
    async with Api(one) as api, connected(one, token=connection_token("42")) as wire:
        uid = (await nodes(api))["deaf"]["uid"]
        swallower.drop_pubsub()
        swallower.drop_subscribers()
        found = await nodes(api)
        assert {name: node["state"] for name, node in found.items()} == {
            "one": "ready",
            "two": "ready",
            "deaf": "silent",
        }
        assert found["deaf"]["uid"] == uid
        refusal = {"error": {"code": 100, "message": f"internal server error: no answer from node {uid[:8]}"}}
        assert (await api.post("channels", {})).json() == refusal
        assert (await api.post("disconnect", {"user": "42"})).json() == refusal
        assert (await wire.closed()).code == 3503, "this one obeyed"
        assert (await api.post("drain", {"node": "deaf"})).json() == refusal
        assert await api.call("drain", node="two") == {}
        assert await asyncio.to_thread(two.process.wait, STARTED) == 0
    async with Api(deaf) as api:
        states = {node["uid"]: node["state"] for node in (await api.call("info"))["nodes"]}
        assert states.pop(uid) == "deaf", "which it knows of itself without hearing anybody"
        assert set(states.values()) == {"silent"}
        assert await api.call("drain", node="deaf") == {}
    assert await asyncio.to_thread(deaf.process.wait, STARTED) == 0
