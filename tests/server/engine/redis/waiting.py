"""Waiting for an engine to notice, and to recover. Its trouble is looked at, since nobody is told of it."""

from __future__ import annotations

import asyncio

from tests.server.engine.contract.harness import Node
from tests.support.timing import SOON, TICK
from tocsin_server.engine.redis.connections.connection import RedisConnection
from tocsin_server.engine.redis.connections.connector import Connector


class RecordingConnector(Connector):
    """Keeps what it connected last."""

    connection: RedisConnection

    async def connect(self) -> RedisConnection:
        self.connection = await super().connect()
        return self.connection


async def until_not_ready(node: Node) -> str:
    """What the trouble is."""
    async with asyncio.timeout(SOON):
        while not (trouble := node.engine.unready_reason):  # noqa: ASYNC110 - a property, as the health check reads it
            await asyncio.sleep(TICK / 10)
    return trouble


async def until_ready(node: Node) -> None:
    async with asyncio.timeout(SOON):
        while node.engine.unready_reason:  # noqa: ASYNC110 - a property, as the health check reads it
            await asyncio.sleep(TICK / 10)


async def until_unready_reason(node: Node, word: str) -> None:
    """Wait for a trouble that says so, perhaps after others."""
    async with asyncio.timeout(SOON):
        while word not in node.engine.unready_reason:  # noqa: ASYNC110 - a property, as the health check reads it
            await asyncio.sleep(TICK / 10)
