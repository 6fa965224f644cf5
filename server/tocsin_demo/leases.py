"""The leases of the nodes, as Redis has them: what the survivors of a killed node look at too."""

import asyncio
from typing import Self, cast

import redis.asyncio
from redis.exceptions import RedisError

from tocsin_server.config.options import EngineOptions
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.membership.failure_detector import node_of

LOOK_SECONDS = 0.1
"""Between two looks, while somebody waits for a lease to go."""

LAPSE_SECONDS = 4.0
"""By then the lease of a killed node has expired (engine/redis/membership/failure_detector.py)."""

PATIENCE_SECONDS = 30.0
"""After which nobody waits any more."""


class Leases:
    """Looked at, never touched."""

    def __init__(self, url: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(url)
        self._key = Keys(EngineOptions().prefix).nodes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose()

    async def gone(self, uid: str) -> bool:
        """Wait until no lease of this node is left. False if that cannot be seen."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await self._is_held(uid):  # noqa: ASYNC110 - Redis tells nobody
                    await asyncio.sleep(LOOK_SECONDS)
        except (TimeoutError, RedisError):
            return False
        return True

    async def _is_held(self, uid: str) -> bool:
        leases = cast(list[bytes], await self._redis.hkeys(self._key))
        return any(node_of(lease) == uid for lease in leases)
