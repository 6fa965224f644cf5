"""Publishers: back ends that publish through any node, and repeat what was not answered."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from tests.faults.cluster import Cluster, Member
from tests.faults.record import Record
from tests.support.configs import API_KEY
from tests.support.timing import SOON, TICK
from tocsin import AsyncPublisher, History, Position, TocsinError

PUBLISHERS = 60
"""At work at once. Each waits for its answer before the next publication, as a back end would."""


Answer = TypeVar("Answer")


class Publishing:
    """Publishes numbered messages at `rate` a second, spread over channels and nodes."""

    def __init__(self, cluster: Cluster, record: Record, channels: Sequence[str], rate: float) -> None:
        self._cluster = cluster
        self._record = record
        self._channels = channels
        self._pause = PUBLISHERS / rate
        self._numbers = itertools.count(1)
        self._calls = contextlib.AsyncExitStack()
        self._by_url: dict[str, AsyncPublisher] = {}

    async def run(self) -> None:
        """Publish until cancelled."""
        async with self._calls, asyncio.TaskGroup() as tasks:
            for _ in range(PUBLISHERS):
                tasks.create_task(self._work())

    async def _work(self) -> None:
        await asyncio.sleep(random.uniform(0, self._pause))
        while True:
            started = asyncio.get_running_loop().time()
            await self.publish(random.choice(self._channels))
            ahead = started + self._pause - asyncio.get_running_loop().time()
            await asyncio.sleep(max(0, ahead))

    async def publish(self, channel: str, padding: str = "") -> Position:
        """Publish once, however many attempts that takes: they share one idempotency key."""
        number = next(self._numbers)
        data: dict[str, Any] = {"n": number, "padding": padding}
        position = await self._insist(
            lambda publisher: publisher.publish(channel, data, idempotency_key=f"key-{number}")
        )
        assert position is not None
        self._record.acknowledge(channel, position, number)
        return position

    async def history(self, channel: str) -> History:
        """The log, as a node reads it."""
        return await self._insist(lambda publisher: publisher.history(channel))

    async def _insist(self, call: Callable[[AsyncPublisher], Awaitable[Answer]]) -> Answer:
        """Ask any node, and another one where no answer comes, or a refusal for now."""
        async with asyncio.timeout(6 * SOON):
            while True:
                with contextlib.suppress(TocsinError, IndexError):  # or there is no node at all
                    return await call(self._publisher(random.choice(self._cluster.running)))
                await asyncio.sleep(2 * TICK)

    def _publisher(self, member: Member) -> AsyncPublisher:
        known = self._by_url.get(member.url)
        if known is None:
            known = self._by_url[member.url] = AsyncPublisher(member.url, API_KEY, timeout_seconds=SOON / 2)
            self._calls.push_async_callback(known.close)
        return known
