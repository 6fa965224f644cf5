"""An outbox of a test: its table, what a back end does with it, and what a node has published."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tests.server.metrics.metrics_page import of
from tests.server.served_node import settings_of
from tests.support.timing import SOON, progress_timeout
from tocsin_server.app import create_app
from tocsin_server.engine.engine import Engine
from tocsin_server.node.node import Node
from tocsin_server.sources.postgres.schema import schema

LOG = {"history_size": 20_000, "history_ttl": "300s"}
"""Options of the namespace `log` in these tests: its history shows what was published."""


class OutboxTable:
    """One table, and the connection of a back end."""

    def __init__(self, url: str, name: str, database: asyncpg.Connection) -> None:
        self.url = url
        self.name = name
        self.database = database

    async def create(self, *, is_strict: bool = False) -> None:
        await self.database.execute(schema(self.name, is_strict=is_strict))

    @property
    def options(self) -> dict[str, Any]:
        """The section `[outbox]` of a node that reads the table."""
        return {"url": self.url, "table": self.name}

    async def insert(
        self, channel: str, *data: object, database: asyncpg.Connection | None = None, **columns: object
    ) -> None:
        """Insert a row for each payload, in one transaction."""
        names = ["channel", "data", *columns]
        marks = ", ".join(f"${number + 1}" for number in range(len(names)))
        await (database or self.database).executemany(
            f"INSERT INTO {self.name} ({', '.join(names)}) VALUES ({marks})",
            [(channel, json.dumps(one), *columns.values()) for one in data],
        )

    async def count(self, condition: str = "true") -> int:
        found: int = await self.database.fetchval(f"SELECT count(*) FROM {self.name} WHERE {condition}")
        return found

    async def until_empty(self, condition: str = "failed_at IS NULL") -> None:
        """Wait until no row is left that is not published."""
        left = [await self.count(condition)]
        async with progress_timeout(lambda: left[-1]):
            while left[-1]:
                await asyncio.sleep(0.005)
                left.append(await self.count(condition))

    async def failures(self) -> list[tuple[str, str]]:
        """The channel and the reason of each row that failed."""
        rows = await self.database.fetch(
            f"SELECT channel, failure FROM {self.name} WHERE failed_at IS NOT NULL ORDER BY id"
        )
        return [tuple(row) for row in rows]

    @asynccontextmanager
    async def other_back_end(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.url)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def read_by_node(self, own_engine: Engine | None = None, **sections: Any) -> AsyncIterator[Node]:
        """A node in this process that reads the table."""
        outbox = {**self.options, **sections.pop("outbox", {})}
        settings = settings_of({"namespaces": {"log": LOG}, **sections, "outbox": outbox})
        node: Node = create_app(settings, engine=own_engine).state.node
        async with node.running():
            yield node


async def published(node: Node, channel: str) -> list[Any]:
    """The payloads in the history of a channel, in order."""
    page = await node.operations.history(channel, -1, None, is_reverse=False)
    return [json.loads(bytes(one.data)) for one in page.publications]


def is_reading(node: Node, source: str = "outbox") -> bool:
    """Whether the node is the one that reads the source."""
    return of(node)[f"tocsin_source_reading{{source={source}}}"] == 1


async def until(fact: Callable[[], object]) -> None:
    """Wait for a fact that no event signals."""
    async with asyncio.timeout(SOON):
        while not fact():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def all_of(*work: Coroutine[Any, Any, object]) -> Sequence[object]:
    """Run several at once."""
    return await asyncio.gather(*work)
