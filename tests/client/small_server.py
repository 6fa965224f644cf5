"""A small real server of the protocol: every channel has a log, and a test says what goes wrong."""

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve

Json = dict[str, Any]


class SmallServer:
    """`received` holds every command, `greeting` is the connect result, `answers` replaces replies."""

    def __init__(self) -> None:
        self.url = ""
        self.greeting: Json = {"client": "c", "ping": 25, "pong": True}
        self.answers: dict[str, Json | None] = {}
        self.received: list[Json] = []
        self.logs: dict[str, list[Any]] = defaultdict(list)
        self.subscribers: dict[str, set[ServerConnection]] = defaultdict(set)
        self.connections: set[ServerConnection] = set()
        self._changed = asyncio.Condition()

    async def until(self, fits: Any) -> None:
        """Wait for something to become true of this server."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: fits(self))

    async def subscribed(self, channel: str = "news") -> None:
        await self.until(lambda server: server.subscribers[channel])

    async def publish(self, *data: Any, channel: str = "news") -> None:
        """Append and send, each in a message of its own."""
        for one in data:
            self.append(one, channel)
            await self.push(channel, len(self.logs[channel]))

    def append(self, data: Any, channel: str = "news") -> None:
        """Into the log only, as if the message had been lost on its way."""
        self.logs[channel].append(data)

    async def push(self, channel: str, *offsets: int) -> None:
        pushes = [{"push": {"channel": channel, "pub": self._publication(channel, one)}} for one in offsets]
        for connection in list(self.subscribers[channel]):
            await self.say(connection, *pushes)

    async def say(self, connection: ServerConnection, *replies: Json) -> None:
        await connection.send("\n".join(json.dumps(reply) for reply in replies))

    async def close_all(self, code: int, reason: str) -> None:
        for connection in list(self.connections):
            await connection.close(code, reason)

    def cut(self) -> None:
        """Break every connection without a word."""
        for connection in list(self.connections):
            connection.transport.abort()

    async def converse(self, connection: ServerConnection) -> None:
        self.connections.add(connection)
        try:
            async for frame in connection:
                replies = []
                for line in str(frame).split("\n"):
                    replies += [reply for reply in [self._react(connection, json.loads(line))] if reply]
                if replies:
                    await self.say(connection, *replies)
                await self._notify()
        finally:
            self.connections.discard(connection)
            for subscribers in self.subscribers.values():
                subscribers.discard(connection)
            await self._notify()

    def _react(self, connection: ServerConnection, command: Json) -> Json | None:
        self.received.append(command)
        if "id" not in command:
            return None
        method, request = next((name, body) for name, body in command.items() if name != "id")
        if method in self.answers:
            answer = self.answers[method]
            return answer and {"id": command["id"], **answer}
        result: Json = {}
        if method == "connect":
            result = self.greeting
        elif method == "subscribe":
            self.subscribers[request["channel"]].add(connection)
            result = self._recover(request)
        elif method == "unsubscribe":
            self.subscribers[request["channel"]].discard(connection)
        return {"id": command["id"], method: result}

    def _recover(self, request: Json) -> Json:
        channel, top = request["channel"], len(self.logs[request["channel"]])
        result: Json = {"recoverable": True, "positioned": True, "epoch": "E", "offset": top}
        if request.get("recover") and request.get("epoch", "") in ("", "E"):
            since = request.get("offset", 0)
            missed = [self._publication(channel, offset) for offset in range(since + 1, top + 1)]
            result |= {"recovered": True, "offset": since, "publications": missed}
        return result

    def _publication(self, channel: str, offset: int) -> Json:
        return {"data": self.logs[channel][offset - 1], "offset": offset}

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def small_server() -> AsyncIterator[SmallServer]:
    served = SmallServer()
    listener: Server
    async with serve(served.converse, "127.0.0.1", 0, compression=None, ping_interval=None) as listener:
        served.url = f"http://127.0.0.1:{next(iter(listener.sockets)).getsockname()[1]}"
        yield served
