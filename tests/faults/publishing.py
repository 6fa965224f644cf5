"""Publishers: back ends that publish through any node, and repeat what was not answered."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from tests.faults.caller import Caller
from tests.faults.cluster import Cluster, Member
from tests.faults.record import Record
from tests.support.server import Server
from tests.support.timing import SOON, STARTED, TICK
from tocsin import History, Position, TocsinError, api
from tocsin.api import Call

PUBLISHERS = 60
"""At work at once. Each waits for its answer before the next publication, as a back end would."""
GOING_ON = 10
"""Publications. So many that are answered show that publishers go on."""

Answer = TypeVar("Answer")


class Publishing:
    """Publishes numbered messages at `rate` a second, spread over channels and nodes.

    `answered` counts those that were acknowledged, without those that somebody asked for.
    """

    def __init__(self, cluster: Cluster, record: Record, channels: Sequence[str], rate: float) -> None:
        self.answered = 0
        self._cluster = cluster
        self._record = record
        self._channels = channels
        self._pause = PUBLISHERS / rate
        self._numbers = itertools.count(1)
        self._callers: dict[Server, Caller] = {}

    async def run(self) -> None:
        """Publish until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(PUBLISHERS):
                    tasks.create_task(self._work())
        finally:
            for caller in self._callers.values():
                await caller.close()

    async def _work(self) -> None:
        await asyncio.sleep(random.uniform(0, self._pause))
        while True:
            started = asyncio.get_running_loop().time()
            await self.publish(random.choice(self._channels))
            self.answered += 1
            ahead = started + self._pause - asyncio.get_running_loop().time()
            await asyncio.sleep(max(0, ahead))

    async def goes_on(self) -> bool:
        """Wait until some more were acknowledged; say whether they were."""
        goal = self.answered + GOING_ON
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STARTED):
                while self.answered < goal:  # noqa: ASYNC110 - sixty of them would have to tell
                    await asyncio.sleep(TICK / 10)
        return self.answered >= goal

    async def publish(self, channel: str, padding: str = "") -> Position:
        """Publish once, however many attempts that takes: they share one idempotency key."""
        number = next(self._numbers)
        data: dict[str, Any] = {"n": number, "padding": padding}
        position = await self.ask(api.publish(channel, data, idempotency_key=f"key-{number}"))
        assert position is not None
        self._record.acknowledge(channel, position, number)
        return position

    async def log(self, channel: str, owed: Iterable[Position]) -> History:
        """The log as a node reads it, from the first place on that may hold what is owed."""
        top = (await self.ask(api.history(channel, limit=0))).position
        first = min((place.offset for place in owed if place.epoch == top.epoch), default=top.offset + 1)
        since = Position(first - 1, top.epoch)
        return await self.ask(api.history(channel, since=since))

    async def ask(self, call: Call[Answer]) -> Answer:
        """Ask any node, and another one where no answer comes, or a refusal for now."""
        async with asyncio.timeout(6 * SOON):
            while True:
                with contextlib.suppress(
                    TocsinError, OSError, EOFError, IndexError
                ):  # or there is no node at all
                    return await self._caller(random.choice(self._cluster.running)).call(call)
                await asyncio.sleep(2 * TICK)

    def _caller(self, member: Member) -> Caller:
        server = member.server
        assert server is not None
        return self._callers.setdefault(server, Caller(server.port))
