"""Two WebSocket implementations on one port, chosen by the path of the upgrade request."""

import pytest
import websockets
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from tests.server.served_node import new_channel, serve_node


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
