"""A way to Redis: whatever stands between the engine's parts and the servers, be it one or a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

from tocsin_server.engine.redis.cluster.shard import Shard
from tocsin_server.engine.redis.connections.address import Address, Dialler
from tocsin_server.engine.redis.connections.backoff import Backoff
from tocsin_server.engine.redis.connections.connection import FAILURES, reason
from tocsin_server.engine.redis.interfaces import Calls, Ears
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.pipeline import Pipeline
from tocsin_server.engine.redis.pubsub.connection import Link, Resume
from tocsin_server.engine.redis.requirements import OLDEST, check_version, server_facts
from tocsin_server.engine.redis.supervisor import Keeper
from tocsin_server.errors import EngineError


class Way(Protocol):
    """`examine` first, then `run`, and `close` in the end. `calls` and `ears` are the same throughout."""

    @property
    def calls(self) -> Calls:
        """For whoever asks something."""

    @property
    def ears(self) -> Ears:
        """For whoever hears something."""

    @property
    def shards(self) -> Sequence[Shard[Link]]:
        """The servers that are called and heard at present."""

    @property
    def unready_reason(self) -> str:
        """Why something can at present not be called or heard, as a sentence; empty if all can."""

    @property
    def waiting_bytes(self) -> int:
        """Calls that wait to be sent."""

    @property
    def links(self) -> int:
        """How many links were whole so far."""

    async def examine(self) -> None:
        """See to it that the servers are there and fit. Raises EngineError, without a second attempt."""

    async def run(self, uid: str) -> None:
        """Be open for the node `uid` until cancelled."""

    async def opened(self) -> None:
        """Wait until calls are taken."""

    async def proven(self) -> None:
        """Wait until whatever is announced is heard."""

    async def close(self) -> None:
        """Let go of everything. Idempotent."""


class StraightWay:
    """To one Redis, alone or behind Sentinels. Its calls are the pipeline itself, its ears the link."""

    def __init__(self, address: Address, prefix: str, keeper: Keeper, random: Random, resume: Resume) -> None:
        self._dialler = Dialler(address, prefix)
        self._keys = Keys(prefix)
        self._keeper = keeper
        self.calls = Pipeline(self._dialler, Backoff(random))
        self.ears = Link(self._dialler, Backoff(random), resume)
        self._shard: Shard[Link] = Shard(self.calls, self.ears)
        self.shards: Sequence[Shard[Link]] = [self._shard]

    @property
    def unready_reason(self) -> str:
        """That of the one Redis."""
        return self._shard.unready_reason

    @property
    def waiting_bytes(self) -> int:
        """Those of the pipeline."""
        return self.calls.waiting_bytes

    @property
    def links(self) -> int:
        """How often the link was replaced, and once more."""
        return self.ears.connections

    async def examine(self) -> None:
        """See to it that there is a Redis, and that it is neither too old nor part of a cluster."""
        name = self._dialler.name
        try:
            facts = await server_facts(self._dialler)
        except FAILURES as error:
            raise EngineError(f"Redis at {name} cannot be used: {reason(error)}") from None
        if facts.get("redis_mode") == "cluster":
            raise EngineError(
                f"Redis at {name} is part of a cluster: "
                "engine.url must begin with redis+cluster:// or rediss+cluster://"
            )
        check_version(facts, name, OLDEST)

    async def run(self, uid: str) -> None:
        """Run all parts until cancelled."""
        self._shard.canary.rename(self._keys.canary(uid))
        await self._shard.run(self._keeper)

    async def opened(self) -> None:
        """Wait until both connections may be used."""
        await self._shard.opened.wait()

    async def proven(self) -> None:
        """Wait until a canary came through."""
        await self.ears.proven.wait()

    async def close(self) -> None:
        """Let go of the Sentinels. Idempotent."""
        await self._dialler.close()
