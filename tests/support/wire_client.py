"""A client that hides nothing of the protocol: commands are sent as written, messages kept as received."""

import asyncio
import contextlib
import itertools
import json
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import websockets
from websockets.asyncio.client import ClientConnection, connect

from tests.support.refusal import Refused
from tests.support.server import Server
from tests.support.timing import QUIET, SOON

Json = dict[str, Any]


class Close(NamedTuple):
    """The code and reason with which the server closed a connection."""

    code: int
    reason: str


class WireClient:
    """One connection. `read` must run as a task; it answers pings while `answers_pings` is true.

    `received` holds the messages that the test has taken, in order; `frames` every frame.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.received: list[Json] = []
        self.frames: list[str] = []
        self.pinged_at: list[float] = []
        self._pinged = asyncio.Condition()
        self.answers_pings = True
        self.client = ""
        self._ids = itertools.count(1)
        self._arrived: asyncio.Queue[Json | None] = asyncio.Queue()
        self._set_aside: deque[Json] = deque()

    async def send(self, *commands: Json) -> None:
        """Send all commands in one frame, as SDKs pipeline them."""
        await self.send_text("\n".join(json.dumps(command) for command in commands))

    async def send_text(self, text: str | bytes) -> None:
        """Send a frame. A connection that the server has already closed is no error here; see `closed`."""
        with contextlib.suppress(websockets.ConnectionClosed):
            await self.connection.send(text)

    async def receive(self) -> Json:
        """Wait for the next message that is not a ping."""
        async with asyncio.timeout(SOON):
            message = await self._arrived.get()
        if message is None:
            self._arrived.put_nowait(None)
            raise self.connection.protocol.close_exc
        self.received.append(message)
        return message

    async def reply(self, number: int) -> Json:
        """Wait for the reply with this id, error or not. Earlier messages stay available."""
        return await self._find(lambda message: message.get("id") == number)

    async def push(self, kind: str, channel: str | None = None) -> Json:
        """Wait for the next push of this kind (of this channel), and return its body."""

        def fits(message: Json) -> bool:
            push = message.get("push", {})
            return kind in push and channel in (None, push.get("channel"))

        body: Json = (await self._find(fits))["push"][kind]
        return body

    async def call(self, method: str, /, **params: Any) -> Json:
        """Send a command, and return its result. Raises `Refused` for an error reply."""
        number = next(self._ids)
        await self.send({"id": number, method: params})
        answer = await self.reply(number)
        if error := answer.get("error"):
            raise Refused(error["code"], error["message"])
        result: Json = answer[method]
        return result

    async def connect(self, **params: Any) -> Json:
        result = await self.call("connect", **params)
        self.client = result["client"]
        return result

    async def offsets(self, channel: str, count: int) -> list[int]:
        """Wait for the next publications of a channel, and return their offsets."""
        return [(await self.push("pub", channel))["offset"] for _ in range(count)]

    async def closed(self) -> Close:
        """Wait for the server to close. Messages that come before are read."""
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await self.receive()
        return Close(self.connection.close_code or 0, self.connection.close_reason or "")

    async def is_quiet(self) -> bool:
        """Whether no message but pings arrives within `QUIET`."""
        try:
            async with asyncio.timeout(QUIET):
                self._set_aside.append(await self.receive())
        except TimeoutError:
            return True
        return False

    async def _find(self, fits: Any) -> Json:
        for message in self._set_aside:
            if fits(message):
                self._set_aside.remove(message)
                return message
        while not fits(message := await self.receive()):
            self._set_aside.append(message)
        return message

    async def read(self) -> None:
        """Read until the connection is closed."""
        try:
            async for frame in self.connection:
                assert isinstance(frame, str), "JSON goes out in text frames (protocol §1)"
                self.frames.append(frame)
                for message in map(json.loads, frame.split("\n")):
                    if message:
                        self._arrived.put_nowait(message)
                    else:
                        await self._answer_ping()
        except websockets.ConnectionClosedError:
            pass  # `receive` raises it
        finally:
            self._arrived.put_nowait(None)

    async def _answer_ping(self) -> None:
        self.pinged_at.append(time.monotonic())
        if self.answers_pings:
            await self.send({})
        async with self._pinged:
            self._pinged.notify_all()

    @property
    def pings(self) -> int:
        return len(self.pinged_at)

    async def wait_for_pings(self, count: int) -> None:
        """Wait until so many pings were received."""
        async with asyncio.timeout(SOON), self._pinged:
            await self._pinged.wait_for(lambda: self.pings >= count)


@contextlib.asynccontextmanager
async def open_wire(server: Server, url: str = "", **options: Any) -> AsyncIterator[WireClient]:
    """A WebSocket to the server on which nothing has been sent yet."""
    quiet: Json = {"compression": None, "ping_interval": None, "proxy": None, "max_size": None}
    async with connect(url or server.websocket_url, **{**quiet, **options}) as connection:
        wire = WireClient(connection)
        reading = asyncio.create_task(wire.read())
        try:
            yield wire
        finally:
            await connection.close()
            await reading


@contextlib.asynccontextmanager
async def connect_wire(server: Server, **params: Any) -> AsyncIterator[WireClient]:
    """A WebSocket after its connect reply. `params` are those of the connect command."""
    async with open_wire(server) as wire:
        await wire.connect(**params)
        yield wire
