"""Streams, and unidirectional WebSockets, in another application and under other servers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.server.served_node import publish, until
from tests.server.transports.hosts import Serve, application, under_hypercorn, under_uvicorn
from tests.support.api import NO_TLS
from tests.support.timing import SOON
from tocsin_server import errors
from tocsin_server.node.node import Node


@dataclass
class Mounted:
    node: Node
    authority: str


@pytest.fixture(params=[under_uvicorn, under_hypercorn])
async def mounted(request: pytest.FixtureRequest) -> AsyncIterator[Mounted]:
    serve: Serve = request.param
    app, node = application(client={"unidirectional": True})
    async with serve(app) as host:
        yield Mounted(node, host.authority)


async def test_a_stream_works_under_any_server(mounted: Mounted) -> None:
    """Its last message is the disconnect, and a client that leaves is noticed."""
    commands = '{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"news"}}'
    url = f"http://{mounted.authority}/push/connection/http_stream"
    async with httpx.AsyncClient(timeout=SOON, trust_env=False, verify=NO_TLS) as http:
        for is_disconnected in (True, False):
            async with http.stream("POST", url, content=commands) as response:
                lines = response.aiter_lines()
                assert "session" in json.loads(await anext(lines))["connect"]
                assert json.loads(await anext(lines))["id"] == 2
                await publish(mounted.node, "news", b"1")
                assert json.loads(await anext(lines))["push"]["pub"] == {"data": 1}
                if is_disconnected:
                    mounted.node.disconnect_all(errors.FORCE_DISCONNECT)
                    assert json.loads(await anext(lines))["push"]["disconnect"]["code"] == 3503
                    assert [line async for line in lines] == []
            await until(lambda: not mounted.node.state.connections)
            await until(lambda: not len(mounted.node.emulated_sessions))


async def test_a_unidirectional_websocket_works_under_any_server(mounted: Mounted) -> None:
    """Each push is a message of its own."""
    url = f"ws://{mounted.authority}/push/connection/uni_websocket"
    async with connect(url, proxy=None) as websocket:
        await websocket.send('{"subs":{"news":{}}}')
        assert list(json.loads(await websocket.recv())["connect"]["subs"]) == ["news"]
        for number in range(3):
            await publish(mounted.node, "news", b"%d" % number)
        received = [json.loads(await websocket.recv()) for _ in range(3)]
        assert received == [{"channel": "news", "pub": {"data": number}} for number in range(3)]
    await until(lambda: not mounted.node.state.connections)
