"""Publishers: back ends that publish through any node, and repeat a request that got no reply."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from tests.faults.api_caller import ApiCaller
from tests.faults.cluster import Cluster, NodeProcess
from tests.faults.record import Record
from tests.support.server import Server
from tests.support.timing import SOON, STARTED, TICK
from tocsin import History, Position, TocsinError, api
from tocsin.api import Call

PUBLISHERS = 60
"""Concurrent publishers. Each waits for its reply before its next publication, as a back end does."""
PROGRESS = 10
"""Publications. So many new acknowledgements prove that publishers make progress."""

Answer = TypeVar("Answer")


class Publishers:
    """Publish numbered messages at `rate` a second, spread over channels and nodes.

    The mutable state is `answered` (the publications of `run` that were acknowledged), the next number, and
    the callers of the nodes. Only the methods change it.
    """

    def __init__(self, cluster: Cluster, record: Record, channels: Sequence[str], rate: float) -> None:
        self.answered = 0
        self._cluster = cluster
        self._record = record
        self._channels = channels
        self._pause = PUBLISHERS / rate
        self._numbers = itertools.count(1)
        self._callers: dict[Server, ApiCaller] = {}

    async def run(self) -> None:
        """Publish until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(PUBLISHERS):
                    tasks.create_task(self._publish_repeatedly())
        finally:
            for caller in self._callers.values():
                await caller.close()

    async def _publish_repeatedly(self) -> None:
        await asyncio.sleep(random.uniform(0, self._pause))
        while True:
            started = asyncio.get_running_loop().time()
            await self.publish(random.choice(self._channels))
            self.answered += 1
            ahead = started + self._pause - asyncio.get_running_loop().time()
            await asyncio.sleep(max(0, ahead))

    async def make_progress(self) -> bool:
        """Wait for `PROGRESS` further acknowledgements. False if they do not come in time."""
        goal = self.answered + PROGRESS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STARTED):
                while self.answered < goal:  # noqa: ASYNC110 - cheaper than sixty notifying publishers
                    await asyncio.sleep(TICK / 10)
        return self.answered >= goal

    async def publish(self, channel: str, padding: str = "") -> Position:
        """Publish once. All attempts share one idempotency key."""
        number = next(self._numbers)
        data: dict[str, Any] = {"n": number, "padding": padding}
        position = await self.call(api.publish(channel, data, idempotency_key=f"key-{number}"))
        assert position is not None
        self._record.acknowledge(channel, position, number)
        return position

    async def history(self, channel: str, owed: Iterable[Position]) -> History:
        """The history of a channel, from the first position in `owed` on."""
        top = (await self.call(api.history(channel, limit=0))).position
        first = min((place.offset for place in owed if place.epoch == top.epoch), default=top.offset + 1)
        since = Position(first - 1, top.epoch)
        return await self.call(api.history(channel, since=since))

    async def call(self, call: Call[Answer]) -> Answer:
        """Call any node; after a refusal or without a reply, call any node again."""
        async with asyncio.timeout(6 * SOON):
            while True:
                with contextlib.suppress(TocsinError, OSError, EOFError, IndexError):  # no node: IndexError
                    return await self._caller(random.choice(self._cluster.running)).call(call)
                await asyncio.sleep(2 * TICK)

    def _caller(self, node: NodeProcess) -> ApiCaller:
        server = node.server
        assert server is not None
        return self._callers.setdefault(server, ApiCaller(server.port))
