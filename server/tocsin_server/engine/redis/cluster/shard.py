"""A shard: one Redis that takes calls and is heard, alone or as one master of a cluster."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from tocsin_server.engine.redis.pipeline import Pipeline
from tocsin_server.engine.redis.pubsub.connection import Link
from tocsin_server.engine.redis.pubsub.probe import Canary
from tocsin_server.engine.redis.supervisor import Keeper

SomeLink_co = TypeVar("SomeLink_co", bound=Link, covariant=True)


class Shard(Generic[SomeLink_co]):
    """Two connections, and the canary that goes out by the one and comes back by the other."""

    def __init__(self, pipeline: Pipeline, link: SomeLink_co) -> None:
        self.pipeline = pipeline
        self.link = link
        self.canary = Canary("", pipeline, link)
        """To be given a name before anything runs."""
        self.opened = asyncio.Event()
        """Set once it takes calls."""

    @property
    def unready_reason(self) -> str:
        """Why it can at present not be called or heard, as a sentence; empty if it can."""
        return self.pipeline.trouble or self.link.trouble

    async def run(self, keeper: Keeper) -> None:
        """Run all parts until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keeper.keep("pipeline", self.pipeline.run))
            tasks.create_task(keeper.keep("link", self.link.run))
            await asyncio.sleep(0)  # so that both take calls
            self.opened.set()
            tasks.create_task(keeper.keep("canary", self.canary.run))
