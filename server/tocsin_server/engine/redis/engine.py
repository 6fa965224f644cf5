"""The Redis engine: its parts, and the tasks that run them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from random import Random

from tocsin_server.config.event_options import EventOptions
from tocsin_server.engine.engine import EngineHandler, EngineHealth
from tocsin_server.engine.redis.broker import RedisBroker
from tocsin_server.engine.redis.clock import SharedClock
from tocsin_server.engine.redis.cluster.router import Router
from tocsin_server.engine.redis.cluster.slots import hash_tags
from tocsin_server.engine.redis.connections.address import Address
from tocsin_server.engine.redis.connections.connection import describe
from tocsin_server.engine.redis.deliveries import RedisDeliveryStore
from tocsin_server.engine.redis.deployment import Deployment, Standalone
from tocsin_server.engine.redis.dropped_messages import DroppedMessages
from tocsin_server.engine.redis.epochs import Epochs
from tocsin_server.engine.redis.event_log import RedisEventLog
from tocsin_server.engine.redis.forwarding import RedisForwarding
from tocsin_server.engine.redis.interfaces import StoreState
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.membership.lease import Lease
from tocsin_server.engine.redis.membership.reaper import Reaper
from tocsin_server.engine.redis.nodes import RedisNodeRegistry
from tocsin_server.engine.redis.presence import RedisPresenceStore
from tocsin_server.engine.redis.presence_checker import PresenceChecker
from tocsin_server.engine.redis.publish_stream import RedisPublishStream
from tocsin_server.engine.redis.revocations import RedisRevocationStore
from tocsin_server.engine.redis.server_checks import ServerChecks
from tocsin_server.engine.redis.signatures import Signatures
from tocsin_server.engine.redis.supervisor import Supervisor
from tocsin_server.engine.redis.user_connections import RedisUserConnections
from tocsin_server.engine.redis.verification import Verifier
from tocsin_server.errors import EngineError

START_SECONDS = 5.0
"""The limit for receiving the first probe after Redis has answered."""

STOP_SECONDS = 1.0
"""The limit for deregistering. Redis may be gone."""


class RedisEngine:
    """Implements Engine for any number of nodes over a standalone Redis, Sentinels, or a Redis Cluster.

    Each node has two connections, on a cluster two for each master.

    Redis acknowledges a write before its replicas have it and, by default, before its disk has it.
    Publications that a failover or a crash loses are not restored; clients are told of the gap (see
    RedisBroker).

    `digest` is that of which channels keep history (see factory). From `memory_limit` of Redis' maxmemory on,
    no histories begin and no presence entries are added. `control_secret` signs control commands; if it is
    empty, a key in Redis does. `events` says which lifecycle events are recorded.
    """

    def __init__(
        self,
        address: Address,
        prefix: str,
        *,
        digest: str = "",
        memory_limit: float = 1.0,
        control_secret: str = "",
        random: Random | None = None,
        events: EventOptions | None = None,
    ) -> None:
        self._random = random or Random()  # noqa: S311 - seeded by the system; names must differ, not be secret
        self._supervisor = Supervisor()
        kind = Router if address.is_cluster else Standalone
        self._deployment: Deployment = kind(
            address, prefix, self._supervisor, self._random, self._on_resubscribed
        )
        keys = Keys(prefix, address.database, hash_tags() if address.is_cluster else ())
        commands, pubsub = self._deployment.commands, self._deployment.pubsub
        self._keys = keys
        self._digest = digest
        self._clock = SharedClock(keys, commands)
        self._dropped = DroppedMessages()
        self._signatures = Signatures(keys, commands, control_secret)
        self._broker = RedisBroker(
            keys,
            commands,
            pubsub,
            self._clock,
            Epochs(self._random),
            self._dropped,
            StoreState(self._trusts_absence, self._may_grow),
        )
        self._presence = RedisPresenceStore(keys, commands, self._random, self._may_grow)
        self._presence_checker = PresenceChecker(self._presence)
        self._server_checks = ServerChecks(self._deployment, keys, memory_limit)
        self._users = RedisUserConnections(keys, commands)
        verifier = Verifier(self._signatures, self._dropped)
        between_nodes = (keys, commands, pubsub, self._clock, self._signatures, verifier, self._dropped)
        self._nodes = RedisNodeRegistry(*between_nodes)
        self._forwarding = RedisForwarding(*between_nodes)
        self._revocations = RedisRevocationStore(keys, commands, pubsub)
        self._event_options = events or EventOptions()
        self._event_log = RedisEventLog(keys, commands, pubsub, self._event_options, self._random)
        self._deliveries = RedisDeliveryStore(keys, commands)
        self._publish_stream = RedisPublishStream(keys, commands, self._clock, self._deployment.connector_for)
        self._lease: Lease | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_running = False

    @property
    def broker(self) -> RedisBroker:
        """Stores history and carries publications."""
        return self._broker

    @property
    def presence(self) -> RedisPresenceStore:
        """Knows which clients are in a channel."""
        return self._presence

    @property
    def nodes(self) -> RedisNodeRegistry:
        """Knows which nodes are alive, and carries control commands and surveys."""
        return self._nodes

    @property
    def users(self) -> RedisUserConnections:
        """Counts the connections of users."""
        return self._users

    @property
    def revocations(self) -> RedisRevocationStore:
        """Keeps revocations of tokens."""
        return self._revocations

    @property
    def deliveries(self) -> RedisDeliveryStore:
        """Keeps dead letters, and what is known of failing deliveries."""
        return self._deliveries

    @property
    def forwarding(self) -> RedisForwarding:
        """Forwards commands of emulated connections."""
        return self._forwarding

    @property
    def event_log(self) -> RedisEventLog:
        """Keeps lifecycle events."""
        return self._event_log

    @property
    def publish_stream(self) -> RedisPublishStream:
        """Entries that programs add for a node to publish."""
        return self._publish_stream

    @property
    def unready_reason(self) -> str:
        """Why this node cannot publish or receive now, as a sentence. Empty if it can."""
        if not self._is_running:
            return "The engine is not running."
        return (
            self._supervisor.unready_reason
            or self._deployment.unready_reason
            or self._server_checks.unready_reason
            or (self._lease.unready_reason if self._lease else "")
        )

    @property
    def lag_seconds(self) -> float:
        """How long this node's last probe travelled. With several shards, the longest time."""
        return max((shard.probe.lag_seconds for shard in self._deployment.shards), default=0.0)

    @property
    def health(self) -> EngineHealth:
        """The current figures of the shards and the lease."""
        shards = self._deployment.shards
        return EngineHealth(
            is_deaf=any(shard.pubsub.unready_reason for shard in shards),
            silence_seconds=max((shard.probe.silence_seconds for shard in shards), default=0.0),
            waiting_bytes=self._deployment.queued_bytes,
            links=self._deployment.pubsub_connection_count,
            reaped_nodes=self._lease.reaped_nodes if self._lease else 0,
            forged_messages=self._dropped.forged,
            restored_channels=self._presence_checker.restored_channels,
            warnings=self._server_checks.warnings,
            shared_time=self._clock.stamp() / 1e6,
        )

    @property
    def may_lose_messages(self) -> bool:
        """Always true: Redis' pub/sub does not repeat lost messages."""
        return True

    async def start(self, handler: EngineHandler) -> None:
        """Connect, prove the pub/sub connections, and register this node.

        Raises EngineError if a step fails.
        """
        await self._deployment.check()
        parts = (self._server_checks, self._users, self._event_log, self._publish_stream)
        for part in parts:
            part.uid = handler.uid
        commands = self._deployment.commands
        reaper = Reaper(handler.uid, self._keys, commands)
        self._lease = Lease(
            handler.uid,
            self._keys,
            commands,
            self._presence,
            reaper.reap,
            self._random,
            self._presence_checker.check,
        )
        self._lease.digest = self._digest
        if self._event_options.types:
            self._lease.on_alive = self._event_log.on_alive
            self._lease.on_node_dead = self._event_log.on_node_dead
        self._broker.start(handler)
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(handler, self._lease, started))
        try:
            await started
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Deregister this node, and disconnect. Idempotent."""
        if self._is_running and self._lease is not None:
            with suppress(EngineError, TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._lease.release()
        self._is_running = False
        self._nodes.stop()
        self._revocations.stop()
        self._forwarding.stop()
        self._broker.stop()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._deployment.close()

    async def _run(self, handler: EngineHandler, lease: Lease, started: asyncio.Future[None]) -> None:
        """Own every task of the engine. `started` gets the outcome of the start."""
        supervise = self._supervisor.supervise
        async with asyncio.TaskGroup() as tasks:
            run_deployment = supervise("connection to Redis", lambda: self._deployment.run(handler.uid))
            tasks.create_task(run_deployment)
            try:
                async with asyncio.timeout(START_SECONDS):
                    await self._deployment.wait_opened()
                    await self._clock.start()
                    tasks.create_task(supervise("clock", self._clock.run))
                    await self._nodes.start(handler)
                    await self._forwarding.start(handler)
                    await lease.register()
                    await self._deployment.wait_proven()
                    await self._server_checks.check()
                    self._server_checks.raise_if_unusable()
                    await self._signatures.keep()
                    await self._revocations.start(handler)
            except (EngineError, TimeoutError) as error:
                started.set_exception(EngineError(self._deployment.unready_reason or describe(error)))
            else:
                tasks.create_task(supervise("lease", lambda: lease.run(tasks)))
                tasks.create_task(supervise("user connections", self._users.run))
                tasks.create_task(supervise("signature key", self._signatures.run))
                tasks.create_task(supervise("server checks", self._server_checks.run))
                tasks.create_task(supervise("revocations", self._revocations.run))
                if self._event_options.types:
                    tasks.create_task(supervise("event log", self._event_log.run))
                self._is_running = True
                started.set_result(None)

    def _on_resubscribed(self, names: Sequence[bytes]) -> None:
        self._broker.on_resubscribed(names)

    def _trusts_absence(self) -> bool:
        """Whether a missing top proves that a channel had no publications (see RedisBroker)."""
        is_mixed = self._lease is not None and self._lease.is_mixed
        return not is_mixed and not self._server_checks.is_evicting

    def _may_grow(self) -> bool:
        """Whether Redis has room for new histories and presence entries."""
        return not self._server_checks.is_nearly_full
