"""Two WebSocket implementations on one port, chosen by the path of the upgrade request."""

import pytest
import websockets
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from tests.server.served_node import new_channel, serve_node, until
from tests.support.raw_connection import HANDSHAKE


async def echo(websocket: WebSocket) -> None:
    """A WebSocket of the application."""
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


async def test_an_application_s_own_websockets_are_served_beside_tocsin_s() -> None:
    """By uvicorn's implementation, on every path but Tocsin's; a path without a route is 403."""
    async with (
        serve_node(routes=[WebSocketRoute("/echo", echo)]) as served_node,
        served_node.connected() as wire,
    ):
        url = served_node.websocket_url.replace("/connection/websocket", "")
        async with websockets.connect(f"{url}/echo", proxy=None) as application_websocket:
            await application_websocket.send("hello")
            assert await application_websocket.recv() == "hello"
        for path in ("/nowhere", "/connection/websocket/more", "/connection"):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(url + path, proxy=None)
            assert refused.value.response.status_code == 403
        assert await wire.call("presence", channel=new_channel("open")) == {"presence": {}}


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\n",
        b"X-Long: " + b"x" * 9000 + b"\r\n",
        b"".join(b"X-%d: 1\r\n" % i for i in range(140)),
    ],
    ids=["a body", "a long line", "many headers"],
)
async def test_a_handshake_that_uvicorn_s_implementation_does_not_read_is_refused(headers: bytes) -> None:
    """Its connection would stay open for ever, and no limit of half-open connections would count it."""
    request = HANDSHAKE.replace(b"/connection/websocket", b"/nowhere").replace(
        b"\r\n\r\n", b"\r\n" + headers + b"\r\n"
    )
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        await connection.send(request)
        assert (await connection.read_to_end()).startswith(b"HTTP/1.1 400 ")
        await until(lambda: not served_node.server.server_state.connections)
