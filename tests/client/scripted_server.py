"""A small real server of the protocol. Every channel has history, and tests script its faults."""

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve

from tests.support.timing import SOON

Json = dict[str, Any]


class ScriptedServer:
    """`received` holds every command, `connect_result` is the reply to connect, `replies` replaces replies.

    A reply of None means that the server sends none.
    """

    def __init__(self) -> None:
        self.url = ""
        self.connect_result: Json = {"client": "c", "ping": 25, "pong": True}
        self.replies: dict[str, Json | None] = {}
        self.received: list[Json] = []
        self.history: dict[str, list[Any]] = defaultdict(list)
        self.subscribers: dict[str, set[ServerConnection]] = defaultdict(set)
        self.connections: set[ServerConnection] = set()
        self._changed = asyncio.Condition()

    async def until(self, condition: Callable[[Self], object]) -> None:
        """Wait until a condition on this server is true."""
        async with asyncio.timeout(SOON), self._changed:
            await self._changed.wait_for(lambda: bool(condition(self)))

    async def subscribed(self, channel: str = "news") -> None:
        await self.until(lambda server: server.subscribers[channel])

    async def publish(self, *data: Any, channel: str = "news") -> None:
        """Append publications to the history and push each in its own message."""
        for one in data:
            self.append(one, channel)
            await self.push(channel, len(self.history[channel]))

    def append(self, data: Any, channel: str = "news") -> None:
        """Append to the history only, as if the push were lost on its way."""
        self.history[channel].append(data)

    async def push(self, channel: str, *offsets: int) -> None:
        pushes = [{"push": {"channel": channel, "pub": self._publication(channel, one)}} for one in offsets]
        for connection in list(self.subscribers[channel]):
            await self.send(connection, *pushes)

    async def send(self, connection: ServerConnection, *replies: Json) -> None:
        await connection.send("\n".join(json.dumps(reply) for reply in replies))

    async def close_all(self, code: int, reason: str) -> None:
        for connection in list(self.connections):
            await connection.close(code, reason)

    def cut(self) -> None:
        """Abort every connection without a close frame."""
        for connection in list(self.connections):
            connection.transport.abort()

    async def serve_connection(self, connection: ServerConnection) -> None:
        self.connections.add(connection)
        try:
            async for frame in connection:
                replies = []
                for line in str(frame).split("\n"):
                    replies += [reply for reply in [self._reply(connection, json.loads(line))] if reply]
                if replies:
                    await self.send(connection, *replies)
                await self._notify()
        finally:
            self.connections.discard(connection)
            for subscribers in self.subscribers.values():
                subscribers.discard(connection)
            await self._notify()

    def _reply(self, connection: ServerConnection, command: Json) -> Json | None:
        self.received.append(command)
        if "id" not in command:
            return None
        method, request = next((name, body) for name, body in command.items() if name != "id")
        if method in self.replies:
            reply = self.replies[method]
            return reply and {"id": command["id"], **reply}
        result: Json = {}
        if method == "connect":
            result = self.connect_result
        elif method == "subscribe":
            self.subscribers[request["channel"]].add(connection)
            result = self._recover(request)
        elif method == "unsubscribe":
            self.subscribers[request["channel"]].discard(connection)
        return {"id": command["id"], method: result}

    def _recover(self, request: Json) -> Json:
        channel, top = request["channel"], len(self.history[request["channel"]])
        result: Json = {"recoverable": True, "positioned": True, "epoch": "E", "offset": top}
        if request.get("recover") and request.get("epoch", "") in ("", "E"):
            since = request.get("offset", 0)
            missed = [self._publication(channel, offset) for offset in range(since + 1, top + 1)]
            result |= {"recovered": True, "offset": since, "publications": missed}
        return result

    def _publication(self, channel: str, offset: int) -> Json:
        return {"data": self.history[channel][offset - 1], "offset": offset}

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    served = ScriptedServer()
    running: Server
    async with serve(
        served.serve_connection, "127.0.0.1", 0, compression=None, ping_interval=None
    ) as running:
        served.url = f"http://127.0.0.1:{next(iter(running.sockets)).getsockname()[1]}"
        yield served
