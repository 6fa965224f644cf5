"""Clients of the lifecycle run: they connect, subscribe and leave, and note what they saw."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.faults.cluster import NAMESPACE, Cluster
from tests.faults.lifecycle_audit import ClientSession
from tests.support.raw_connection import HANDSHAKE, Op, close_frame, commands, frame
from tests.support.tcp import HOST
from tests.support.timing import SOON, STARTED, TICK

CHANNELS = [f"{NAMESPACE}:{number}" for number in range(200)]
CHANNELS_AT_MOST = 3


@dataclass(frozen=True)
class Plan:
    """How many sessions there are at least, how many at once, and how long one lasts on average (seconds).

    Each fault is injected in each of the `rounds`.
    """

    sessions: int
    at_once: int
    seconds: float
    rounds: int


class Clients:
    """Clients that connect, subscribe and leave, one after the other in many places, until `finish`.

    `has_ended` says whether the end of a session was told. A place begins a session only if the end of the
    last but one was told, so a slow machine has as many sessions as it can tell of.

    The mutable state is the sessions, which of them have ended, and the limits of those that last. Times are
    Unix seconds.
    """

    def __init__(self, cluster: Cluster, plan: Plan, has_ended: Callable[[ClientSession], bool]) -> None:
        self._cluster = cluster
        self._plan = plan
        self._has_ended = has_ended
        self._is_finishing = False
        self._limits: set[asyncio.Timeout] = set()
        self.sessions: list[ClientSession] = []
        self.open: dict[str, ClientSession] = {}
        """The sessions that last, by client."""

    @property
    def ended_count(self) -> int:
        """How many sessions have ended."""
        return len(self.sessions) - len(self.open)

    async def run(self) -> None:
        """Run sessions until `finish`, and until all have ended."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._plan.at_once):
                tasks.create_task(self._run_place())

    def finish(self) -> None:
        """Begin no further session, and end those that last."""
        self._is_finishing = True
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(0.0)

    async def _run_place(self) -> None:
        await asyncio.sleep(random.uniform(0, self._plan.seconds))
        last: ClientSession | None = None
        while not self._is_finishing:
            try:
                session = await self._run_session()
            except (OSError, EOFError, TimeoutError, IndexError):
                await asyncio.sleep(TICK)  # it did not connect
                continue
            while not (last is None or self._is_finishing or self._has_ended(last)):  # noqa: ASYNC110
                await asyncio.sleep(TICK)
            last = session

    async def _run_session(self) -> ClientSession:
        """Run one session. Raises if it does not come to a connect reply."""
        server = random.choice([one.server for one in self._cluster.nodes if one.server is not None])
        async with asyncio.timeout(SOON):
            reader, writer = await asyncio.open_connection(HOST, server.port)
        try:
            async with asyncio.timeout(SOON):
                writer.write(HANDSHAKE)
                await reader.readuntil(b"\r\n\r\n")
            return await self._speak(server.process.pid, reader, writer)
        finally:
            writer.transport.abort()

    async def _speak(
        self, process: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> ClientSession:
        channels = random.sample(CHANNELS, random.randint(0, CHANNELS_AT_MOST))
        subscribes = [{"id": id_, "subscribe": {"channel": one}} for id_, one in enumerate(channels, 2)]
        if writer.transport.is_closing():
            raise EOFError
        writer.write(commands({"id": 1, "connect": {}}, *subscribes))
        async with asyncio.timeout(STARTED):
            op, payload = await _read_frame(reader)
        if op is Op.CLOSE:
            raise EOFError  # the node drains
        client = json.loads(payload.splitlines()[0])["connect"]["client"]
        session = self.open[client] = ClientSession(client, process, began_at=time.time())
        self.sessions.append(session)
        _note_subscribed(session, channels, payload)
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            await self._stay(reader, writer, session, channels)
        await _leave(writer, channels)
        session.ended_at = time.time()
        del self.open[client]
        return session

    async def _stay(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        session: ClientSession,
        channels: Sequence[str],
    ) -> None:
        """Read replies, and answer pings, until the connection ends. Raises TimeoutError when it leaves."""
        mean = self._plan.seconds
        lasts = 0.0 if self._is_finishing else min(random.expovariate(1 / mean), 5 * mean)
        async with asyncio.timeout(lasts) as limit:
            self._limits.add(limit)
            try:
                while True:
                    op, payload = await _read_frame(reader)
                    if op is Op.CLOSE:
                        return
                    if payload == b"{}":
                        writer.write(frame("{}"))
                    _note_subscribed(session, channels, payload)
            finally:
                self._limits.discard(limit)


async def _leave(writer: asyncio.StreamWriter, channels: Sequence[str]) -> None:
    """Leave with a close frame, after an unsubscribe command, or without a word."""
    if writer.transport.is_closing():
        return
    way = random.randrange(3)
    if way and channels:
        writer.write(commands({"id": 90, "unsubscribe": {"channel": channels[0]}}))
    if way == 1:
        writer.write(close_frame())
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(TICK):
            await writer.drain()


def _note_subscribed(session: ClientSession, channels: Sequence[str], payload: bytes) -> None:
    """Note the channels of the subscribe replies in a message."""
    for message in map(json.loads, payload.splitlines()):
        if "subscribe" in message:
            session.channels.add(channels[message["id"] - 2])


async def _read_frame(reader: asyncio.StreamReader) -> tuple[Op, bytes]:
    head = await reader.readexactly(2)
    size = head[1] & 0x7F
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2))
    elif size == 127:
        size = int.from_bytes(await reader.readexactly(8))
    return Op(head[0] & 0x0F), await reader.readexactly(size)
