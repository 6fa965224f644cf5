"""Fixtures for the tests of sources: a PostgreSQL, a Redis, and nodes that read from them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.server.sources.outbox_table import OutboxTable
from tests.support.postgres import PostgresServer, postgres_running

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The PostgreSQL that tests share. Each test has a table of its own."""
    with postgres_running() as server:
        yield server


@pytest.fixture
async def database(postgres: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    """The connection of a back end."""
    connection = await asyncpg.connect(postgres.url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def table(postgres: PostgresServer, database: asyncpg.Connection) -> OutboxTable:
    """An outbox that no other test uses."""
    table = OutboxTable(postgres.url, f"outbox_{next(_numbers)}", database)
    await table.create()
    return table


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The Redis that tests share. Each test has its own prefix."""
    with redis_running(tmp_path_factory.mktemp("redis"), "appendonly no") as server:
        yield server


@pytest.fixture
def prefix() -> str:
    """A prefix in Redis that no other test uses."""
    return f"source{next(_numbers)}"
