"""Event streams under the server of a host application, and how they end when it stops."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse
from msgspec import Raw
from sse_starlette.sse import AppStatus

from tests.server.transports.hosts import Serve, application, under_hypercorn, under_uvicorn
from tests.server.transports.sse.stream_server import stream_server
from tests.support.api import NO_TLS
from tests.support.timing import SOON
from tocsin_server.engine.broker import NewPublication


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=SOON, trust_env=False, verify=NO_TLS) as client:
        yield client


@pytest.mark.parametrize("serve", [under_uvicorn, under_hypercorn])
async def test_a_stream_is_the_same_under_any_server(http: httpx.AsyncClient, serve: Serve) -> None:
    """It begins with its position, carries messages, and ends at once when its client disconnects."""
    app, node = application()
    async with serve(app) as host:
        url = f"http://{host.authority}/push/events?channel=history:1"
        async with aconnect_sse(http, "GET", url) as source:
            events = source.aiter_sse()
            assert (await anext(events)).id.startswith("0@")
            assert (await anext(events)).json()["node"] == node.name
            await node.operations.publish("history:1", NewPublication(Raw(b'{"n":1}')))
            message = await anext(events)
            assert json.loads(message.data)["pub"]["data"] == {"n": 1}
        async with asyncio.timeout(SOON):
            while node.hub.channels:  # noqa: ASYNC110 - the hub announces nothing
                await asyncio.sleep(0.001)


async def test_a_host_that_stops_ends_its_streams(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node does not learn that its host stops, so sse-starlette's flag ends its streams, with 3001."""
    monkeypatch.setattr(AppStatus, "should_exit", False)  # sse-starlette's, and never reset by it
    app, _ = application()
    seen: list[Any] = []
    async with asyncio.timeout(SOON), under_uvicorn(app) as host:
        url = f"http://{host.authority}/push/events?channel=history:1"
        async with aconnect_sse(http, "GET", url) as source:
            async for event in source.aiter_sse():
                seen.append(event)
                if len(seen) == 1:
                    host.stop()
    assert (seen[-1].event, seen[-1].json()["code"]) == ("disconnect", 3001)


async def test_a_host_that_stops_does_not_affect_tocsin_s_own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams of Tocsin's own server end when its node closes them, regardless of the process-wide flag."""
    monkeypatch.setattr(AppStatus, "should_exit", True)
    async with stream_server() as server, server.stream("lobby") as stream:
        await server.publish("lobby", 1)
        assert await stream.numbers(1) == [1]
        assert await stream.is_quiet()
