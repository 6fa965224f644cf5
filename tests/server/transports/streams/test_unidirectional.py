"""`/connection/uni_sse`, `/connection/uni_http_stream` and `/connection/uni_websocket`, over sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.server.served_node import ServedNode, new_channel, publish, serve_node, token_of
from tests.server.transports.streams.stream_client import streaming
from tocsin_server import errors
from tocsin_server.core.events import ServerDisconnect

Json = dict[str, Any]
both = pytest.mark.parametrize("kind", ["uni_http_stream", "uni_sse"])


@pytest.fixture
async def served() -> AsyncIterator[ServedNode]:
    client = {"unidirectional": True, "ping_interval": "500ms", "pong_timeout": "200ms"}
    async with serve_node(client=client) as served:
        yield served


def granting(channel: str, **more: Any) -> str:
    """A connect request whose token subscribes to a channel."""
    return json.dumps({"token": token_of("ann", channels=[channel]), **more})


@both
async def test_pushes_have_no_envelope(served: ServedNode, kind: str) -> None:
    channel = new_channel("log")
    async with streaming(served, kind, granting(channel)) as client:
        result = await client.connected()
        assert list(result["subs"]) == [channel]
        assert "session" not in result
        assert "pong" not in result
        await publish(served.node, channel, b'{"a":1}')
        while not (message := await client.next()):
            pass  # pings
        assert message == {"channel": channel, "pub": {"data": {"a": 1}, "offset": 1}}
        assert await client.next() == {}  # a ping
        assert await client.next() == {}  # it needs no answer
        (connection,) = served.node.state.connections
        served.node.handle_event(connection, ServerDisconnect(errors.FORCE_RECONNECT))
        why = {"code": 3011, "reason": "force reconnect"}
        assert (await client.rest())[-1] == {"disconnect": why}


@both
async def test_a_client_recovers_with_its_connect_request(served: ServedNode, kind: str) -> None:
    channel = new_channel("log")
    async with streaming(served, kind, granting(channel)) as client:
        epoch = (await client.connected())["subs"][channel]["epoch"]
    await publish(served.node, channel, b"1", b"2")
    subs = {channel: {"recover": True, "offset": 0, "epoch": epoch}}
    async with streaming(served, kind, granting(channel, subs=subs)) as client:
        found = (await client.connected())["subs"][channel]
        assert found["recovered"] is True
        assert [publication["data"] for publication in found["publications"]] == [1, 2]


@both
async def test_a_request_without_a_connect_request_is_anonymous(served: ServedNode, kind: str) -> None:
    async with streaming(served, kind, "") as client:
        assert "subs" not in await client.connected()
    await served.until_empty()


async def test_a_refused_connect_request_is_a_disconnect(served: ServedNode) -> None:
    async with streaming(served, "uni_sse", json.dumps({"token": token_of("ann", exp=1)})) as client:
        (message,) = await client.rest()
        assert message["disconnect"]["code"] == errors.CONNECTION_EXPIRED.code


@both
@pytest.mark.parametrize("request_text", ["no JSON", "[]", '{"token":5}'])
async def test_a_connect_request_that_is_not_valid_is_a_bad_request(
    served: ServedNode, kind: str, request_text: str
) -> None:
    """A browser's EventSource makes its request again after every stream that ends, but not after 400."""
    async with streaming(served, kind, request_text) as client:
        assert client.status == 400


async def test_an_event_source_is_told_when_to_come_back(served: ServedNode) -> None:
    async with streaming(served, "uni_sse") as client:
        await client.connected()
        assert 500 <= client.retry <= 5000


async def test_the_transports_are_off_by_default() -> None:
    async with serve_node() as served, served.http() as http:
        for kind in ("uni_sse", "uni_http_stream", "uni_websocket"):
            assert (await http.post(f"/connection/{kind}", content="{}")).status_code == 404
        with pytest.raises(InvalidStatus):
            await connect(url(served), proxy=None)


# ------------------------------------------------------------------------------------------------- WebSocket


def url(served: ServedNode) -> str:
    return served.websocket_url.replace("/websocket", "/uni_websocket")


async def received(websocket: ClientConnection) -> Json:
    """The next message that is no ping."""
    while True:
        found: Json = json.loads(await websocket.recv())
        if found:
            return found


async def test_a_websocket_gets_each_push_as_a_message(served: ServedNode) -> None:
    channel = new_channel("log")
    async with connect(url(served), proxy=None) as websocket:
        await websocket.send(granting(channel))
        result = (await received(websocket))["connect"]
        assert list(result["subs"]) == [channel]
        assert "pong" not in result
        for number in range(3):
            await publish(served.node, channel, b"%d" % number)
        pushes = [await received(websocket) for _ in range(3)]
        assert [push["pub"]["data"] for push in pushes] == [0, 1, 2]
        assert json.loads(await websocket.recv()) == {}
        (connection,) = served.node.state.connections
        assert connection.transport_name == "uni_websocket"
    await served.until_empty()


@pytest.mark.parametrize("first", ["no JSON", "{}"])
async def test_a_websocket_takes_one_connect_request_alone(served: ServedNode, first: str) -> None:
    async with connect(url(served), proxy=None) as websocket:
        await websocket.send(first)
        if first == "{}":
            await received(websocket)
            await websocket.send("{}")
        with pytest.raises(ConnectionClosed) as closed:
            await received(websocket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == errors.PROTOCOL_VIOLATION.code


async def test_a_websocket_is_closed_where_its_token_has_expired(served: ServedNode) -> None:
    async with connect(url(served), proxy=None) as websocket:
        await websocket.send(json.dumps({"token": token_of("ann", exp=1)}))
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == errors.CONNECTION_EXPIRED.code
