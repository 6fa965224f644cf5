"""Deployments: how the engine reaches Redis. A URL names a standalone Redis, Sentinels, or a Redis Cluster.

Standalone also covers a master behind Sentinels. The deployment of a Redis Cluster is
`cluster.router.Router`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Generic, Protocol, TypeVar

from tocsin_server.engine.redis.connections.address import Address
from tocsin_server.engine.redis.connections.connection import CONNECTION_ERRORS, describe
from tocsin_server.engine.redis.connections.connector import (
    OLDEST_VERSION,
    Backoff,
    Connector,
    check_version,
    read_server_info,
)
from tocsin_server.engine.redis.interfaces import Commands, PubSub
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.pipeline import Pipeline
from tocsin_server.engine.redis.pubsub.connection import OnResubscribed, PubSubConnection
from tocsin_server.engine.redis.pubsub.probe import Probe
from tocsin_server.engine.redis.supervisor import Supervisor
from tocsin_server.errors import EngineError

PubSubConnection_co = TypeVar("PubSubConnection_co", bound=PubSubConnection, covariant=True)


class Shard(Generic[PubSubConnection_co]):
    """One Redis server that takes commands, with its pipeline, pub/sub connection and probe."""

    def __init__(self, pipeline: Pipeline, pubsub: PubSubConnection_co) -> None:
        self.pipeline = pipeline
        self.pubsub = pubsub
        self.probe = Probe("", pipeline, pubsub)
        """The owner must rename it before `run`."""
        self.opened = asyncio.Event()
        """Set once commands and subscriptions are accepted."""

    @property
    def unready_reason(self) -> str:
        """Why this server cannot be used now, as a sentence. Empty if it can."""
        return self.pipeline.unready_reason or self.pubsub.unready_reason

    async def run(self, supervisor: Supervisor) -> None:
        """Run all three parts until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(supervisor.supervise("pipeline", self.pipeline.run))
            tasks.create_task(supervisor.supervise("pub/sub connection", self.pubsub.run))
            await asyncio.sleep(0)  # both begin to accept commands and subscriptions
            self.opened.set()
            tasks.create_task(supervisor.supervise("probe", self.probe.run))


class Deployment(Protocol):
    """The Redis servers that a URL names. The engine calls `check` first, then `run`, and `close` last.

    `commands` and `pubsub` are the same objects throughout.
    """

    @property
    def commands(self) -> Commands:
        """Sends commands."""

    @property
    def pubsub(self) -> PubSub:
        """Subscribes to names."""

    @property
    def shards(self) -> Sequence[Shard[PubSubConnection]]:
        """The servers that are in use now."""

    @property
    def unready_reason(self) -> str:
        """Why some server cannot be used now, as a sentence. Empty if all can."""

    @property
    def queued_bytes(self) -> int:
        """The size of the queued commands."""

    @property
    def pubsub_connection_count(self) -> int:
        """How many pub/sub connections were established so far."""

    def connector_for(self, key: str) -> Connector | None:
        """How to make further connections to the server that has a key. None: no server serves it now."""

    async def check(self) -> None:
        """Check once that the servers are reachable and suitable. Raises EngineError if not."""

    async def run(self, uid: str) -> None:
        """Connect, and stay connected, for the node `uid`, until cancelled."""

    async def wait_opened(self) -> None:
        """Wait until commands and subscriptions are accepted."""

    async def wait_proven(self) -> None:
        """Wait until a probe was received on every pub/sub connection."""

    async def close(self) -> None:
        """Release what `run` does not release. Idempotent."""


class Standalone:
    """Implements Deployment for one server: a standalone Redis, or the master behind Sentinels.

    `commands` is the pipeline itself, and `pubsub` the pub/sub connection.
    """

    def __init__(
        self,
        address: Address,
        prefix: str,
        supervisor: Supervisor,
        random: Random,
        on_resubscribed: OnResubscribed,
    ) -> None:
        self._connector = Connector(address, prefix)
        self._keys = Keys(prefix, address.database)
        self._supervisor = supervisor
        self.commands = Pipeline(self._connector, Backoff(random))
        self.pubsub = PubSubConnection(self._connector, Backoff(random), on_resubscribed)
        self._shard: Shard[PubSubConnection] = Shard(self.commands, self.pubsub)
        self.shards: Sequence[Shard[PubSubConnection]] = [self._shard]

    @property
    def unready_reason(self) -> str:
        """Why the server cannot be used now, as a sentence. Empty if it can."""
        return self._shard.unready_reason

    @property
    def queued_bytes(self) -> int:
        """The size of the queued commands."""
        return self.commands.queued_bytes

    @property
    def pubsub_connection_count(self) -> int:
        """How many pub/sub connections were established so far."""
        return self.pubsub.connection_count

    def connector_for(self, key: str) -> Connector:  # noqa: ARG002 - the server has every key
        """How to make further connections to the server."""
        return self._connector

    async def check(self) -> None:
        """Check that the server is reachable, not too old and not part of a cluster.

        Raises EngineError if not.
        """
        name = self._connector.name
        try:
            info = await read_server_info(self._connector)
        except CONNECTION_ERRORS as error:
            raise EngineError(f"Redis at {name} cannot be used: {describe(error)}") from None
        if info.get("redis_mode") == "cluster":
            raise EngineError(
                f"Redis at {name} is part of a cluster: "
                "engine.url must begin with redis+cluster:// or rediss+cluster://"
            )
        check_version(info, name, OLDEST_VERSION)

    async def run(self, uid: str) -> None:
        """Connect, and stay connected, until cancelled."""
        self._shard.probe.rename(self._keys.probe(uid))
        await self._shard.run(self._supervisor)

    async def wait_opened(self) -> None:
        """Wait until commands and subscriptions are accepted."""
        await self._shard.opened.wait()

    async def wait_proven(self) -> None:
        """Wait until a probe was received."""
        await self.pubsub.proven.wait()

    async def close(self) -> None:
        """Close the connections to the Sentinels. Idempotent."""
        await self._connector.close()
