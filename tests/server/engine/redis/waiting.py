"""Waiting for an engine to notice, and to recover. Its trouble is looked at, since nobody is told of it."""

from __future__ import annotations

import asyncio

from tests.server.engine.contract.harness import Node
from tests.support.timing import SOON, TICK
from tocsin_server.engine.redis.connections.address import Dialler
from tocsin_server.engine.redis.connections.connection import Connection


class RecordingDialler(Dialler):
    """Keeps what it connected last."""

    connection: Connection

    async def connect(self) -> Connection:
        self.connection = await super().connect()
        return self.connection


async def until_troubled(node: Node) -> str:
    """What the trouble is."""
    async with asyncio.timeout(SOON):
        while not (trouble := node.engine.unready_reason):  # noqa: ASYNC110 - a property, as the health check reads it
            await asyncio.sleep(TICK / 10)
    return trouble


async def until_whole(node: Node) -> None:
    async with asyncio.timeout(SOON):
        while node.engine.unready_reason:  # noqa: ASYNC110 - a property, as the health check reads it
            await asyncio.sleep(TICK / 10)


async def until_trouble(node: Node, word: str) -> None:
    """Wait for a trouble that says so, perhaps after others."""
    async with asyncio.timeout(SOON):
        while word not in node.engine.unready_reason:  # noqa: ASYNC110 - a property, as the health check reads it
            await asyncio.sleep(TICK / 10)
