"""Tocsin mounted under hypercorn, in a process in which uvicorn cannot be imported (test_portability.py)."""

import asyncio
import json
import socket

import httpx
import hypercorn.asyncio
from httpx_sse import aconnect_sse
from starlette.applications import Starlette
from websockets.asyncio.client import connect

from tests.support.api import NO_TLS
from tocsin_server.app import create_app
from tocsin_server.config.loading import Settings

OPEN = {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}


async def try_transports(app: Starlette) -> None:
    """Serve the application, connect by WebSocket and by event stream, and print what each one gets first."""
    listening = socket.create_server(("127.0.0.1", 0))
    authority = f"127.0.0.1:{listening.getsockname()[1]}"
    config = hypercorn.Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.errorlog = None
    stopping = asyncio.Event()
    serving = asyncio.create_task(
        hypercorn.asyncio.serve(app, config, shutdown_trigger=stopping.wait)  # type: ignore[arg-type]
    )
    async with connect(f"ws://{authority}/connection/websocket", proxy=None) as websocket:
        await websocket.send('{"id":1,"connect":{}}')
        print(*json.loads(await websocket.recv()))  # noqa: T201 - the test reads it
    async with (
        httpx.AsyncClient(trust_env=False, verify=NO_TLS) as http,
        aconnect_sse(http, "GET", f"http://{authority}/events?channel=news") as source,
    ):
        events = source.aiter_sse()
        await anext(events)
        print((await anext(events)).event)  # noqa: T201 - the test reads it
    stopping.set()
    await serving


def main() -> None:
    settings = Settings.model_validate({"client": {"allow_anonymous": True}, "channels": OPEN})
    asyncio.run(try_transports(create_app(settings)))
