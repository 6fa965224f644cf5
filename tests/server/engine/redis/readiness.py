"""Waiting until an engine is ready or not. Readiness is polled, because no event announces it."""

from __future__ import annotations

import asyncio

from tests.server.engine.contract.harness import Node
from tests.support.timing import SOON, TICK
from tocsin_server.engine.redis.connections.connection import RedisConnection
from tocsin_server.engine.redis.connections.connector import Connector


class RecordingConnector(Connector):
    """A connector that keeps its last connection."""

    connection: RedisConnection

    async def connect(self) -> RedisConnection:
        self.connection = await super().connect()
        return self.connection


async def until_not_ready(node: Node) -> str:
    """Wait until the node is not ready. Returns the unready reason."""
    async with asyncio.timeout(SOON):
        while not (reason := node.engine.unready_reason):  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(TICK / 10)
    return reason


async def until_ready(node: Node) -> None:
    """Wait until the node is ready."""
    async with asyncio.timeout(SOON):
        while node.engine.unready_reason:  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(TICK / 10)


async def until_unready_reason(node: Node, words: str) -> None:
    """Wait for an unready reason that contains these words, perhaps after others."""
    async with asyncio.timeout(SOON):
        while words not in node.engine.unready_reason:  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(TICK / 10)
