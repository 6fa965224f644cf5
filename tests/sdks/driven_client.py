"""Clients of an SDK in a driver's process, which a test calls through JSON lines (README.md)."""

import asyncio
import contextlib
import itertools
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from typing import Any

from tests.support.recorded_events import RecordedEvents
from tests.support.refusal import Refused
from tests.support.timing import SOON, STARTED

LINE_LIMIT = 1 << 20
"""Bytes of one line that a driver may write."""

Json = dict[str, Any]


class Driver:
    """A driver's process. The mutable state is its clients' events and the calls in flight, by number."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._events: dict[int, RecordedEvents] = {}

    def client(self) -> "DrivenClient":
        """A new client, which is not connected."""
        number = len(self._events)
        self._events[number] = events = RecordedEvents()
        return DrivenClient(self, number, events)

    async def call(self, client: int, name: str, args: Json) -> Any:
        """Call the SDK. Raises `Refused` if the server refused, AssertionError if it failed otherwise."""
        assert self._process.stdin is not None
        number = next(self._numbers)
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        line = json.dumps({"number": number, "client": client, "call": name, "args": args})
        self._process.stdin.write(line.encode() + b"\n")
        try:
            async with asyncio.timeout(SOON):
                return await answer
        except TimeoutError:
            raise AssertionError(f"no answer to {line}") from None

    async def read(self) -> None:
        """Sort the driver's lines into answers and events, until its output ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            message = json.loads(line)
            if "event" in message:
                await self._events[message["client"]].record(message["event"], **message["details"])
            elif (answer := self._answers.pop(message["number"])).done():
                continue  # the test no longer waits
            elif "error" in message:
                answer.set_exception(_exception(message["error"]))
            else:
                answer.set_result(message["result"])


class DrivenClient:
    """One client of the SDK. Calls return what README.md says; `events` holds what the SDK emitted."""

    def __init__(self, driver: Driver, number: int, events: RecordedEvents) -> None:
        self.events = events
        self._driver = driver
        self._number = number

    async def connect(
        self, endpoint: "Endpoint", *, token: str = "", tokens: list[str] | None = None
    ) -> None:
        """Start connecting. `tokens` are returned one by one when the SDK requests a token."""
        await self._call("connect", **endpoint.args, token=token, tokens=tokens)

    async def disconnect(self) -> None:
        await self._call("disconnect")

    async def subscribe(self, channel: str, **options: Any) -> None:
        """Start subscribing. Options: token, tokens, delta (bool), tag (key and value of a tags filter)."""
        await self._call("subscribe", channel=channel, **options)

    async def unsubscribe(self, channel: str) -> None:
        await self._call("unsubscribe", channel=channel)

    async def publish(self, channel: str, data: Any = None, **payload: str) -> None:
        """Publish JSON, or `binary`: base64 of bytes."""
        await self._call("publish", channel=channel, **(payload or {"data": data}))

    async def presence(self, channel: str) -> dict[str, Json]:
        clients: dict[str, Json] = await self._call("presence", channel=channel)
        return clients

    async def presence_stats(self, channel: str) -> dict[str, int]:
        stats: dict[str, int] = await self._call("presence_stats", channel=channel)
        return stats

    async def history(
        self, channel: str, *, limit: int = 0, since: Json | None = None, reverse: bool = False
    ) -> Json:
        page: Json = await self._call("history", channel=channel, limit=limit, since=since, reverse=reverse)
        return page

    async def rpc(self, method: str, data: Any) -> Any:
        return await self._call("rpc", method=method, data=data)

    async def _call(self, name: str, **args: Any) -> Any:
        return await self._driver.call(self._number, name, args)


class Endpoint:
    """Where a client connects, and how. Commands of an emulated connection have an address of their own."""

    def __init__(self, base: str, emulation_base: str, transport: str, encoding: str) -> None:
        if transport == "websocket":
            base = base.replace("http://", "ws://")
        self.args = {
            "url": f"{base}/connection/{transport}",
            "emulation_url": f"{emulation_base}/emulation",
            "transport": transport,
            "format": encoding,
        }


@contextlib.asynccontextmanager
async def run_driver(*command: str) -> AsyncIterator[Driver]:
    """A running driver. It ends with its standard input."""
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=LINE_LIMIT)
    driver = Driver(process)
    reading = asyncio.create_task(driver.read())
    try:
        yield driver
    finally:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(STARTED):
            await process.wait()
            await reading


def _exception(error: Json) -> Exception:
    if error["code"]:
        return Refused(error["code"], error["message"])
    return AssertionError(error["message"])
