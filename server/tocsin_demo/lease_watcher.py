"""Reads node leases in Redis: the same keys from which nodes learn that another node is dead."""

import asyncio
from typing import Self, cast

import redis.asyncio
from redis.exceptions import RedisError

from tocsin_server.config.options import EngineOptions
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.membership.failure_detector import node_of

POLL_SECONDS = 0.1
"""Redis does not push the end of a lease, so the watcher polls while it waits for one."""

EXPIRE_SECONDS = 4.0
"""The lease of a killed node expires within this time (docs/state.md)."""

WAIT_LIMIT_SECONDS = 30.0
"""After this time, the watcher stops waiting."""


class LeaseWatcher:
    """An asynchronous context manager that owns one connection to Redis."""

    def __init__(self, url: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(url)
        self._key = Keys(EngineOptions().prefix).nodes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose()

    async def wait_until_expired(self, uid: str) -> bool:
        """Wait until Redis holds no lease of this node. Return False after a timeout or an error of Redis."""
        try:
            async with asyncio.timeout(WAIT_LIMIT_SECONDS):
                while await self._has_lease(uid):  # noqa: ASYNC110 - Redis pushes no such event
                    await asyncio.sleep(POLL_SECONDS)
        except (TimeoutError, RedisError):
            return False
        return True

    async def _has_lease(self, uid: str) -> bool:
        leases = cast(list[bytes], await self._redis.hkeys(self._key))
        return any(node_of(lease) == uid for lease in leases)
