"""Event streams of a Tocsin that is part of another application, under that application's server."""

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
from tests.server.transports.sse.streams import served
from tests.support.timing import SOON
from tocsin_server.engine.broker import NewPublication


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=SOON, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("serve", [under_uvicorn, under_hypercorn])
async def test_a_stream_is_the_same_under_any_server(http: httpx.AsyncClient, serve: Serve) -> None:
    """It begins with its position, carries messages, and is missed at once when its client goes."""
    app, node = application()
    async with serve(app) as host:
        url = f"http://{host.authority}/push/events?channel=log:1"
        async with aconnect_sse(http, "GET", url) as source:
            events = source.aiter_sse()
            assert (await anext(events)).id.startswith("0@")
            assert (await anext(events)).json()["node"] == node.name
            await node.operations.publish("log:1", NewPublication(Raw(b'{"n":1}')))
            message = await anext(events)
            assert json.loads(message.data)["pub"]["data"] == {"n": 1}
        async with asyncio.timeout(SOON):
            while node.hub.channels:  # noqa: ASYNC110 - the hub tells nobody
                await asyncio.sleep(0.001)


async def test_a_host_that_stops_sends_its_streams_away(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody tells the node that its host stops, so the signal is heeded: clients are told to come back."""
    monkeypatch.setattr(AppStatus, "should_exit", False)  # sse-starlette's, and never reset by it
    app, _ = application()
    seen: list[Any] = []
    async with asyncio.timeout(SOON), under_uvicorn(app) as host:
        url = f"http://{host.authority}/push/events?channel=log:1"
        async with aconnect_sse(http, "GET", url) as source:
            async for event in source.aiter_sse():
                seen.append(event)
                if len(seen) == 1:
                    host.stop()
    assert (seen[-1].event, seen[-1].json()["code"]) == ("disconnect", 3001)


async def test_a_host_that_stops_is_nothing_to_a_server_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams of Tocsin's own server end when its node says so, whatever the process-global flag says."""
    monkeypatch.setattr(AppStatus, "should_exit", True)
    async with served() as tocsin, tocsin.stream("lobby") as stream:
        await tocsin.publish("lobby", 1)
        assert await stream.numbers(1) == [1]
        assert await stream.is_quiet()
