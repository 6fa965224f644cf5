"""Honest clients, in a process of their own. They measure round trips and count what they receive.

    python -m tests.hostile.honest_clients COUNT URL…    request SECONDS, reply: the fields of `Observation`

Each client has a user of its own, and is subscribed to one of `CHANNELS` on one of the nodes. A publisher
publishes numbers into all channels, through all nodes in turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

import httpx
import uvloop
import websockets
from websockets.asyncio.client import ClientConnection, connect

from tests.support.api import NO_TLS
from tests.support.configs import API_KEY
from tests.support.timing import SOON, STARTED, progress_timeout
from tests.support.tokens import connection_token
from tests.support.worker import requests

CHANNELS = [f"honest:{number}" for number in range(10)]

PINGS_PER_SECOND = 200
"""Round trips of all clients together. Each is a command that needs no engine call."""

PUBLISHES_PER_SECOND = 20


class Observation(NamedTuple):
    """What the clients noticed in one period. Latencies are milliseconds."""

    median: float
    high: float
    """The 99th percentile."""
    pings: float
    disconnects: float
    lost: float
    """Acknowledged publications that a subscriber did not receive exactly once and in order."""
    leaves: float
    """Leaves of clients that have not left."""
    failed_publishes: float


class HonestClient:
    """One connection that follows one channel. The mutable state is what it has received."""

    def __init__(self, connection: ClientConnection, channel: str) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self._replies: dict[int, asyncio.Future[None]] = {}
        self.channel = channel
        self.received = 0
        self.leaves = 0
        self.misplaced = 0
        self.is_connected = True

    async def start(self, user: str) -> None:
        await self._call("connect", token=connection_token(user))
        await self._call("subscribe", channel=self.channel, join_leave=True)

    async def ping(self) -> float:
        """Return the milliseconds of a round trip: an unsubscribe from a channel without a subscription."""
        started = time.perf_counter()
        await self._call("unsubscribe", channel="honest:none")
        return (time.perf_counter() - started) * 1000

    async def _call(self, method: str, **params: object) -> None:
        number = next(self._ids)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        await self._connection.send(json.dumps({"id": number, method: params}))
        await reply

    async def read(self) -> None:
        """Read until the connection ends."""
        with contextlib.suppress(websockets.ConnectionClosed):
            async for frame in self._connection:
                for message in map(json.loads, str(frame).split("\n")):
                    await self._take(message)
        self.is_connected = False
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(ConnectionError("the connection has ended"))

    async def _take(self, message: dict[str, object]) -> None:
        if not message:
            await self._connection.send("{}")
        elif "id" in message:
            reply = self._replies.pop(int(str(message["id"])))
            if "error" in message:
                reply.set_exception(ConnectionError(f"refused: {message['error']}"))
            else:
                reply.set_result(None)
        else:
            self._take_push(json.loads(json.dumps(message["push"])))

    def _take_push(self, push: dict[str, dict[str, int]]) -> None:
        self.leaves += "leave" in push
        if "pub" in push:
            self.misplaced += push["pub"]["data"] != self.received
            self.received = push["pub"]["data"] + 1


class Crowd:
    """All clients, and what was published to them."""

    def __init__(self, clients: Sequence[HonestClient], urls: Sequence[str], http: httpx.AsyncClient) -> None:
        self._clients = clients
        self._urls = urls
        self._http = http
        self._published = dict.fromkeys(CHANNELS, 0)
        self._failed_publishes = 0

    async def observe(self, seconds: float) -> Observation:
        """Ping and publish for so many seconds, then wait for the last publications."""
        before = [(client.misplaced, client.leaves) for client in self._clients]
        connected, failed = [client.is_connected for client in self._clients], self._failed_publishes
        latencies: list[float] = []
        ends_at = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publish(ends_at))
            async for _ in _ticks(PINGS_PER_SECOND, ends_at):
                if reachable := [client for client in self._clients if client.is_connected]:
                    tasks.create_task(_measure(random.choice(reachable), latencies))
        with contextlib.suppress(TimeoutError):
            async with progress_timeout(self._progress, SOON):
                while self._missing():  # noqa: ASYNC110 - the clients' readers end it
                    await asyncio.sleep(0.01)
        latencies.sort()
        misplaced = sum(client.misplaced for client in self._clients) - sum(each[0] for each in before)
        return Observation(
            median=latencies[len(latencies) // 2] if latencies else 0,
            high=latencies[len(latencies) * 99 // 100] if latencies else 0,
            pings=len(latencies),
            disconnects=sum(connected) - sum(client.is_connected for client in self._clients),
            lost=misplaced + self._missing(),
            leaves=sum(client.leaves for client in self._clients) - sum(each[1] for each in before),
            failed_publishes=self._failed_publishes - failed,
        )

    def _progress(self) -> int:
        return sum(client.received for client in self._clients)

    def _missing(self) -> int:
        connected = (client for client in self._clients if client.is_connected)
        return sum(max(0, self._published[client.channel] - client.received) for client in connected)

    async def _publish(self, ends_at: float) -> None:
        """Publish one after the other. A failed publish is repeated with the same idempotency key."""
        turns = zip(itertools.cycle(CHANNELS), itertools.cycle(self._urls), strict=False)
        async for _ in _ticks(PUBLISHES_PER_SECOND, ends_at):
            channel, url = next(turns)
            number = self._published[channel]
            body = {"channel": channel, "data": number, "idempotency_key": f"{channel}-{number}"}
            while not await self._post(url, body):
                self._failed_publishes += 1
                await asyncio.sleep(0.05)
            self._published[channel] += 1

    async def _post(self, url: str, body: dict[str, object]) -> bool:
        try:
            response = await self._http.post(f"{url}/api/publish", json=body, headers={"X-API-Key": API_KEY})
        except httpx.TransportError:
            return False
        return response.status_code == 200 and "result" in response.json()


async def _measure(client: HonestClient, latencies: list[float]) -> None:
    with contextlib.suppress(ConnectionError, websockets.ConnectionClosed):
        latencies.append(await client.ping())


async def _ticks(per_second: float, ends_at: float) -> AsyncIterator[None]:
    """Yield so many times a second. After a stall the missed ones follow at once."""
    due_at = time.monotonic()
    while due_at < ends_at:
        await asyncio.sleep(max(0.0, due_at - time.monotonic()))
        yield
        due_at += 1 / per_second


async def main(count: int, urls: Sequence[str]) -> None:
    """Connect all clients, and observe when requested."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            httpx.AsyncClient(timeout=STARTED, trust_env=False, verify=NO_TLS)
        )
        readers = await stack.enter_async_context(asyncio.TaskGroup())
        clients = []
        for number in range(count):
            url = urls[number % len(urls)].replace("http://", "ws://") + "/connection/websocket"
            connection = await stack.enter_async_context(
                connect(url, compression=None, ping_interval=None, proxy=None, open_timeout=STARTED)
            )
            client = HonestClient(connection, CHANNELS[number // len(urls) % len(CHANNELS)])
            readers.create_task(client.read())
            await client.start(f"honest-{number}")
            clients.append(client)
        crowd = Crowd(clients, urls, http)
        async for (seconds,) in requests():
            print(*await crowd.observe(seconds), flush=True)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2:]))
