"""The portable WebSocket endpoint: Tocsin inside another application, under any ASGI server."""

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
from tests.server.transports.sse.stream_server import ORIGIN, Json
from tests.support.api import NO_TLS
from tests.support.timing import QUIET, SOON
from tests.support.tokens import connection_token
from tocsin_server.core.events import ServerDisconnect
from tocsin_server.engine.broker import NewPublication
from tocsin_server.engine.nodes import ControlCommand
from tocsin_server.errors import FORCE_DISCONNECT
from tocsin_server.node.node import Node


@dataclass
class MountedNode:
    """A node that is part of another application."""

    node: Node
    authority: str

    @property
    def url(self) -> str:
        return f"ws://{self.authority}/push/connection/websocket"

    @asynccontextmanager
    async def opened(self, query: str = "", **options: Any) -> AsyncIterator[ClientConnection]:
        """A WebSocket on which no command has been sent."""
        async with connect(self.url + query, proxy=None, compression=None, **options) as connection:
            yield connection

    async def publish(self, channel: str, data: Any) -> None:
        await self.node.operations.publish(channel, NewPublication(Raw(json.dumps(data).encode())))


@pytest.fixture(params=[under_uvicorn, under_hypercorn])
async def mounted(request: pytest.FixtureRequest) -> AsyncIterator[MountedNode]:
    """A node under each server."""
    serve: Serve = request.param
    app, node = application(client={"message_limit_bytes": 1000})
    async with serve(app) as host:
        yield MountedNode(node, host.authority)


async def call(connection: ClientConnection, *commands: Json) -> list[Json]:
    """Send commands in one frame; the messages up to the last command's reply, and those in its frame."""
    await connection.send("\n".join(map(json.dumps, commands)))
    messages: list[Json] = []
    while not any(message.get("id") == commands[-1]["id"] for message in messages):
        messages += await next_frame(connection)
    return messages


async def next_frame(connection: ClientConnection) -> list[Json]:
    """The messages of the next frame, which must be a text frame."""
    async with asyncio.timeout(SOON):
        frame = await connection.recv()
    assert isinstance(frame, str)
    return [json.loads(line) for line in frame.split("\n")]


async def closed(connection: ClientConnection) -> tuple[int | None, str | None]:
    """Read until the server closes: with what code and reason."""
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            async with asyncio.timeout(SOON):
                await connection.recv()
    return connection.close_code, connection.close_reason


CONNECT: Json = {"id": 1, "connect": {}}


async def test_a_session_is_the_same_over_asgi(mounted: MountedNode) -> None:
    """Pipelined commands are answered in order, pushes follow, and text frames carry them."""
    async with mounted.opened() as connection:
        replies = await call(connection, CONNECT, {"id": 2, "subscribe": {"channel": "history:1"}})
        assert [list(reply) for reply in replies] == [["id", "connect"], ["id", "subscribe"]]
        await mounted.publish("history:1", {"n": 1})
        (push,) = await next_frame(connection)
        assert push == {"push": {"channel": "history:1", "pub": {"data": {"n": 1}, "offset": 1}}}
        assert 'transport="asgi"} 1.0' in mounted.node.metrics.page().decode()


@pytest.mark.parametrize("use_protobuf", [False, True])
async def test_an_official_client_works(mounted: MountedNode, use_protobuf: bool) -> None:
    """The unmodified centrifuge-python connects and subscribes."""
    client = Client(mounted.url, get_token=None, use_protobuf=use_protobuf)
    await client.connect()
    async with asyncio.timeout(SOON):
        await client.ready()
        subscription = client.new_subscription("history:1")
        await subscription.subscribe()
        await subscription.ready()
    await client.disconnect()
    await asyncio.gather(*client._background_tasks, return_exceptions=True)  # closing sockets


async def test_json_in_binary_frames_is_json_too(mounted: MountedNode) -> None:
    """The opcode does not matter; the reply is text."""
    async with mounted.opened() as connection:
        await connection.send(json.dumps(CONNECT).encode())
        assert "connect" in (await next_frame(connection))[0]


async def test_the_json_subprotocol_is_chosen_where_it_is_offered(mounted: MountedNode) -> None:
    """A client that offers none gets none."""
    names = [websockets.Subprotocol("centrifuge-json")]
    async with mounted.opened(subprotocols=names) as connection:
        assert connection.subprotocol == "centrifuge-json"
    async with mounted.opened() as connection:
        assert connection.subprotocol is None


async def test_a_client_whose_format_is_unknown_is_disconnected_for_good(mounted: MountedNode) -> None:
    """With 3506: it could not read any message."""
    names = [websockets.Subprotocol("centrifuge-protobuf")]
    async with mounted.opened("?format=avro", subprotocols=names) as connection:
        assert connection.subprotocol == "centrifuge-protobuf"
        assert await closed(connection) == (3506, "inappropriate protocol")


async def test_pages_of_other_origins_are_refused_before_they_connect(mounted: MountedNode) -> None:
    """The handshake gets 403; a page of an allowed origin connects."""
    with pytest.raises(websockets.InvalidStatus) as refusal:
        async with mounted.opened(origin=websockets.Origin("https://evil.example")):
            pass
    assert refusal.value.response.status_code == 403
    async with mounted.opened(origin=websockets.Origin(ORIGIN)) as connection:
        await call(connection, CONNECT)


async def test_a_plain_request_for_the_path_is_a_bad_request(mounted: MountedNode) -> None:
    """400 and a sentence; the host's own routes are unaffected."""
    async with httpx.AsyncClient(
        base_url=f"http://{mounted.authority}", trust_env=False, verify=NO_TLS
    ) as http:
        response = await http.get("/push/connection/websocket")
        assert response.status_code == 400
        assert "WebSocket" in response.text
        assert (await http.get("/")).json() == "the host's"


async def test_a_malformed_message_closes_with_the_protocol_s_code(mounted: MountedNode) -> None:
    """With 3501 and its reason."""
    async with mounted.opened() as connection:
        await connection.send("{")
        assert await closed(connection) == (3501, "bad request")


async def test_a_message_over_the_size_limit_closes_with_1009(mounted: MountedNode) -> None:
    """The node's limit applies, besides the server's own."""
    async with mounted.opened() as connection:
        await call(connection, CONNECT)
        await connection.send(json.dumps({"id": 2, "publish": {"channel": "a", "data": "x" * 1000}}))
        assert (await closed(connection))[0] == 1009


async def test_a_disconnect_by_the_api_closes_with_its_code(mounted: MountedNode) -> None:
    """Queued messages are written first, then the close frame with code and reason."""
    async with mounted.opened() as connection:
        await call(connection, {"id": 1, "connect": {"token": connection_token("ann")}})
        await mounted.node.operations.control(ControlCommand("ann", ServerDisconnect(FORCE_DISCONNECT)))
        assert await closed(connection) == (3503, "force disconnect")


async def test_reading_pauses_while_the_session_has_a_backlog() -> None:
    """A client that sends faster than it is answered has to wait; its replies come in order."""
    release = asyncio.Event()

    async def double(_user: str, params: Any) -> Any:
        await release.wait()
        return params * 2

    app, node = application(double)
    async with under_uvicorn(app) as host, MountedNode(node, host.authority).opened() as connection:
        await call(connection, CONNECT)
        for number in range(2, 20):
            await connection.send(json.dumps({"id": number, "rpc": {"method": "double", "data": number}}))
        (server_side,) = node.hub
        async with asyncio.timeout(SOON):
            while not server_side.session.has_waiting_commands:  # noqa: ASYNC110 - the session announces nothing
                await asyncio.sleep(0.001)
        await asyncio.sleep(QUIET)
        assert len(server_side.session.backlog) == 1
        release.set()
        replies: list[Json] = []
        while len(replies) < 18:
            replies += await next_frame(connection)
    assert [(reply["id"], reply["rpc"]["data"]) for reply in replies] == [(n, 2 * n) for n in range(2, 20)]


async def test_a_client_that_chooses_ping_frames_is_announced_no_pings(mounted: MountedNode) -> None:
    """The ASGI server sends the ping frames."""
    async with mounted.opened("?cf_ws_frame_ping_pong=true") as connection:
        (reply,) = await call(connection, CONNECT)
        assert "ping" not in reply["connect"]
    async with mounted.opened() as connection:
        (reply,) = await call(connection, CONNECT)
        assert reply["connect"]["ping"] == 25


async def test_a_client_that_aborts_leaves_its_channels_at_once(mounted: MountedNode) -> None:
    """Other clients get its leave long before the next ping."""
    subscribe = {"id": 2, "subscribe": {"channel": "seen:1"}}
    async with mounted.opened() as watcher:
        messages = await call(watcher, CONNECT, subscribe)
        if len(messages) == 2:
            messages += await next_frame(watcher)
        assert "join" in messages[2]["push"]
        async with mounted.opened() as connection:
            await call(connection, CONNECT, subscribe)
            assert "join" in (await next_frame(watcher))[0]["push"]
            connection.transport.abort()
            async with asyncio.timeout(SOON):
                assert "leave" in (await next_frame(watcher))[0]["push"]


async def test_a_slow_client_is_disconnected_and_delays_no_other_client() -> None:
    """The queue for it is bounded in bytes; other clients receive every publication meanwhile."""
    app, node = application(client={"queue_limit_bytes": 100_000})
    async with under_uvicorn(app) as host, MountedNode(node, host.authority).opened() as reader:
        subscribe = {"id": 2, "subscribe": {"channel": "history:1"}}
        await call(reader, CONNECT, subscribe)
        with socket.socket() as small:
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            small.setblocking(False)
            address, port = host.authority.split(":")
            await asyncio.get_running_loop().sock_connect(small, (address, int(port)))
            async with MountedNode(node, host.authority).opened(
                sock=small, max_queue=1, close_timeout=0.1
            ) as slow:
                await call(slow, CONNECT, subscribe)
                slow.transport.pause_reading()
                for number in range(1, 1000):
                    await node.operations.publish(
                        "history:1", NewPublication(Raw(b'"' + b"x" * 20_000 + b'"'))
                    )
                    assert (await next_frame(reader))[0]["push"]["pub"]["offset"] == number
                    if 'code="3008"' in node.metrics.page().decode():
                        break
                else:
                    raise AssertionError("never closed")
                slow.transport.resume_reading()
                assert await closed(slow) == (3008, "slow")
