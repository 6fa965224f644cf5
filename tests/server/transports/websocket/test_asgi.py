"""The portable WebSocket endpoint: Tocsin inside another application, under whatever server that has."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import websockets
from centrifuge import Client
from msgspec import Raw
from websockets.asyncio.client import ClientConnection, connect

from tests.server.transports.hosts import Serve, application, under_hypercorn, under_uvicorn
from tests.server.transports.sse.streams import ORIGIN, Json
from tests.support.timing import QUIET, SOON
from tests.support.tokens import connection_token
from tocsin_server.core.events import ServerDisconnect
from tocsin_server.engine.broker import NewPublication
from tocsin_server.engine.nodes import ControlCommand
from tocsin_server.errors import FORCE_DISCONNECT
from tocsin_server.node.node import Node


@dataclass
class Mounted:
    """A node that is part of another application."""

    node: Node
    authority: str

    @property
    def url(self) -> str:
        return f"ws://{self.authority}/push/connection/websocket"

    @asynccontextmanager
    async def opened(self, query: str = "", **options: Any) -> AsyncIterator[ClientConnection]:
        """A connection on which nothing has been said."""
        async with connect(self.url + query, proxy=None, compression=None, **options) as connection:
            yield connection

    async def publish(self, channel: str, data: Any) -> None:
        await self.node.operations.publish(channel, NewPublication(Raw(json.dumps(data).encode())))


@pytest.fixture(params=[under_uvicorn, under_hypercorn])
async def mounted(request: pytest.FixtureRequest) -> AsyncIterator[Mounted]:
    """A node under each server."""
    serve: Serve = request.param
    app, node = application(client={"message_limit_bytes": 1000})
    async with serve(app) as host:
        yield Mounted(node, host.authority)


async def said(connection: ClientConnection, *commands: Json) -> list[Json]:
    """Send commands in one frame; the messages up to the last one's reply."""
    await connection.send("\n".join(map(json.dumps, commands)))
    messages: list[Json] = []
    while not messages or messages[-1].get("id") != commands[-1]["id"]:
        messages += await heard(connection)
    return messages


async def heard(connection: ClientConnection) -> list[Json]:
    """The messages of the next frame, which must be a text frame."""
    async with asyncio.timeout(SOON):
        frame = await connection.recv()
    assert isinstance(frame, str)
    return [json.loads(line) for line in frame.split("\n")]


async def closed(connection: ClientConnection) -> tuple[int | None, str | None]:
    """How the server closes; whatever it still sends is read first."""
    async with asyncio.timeout(SOON):
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await connection.recv()
    return connection.close_code, connection.close_reason


CONNECT: Json = {"id": 1, "connect": {}}


async def test_a_session_is_the_same_over_asgi(mounted: Mounted) -> None:
    """Pipelined commands are answered in order, pushes follow, and text frames carry them."""
    async with mounted.opened() as connection:
        replies = await said(connection, CONNECT, {"id": 2, "subscribe": {"channel": "log:1"}})
        assert [list(reply) for reply in replies] == [["id", "connect"], ["id", "subscribe"]]
        await mounted.publish("log:1", {"n": 1})
        (push,) = await heard(connection)
        assert push == {"push": {"channel": "log:1", "pub": {"data": {"n": 1}, "offset": 1}}}
        assert 'transport="asgi"} 1.0' in mounted.node.metrics.page().decode()


async def test_an_official_client_works(mounted: Mounted) -> None:
    """centrifuge-python, unmodified: subscribe, publish, presence of one's own."""
    client = Client(mounted.url, get_token=None)
    await client.connect()
    async with asyncio.timeout(SOON):
        await client.ready()
        subscription = client.new_subscription("log:1")
        await subscription.subscribe()
        await subscription.ready()
    await client.disconnect()


async def test_json_in_binary_frames_is_json_too(mounted: Mounted) -> None:
    """The opcode is not looked at; the answer is text."""
    async with mounted.opened() as connection:
        await connection.send(json.dumps(CONNECT).encode())
        assert "connect" in (await heard(connection))[0]


async def test_the_json_subprotocol_is_agreed_to(mounted: Mounted) -> None:
    """A client that offers it gets it, one that offers nothing gets nothing."""
    names = [websockets.Subprotocol("centrifuge-json")]
    async with mounted.opened(subprotocols=names) as connection:
        assert connection.subprotocol == "centrifuge-json"
    async with mounted.opened() as connection:
        assert connection.subprotocol is None


@pytest.mark.parametrize(
    ("query", "names"),
    [("", ["centrifuge-protobuf"]), ("?format=protobuf", []), ("?cf_protocol=protobuf", [])],
)
async def test_a_client_of_the_binary_framing_is_told_so(
    mounted: Mounted, query: str, names: list[Any]
) -> None:
    """It would only get what it cannot read."""
    async with mounted.opened(query, subprotocols=names or None) as connection:
        assert await closed(connection) == (3506, "inappropriate protocol")


async def test_pages_of_other_origins_are_refused_before_they_connect(mounted: Mounted) -> None:
    """403 to the handshake; an allowed origin is served."""
    with pytest.raises(websockets.InvalidStatus) as refusal:
        async with mounted.opened(origin=websockets.Origin("https://evil.example")):
            pass
    assert refusal.value.response.status_code == 403
    async with mounted.opened(origin=websockets.Origin(ORIGIN)) as connection:
        await said(connection, CONNECT)


async def test_a_plain_request_is_told_what_this_is(mounted: Mounted) -> None:
    """400 and a sentence; the host's own routes are where they were."""
    async with httpx.AsyncClient(base_url=f"http://{mounted.authority}", trust_env=False) as http:
        response = await http.get("/push/connection/websocket")
        assert response.status_code == 400
        assert "WebSocket" in response.text
        assert (await http.get("/")).json() == "the host's"


async def test_a_bad_message_closes_with_the_protocols_code(mounted: Mounted) -> None:
    """What is not JSON: 3501, with its reason."""
    async with mounted.opened() as connection:
        await connection.send("{")
        assert await closed(connection) == (3501, "bad request")


async def test_a_message_too_large_closes_with_1009(mounted: Mounted) -> None:
    """Whatever the server's own limit is."""
    async with mounted.opened() as connection:
        await said(connection, CONNECT)
        await connection.send(json.dumps({"id": 2, "publish": {"channel": "a", "data": "x" * 1000}}))
        assert (await closed(connection))[0] == 1009


async def test_the_api_disconnects(mounted: Mounted) -> None:
    """What waits is written first, then the close frame with code and reason."""
    async with mounted.opened() as connection:
        await said(connection, {"id": 1, "connect": {"token": connection_token("ann")}})
        await mounted.node.operations.control(ControlCommand("ann", ServerDisconnect(FORCE_DISCONNECT)))
        assert await closed(connection) == (3503, "force disconnect")


async def test_nothing_is_read_while_commands_wait() -> None:
    """A client that sends faster than it is answered waits; nothing piles up, and it is answered in order."""
    release = asyncio.Event()

    async def double(_user: str, params: Any) -> Any:
        await release.wait()
        return params * 2

    app, node = application(double)
    async with under_uvicorn(app) as host, Mounted(node, host.authority).opened() as connection:
        await said(connection, CONNECT)
        for number in range(2, 20):
            await connection.send(json.dumps({"id": number, "rpc": {"method": "double", "data": number}}))
        (peer,) = node.hub
        async with asyncio.timeout(SOON):
            while not peer.session.backlog:  # noqa: ASYNC110 - the session tells nobody
                await asyncio.sleep(0.001)
        await asyncio.sleep(QUIET)
        assert len(peer.session.backlog) == 1
        release.set()
        replies: list[Json] = []
        while len(replies) < 18:
            replies += await heard(connection)
    assert [(reply["id"], reply["rpc"]["data"]) for reply in replies] == [(n, 2 * n) for n in range(2, 20)]


async def test_pings_may_be_left_to_the_server(mounted: Mounted) -> None:
    """A client that asks for WebSocket's own pings is told of no others."""
    async with mounted.opened("?cf_ws_frame_ping_pong=true") as connection:
        (reply,) = await said(connection, CONNECT)
        assert "ping" not in reply["connect"]
    async with mounted.opened() as connection:
        (reply,) = await said(connection, CONNECT)
        assert reply["connect"]["ping"] == 25


async def test_a_client_that_vanishes_is_missed_at_once(mounted: Mounted) -> None:
    """Its leave reaches the others long before anybody would be pinged."""
    subscribe = {"id": 2, "subscribe": {"channel": "seen:1"}}
    async with mounted.opened() as watcher:
        await said(watcher, CONNECT, subscribe)
        assert "join" in (await heard(watcher))[0]["push"]
        async with mounted.opened() as connection:
            await said(connection, CONNECT, subscribe)
            assert "join" in (await heard(watcher))[0]["push"]
            connection.transport.abort()
            async with asyncio.timeout(SOON):
                assert "leave" in (await heard(watcher))[0]["push"]


async def test_a_client_that_does_not_read_is_closed_as_slow_and_delays_nobody() -> None:
    """What waits for it is bounded in bytes; the others hear everything meanwhile."""
    app, node = application(client={"queue_limit_bytes": 100_000})
    async with under_uvicorn(app) as host, Mounted(node, host.authority).opened() as reader:
        subscribe = {"id": 2, "subscribe": {"channel": "log:1"}}
        await said(reader, CONNECT, subscribe)
        with socket.socket() as small:
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            small.setblocking(False)
            address, port = host.authority.split(":")
            await asyncio.get_running_loop().sock_connect(small, (address, int(port)))
            async with Mounted(node, host.authority).opened(
                sock=small, max_queue=1, close_timeout=0.1
            ) as slow:
                await said(slow, CONNECT, subscribe)
                slow.transport.pause_reading()
                for number in range(1, 1000):
                    await node.operations.publish("log:1", NewPublication(Raw(b'"' + b"x" * 20_000 + b'"')))
                    assert (await heard(reader))[0]["push"]["pub"]["offset"] == number
                    if 'code="3008"' in node.metrics.page().decode():
                        break
                else:
                    raise AssertionError("never closed")
                slow.transport.resume_reading()
                assert await closed(slow) == (3008, "slow")
