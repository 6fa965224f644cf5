"""The examination of a server before anything relies on it."""

from __future__ import annotations

import asyncio

from tocsin_server.engine.redis.connections.address import CONNECT_SECONDS, Dialler
from tocsin_server.engine.redis.connections.connection import pack
from tocsin_server.errors import EngineError

OLDEST = (6, 2)
"""Redis 6.2 knows exclusive ends of ranges, which reading a log needs."""

OLDEST_CLUSTER = (7, 0)
"""Redis 7.0 knows sharded pub/sub. The other kind sends everything to every server of a cluster."""


async def server_facts(dialler: Dialler) -> dict[str, str]:
    """What a server says of itself. Raises one of FAILURES."""
    async with dialler.connected() as connection, asyncio.timeout(CONNECT_SECONDS):
        (answer,) = await connection.ask(pack("INFO", "server"))
    return dict(line.partition(":")[::2] for line in bytes(answer).decode().splitlines())


def check_version(facts: dict[str, str], name: str, oldest: tuple[int, int], why: str = "") -> None:
    """Raise EngineError if a server is too old."""
    version = facts.get("redis_version", "0")
    if tuple(map(int, version.split(".")[:2])) < oldest:
        raise EngineError(f"Redis at {name} is {version}, but must be at least {oldest[0]}.{oldest[1]}{why}")
