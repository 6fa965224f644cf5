"""Real nodes that share a Redis read an outbox and a publish stream, and are killed with kill -9."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.server.engine.redis.redis_server import RedisServer
from tests.server.sources.outbox_table import LOG, OutboxTable
from tests.support.api import Api
from tests.support.server import TOCSIN, Server, as_toml
from tests.support.timing import progress_timeout


@contextmanager
def node_process(config: dict[str, Any], file: Path) -> Iterator[Server]:
    """A node that the test may kill."""
    file.write_text(as_toml(config))
    command = [str(TOCSIN), "serve", "--port", "0", "--config", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    server = Server(process)
    try:
        server.wait_until_ready()
        yield server
    finally:
        process.kill()
        server.stop()
    assert "Traceback" not in server.stderr


def config_of(table: OutboxTable, redis_server: RedisServer, prefix: str) -> dict[str, Any]:
    return {
        "engine": {"url": redis_server.url, "prefix": prefix},
        "api": {"insecure": True},
        "namespaces": {"log": LOG},
        "outbox": table.options,
        "publish_stream": {"enabled": True},
    }


async def published(server: Server, channel: str) -> list[Any]:
    async with Api(server) as api:
        page = await api.call("history", channel=channel, limit=-1)
    return [publication["data"] for publication in page["publications"]]


async def until_published(server: Server, channel: str, count: int) -> list[Any]:
    """Wait for so many publications, as long as they become more."""
    found: list[Any] = []
    async with progress_timeout(lambda: len(found)):
        while len(found) < count:
            found = await published(server, channel)
            await asyncio.sleep(0.01)
    return found


async def test_a_node_that_is_killed_under_load_loses_and_repeats_nothing(
    table: OutboxTable, redis_server: RedisServer, prefix: str, tmp_path: Path
) -> None:
    """Each channel has all rows, or entries, once and in order.

    A lock keeps the first node from deleting a row that it has published. The second one deletes it.
    """
    config, is_killed = config_of(table, redis_server, prefix), asyncio.Event()

    async def write() -> int:
        """Write until the first node is dead, and 50 times more. Returns the next number."""
        for number in itertools.count(1):
            await table.insert("log:rows", number)
            words = ("channel", "log:entries", "data", number)
            redis_server.command("XADD", f"{prefix}:publish", "*", *words)
            if not is_killed.is_set():
                last = number + 50
            elif number == last:
                break
        return number + 1

    await table.insert("log:rows", 0)
    async with table.other_back_end() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute(f"SELECT FROM {table.name} WHERE data = '0' FOR UPDATE")
        with node_process(config, tmp_path / "first.toml") as first:
            await until_published(first, "log:rows", 1)
            with node_process(config, tmp_path / "second.toml") as second:
                writing = asyncio.create_task(write())
                await until_published(first, "log:rows", 100)
                first.process.kill()
                is_killed.set()
                count = await writing
                assert await until_published(second, "log:rows", count) == list(range(count))
                assert await until_published(second, "log:entries", count - 1) == list(range(1, count))
                await table.until_empty("data <> '0'")
                assert await table.count() == 1
                await transaction.rollback()
                await table.until_empty("true")
                assert await published(second, "log:rows") == list(range(count))
