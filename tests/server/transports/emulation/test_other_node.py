"""`POST /emulation` on another node than the one that has the connection, over a real Redis."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.server.engine.redis.redis_server import RedisServer
from tests.server.node.fake_connection import connected
from tests.server.served_node import ServedNode, serve_node, until
from tests.server.transports.emulation.test_endpoint import EmulatedClient
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.engine import RedisEngine

_prefixes = itertools.count(1)


@pytest.fixture
async def nodes(redis_server: RedisServer) -> AsyncIterator[list[ServedNode]]:
    """Three nodes that share a Redis."""
    prefix = f"emulation{next(_prefixes)}"
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                serve_node(engine=RedisEngine(parse_address(redis_server.url), prefix))
            )
            for _ in range(3)
        ]


async def http_of(stack: AsyncExitStack, node: ServedNode) -> httpx.AsyncClient:
    return await stack.enter_async_context(node.http())


async def test_commands_reach_the_connection_through_any_node_in_their_order(nodes: list[ServedNode]) -> None:
    """Each request is sent after the answer to the one before, as SDKs do where the order counts."""
    async with AsyncExitStack() as stack:
        https = [await http_of(stack, node) for node in nodes]
        client = EmulatedClient(nodes[0], https[0], await connected(nodes[0].node))
        for number, client.http in zip(range(100, 160), itertools.cycle(https), strict=False):
            response = await client.post(json.dumps({"id": number, "rpc": {"method": "none"}}))
            assert response.status_code == 204
        await until(lambda: client.connection.reply(159))
        replies = [message for message in client.connection.received[1:] if message]  # `{}` is a ping
        assert [reply["id"] for reply in replies] == list(range(100, 160))
        (forwarded,) = (
            line
            for line in nodes[1].node.metrics.page().decode().splitlines()
            if line.startswith("tocsin_engine_call_seconds_count") and 'call="forward"' in line
        )
        assert forwarded.endswith(" 20.0")


async def test_a_session_of_another_node_that_is_gone_is_404_everywhere(nodes: list[ServedNode]) -> None:
    """Whether the connection ended, the node stopped, or the session never was."""
    async with AsyncExitStack() as stack:
        https = [await http_of(stack, node) for node in nodes]
        client = EmulatedClient(nodes[0], https[1], await connected(nodes[0].node))
        assert (await client.post(session=client.session + "x")).status_code == 404
        client.connection.drop()
        for client.http in https:
            response = await client.post()
            assert (response.status_code, response.json()["code"]) == (404, 104)
        survivor = EmulatedClient(nodes[0], https[1], await connected(nodes[0].node))
        assert (await survivor.post()).status_code == 204
        await nodes[0].node.engine.stop()
        assert (await survivor.post()).status_code == 404
