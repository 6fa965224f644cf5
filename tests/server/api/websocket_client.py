"""A WebSocket client that receives the effects of API calls."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.timing import SOON

Json = dict[str, Any]


class WebSocketClient:
    """Reads one message after the other. Tests end before the first ping."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self._unread: list[Json] = []
        self.client = ""

    async def call(self, method: str, /, **params: Any) -> Json:
        """The result of a command whose reply is the next message."""
        await self._connection.send(json.dumps({"id": next(self._ids), method: params}))
        result: Json = (await self.next())[method]
        return result

    async def push(self, kind: str) -> Json:
        """The body of the next message, which must be a push of this kind."""
        body: Json = (await self.next())["push"][kind]
        return body

    async def next(self) -> Json:
        """The next message."""
        while not self._unread:
            async with asyncio.timeout(SOON):
                frame = await self._connection.recv()
            self._unread += [json.loads(line) for line in str(frame).split("\n")]
        return self._unread.pop(0)

    async def closed(self) -> tuple[int | None, str | None]:
        """Code and reason of the close frame, which must be the next frame."""
        try:
            message = await self.next()
        except ConnectionClosed:
            return self._connection.close_code, self._connection.close_reason
        raise AssertionError(f"not closed, but received {message}")


@asynccontextmanager
async def connected_client(url: str, **params: Any) -> AsyncIterator[WebSocketClient]:
    """A client whose connect command, with these parameters, was answered."""
    address = url.replace("http", "ws", 1) + "/connection/websocket"
    async with connect(address, proxy=None, ping_interval=None) as connection:
        client = WebSocketClient(connection)
        client.client = (await client.call("connect", **params))["client"]
        yield client
