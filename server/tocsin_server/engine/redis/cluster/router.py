"""The router: sends each command, and each subscription, to the master of its slot.

The mutable state, and the methods that change it:

    _topology       which master serves which slot                  _apply_topology()
    _shards         the shard of each master                        _apply_topology(), _retire()
    _shard_tasks    the task of each shard                          _start(), _retire()
    _retired_…      the connection counts of former shards          _retire()
    _unassigned     wanted names in slots that no server serves     _move_to_owners(), unsubscribe()
    _slot_queues    held commands (see slot_queues)                 _route(), _redirect(), _requeue_commands()
    _numbers        the order in which commands were made           _command()
    _is_open        whether a topology is known                     _apply_topology()
    _tasks, _uid    while the router runs                           run()

A new topology is applied in two steps. `_apply_topology` first waits until the new masters accept commands.
Then it changes the state without an await, and `_move_to_owners` moves names and commands. So names and
commands always follow the same topology.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import structlog
from redis.exceptions import AskError, MovedError

from tocsin_server.eager_future import EagerFuture
from tocsin_server.engine.redis.cluster.pubsub import ShardedPubSubConnection
from tocsin_server.engine.redis.cluster.redirects import RoutedCommand, SlotQueues
from tocsin_server.engine.redis.cluster.slots import (
    UNKNOWN_TOPOLOGY,
    Host,
    Topology,
    hash_tag_within,
    slot_of,
)
from tocsin_server.engine.redis.cluster.subscriptions import MigratedSubscription
from tocsin_server.engine.redis.cluster.topology_watcher import TopologyWatcher
from tocsin_server.engine.redis.connections.address import Address
from tocsin_server.engine.redis.connections.connection import REPLY_SECONDS, RedisConnection, pack_command
from tocsin_server.engine.redis.connections.connector import Backoff, Connector
from tocsin_server.engine.redis.deployment import Shard
from tocsin_server.engine.redis.interfaces import COMMAND_SECONDS, Argument, OnMessage, PendingReply
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.pipeline import Pipeline, RedisCommand
from tocsin_server.engine.redis.pubsub.connection import OnResubscribed
from tocsin_server.engine.redis.scripts import Script
from tocsin_server.engine.redis.supervisor import Supervisor
from tocsin_server.errors import EngineError

SHARDED_PUBLISH = "SPUBLISH"

log = structlog.get_logger()


class ClusterShard(Shard[ShardedPubSubConnection]):
    """The shard of one master of a cluster."""

    def __init__(self, pipeline: Pipeline, pubsub: ShardedPubSubConnection) -> None:
        super().__init__(pipeline, pubsub)
        self.retired = asyncio.Event()
        """Set once the router has stopped using this master."""

    async def wait_proven_or_retired(self) -> None:
        """Wait until a probe was received from this master, or until it is retired."""
        waits = [asyncio.create_task(event.wait()) for event in (self.pubsub.proven, self.retired)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


class Router:
    """Implements Deployment, Commands and PubSub for a Redis Cluster.

    A command that its master redirects is sent again (see slot_queues): Redis redirects a command before it
    does anything. If a master is down, its queued commands wait until their deadline, or go to the server
    that replaces it. Its commands in flight have an unknown outcome and fail.
    """

    publish_command = SHARDED_PUBLISH
    is_sharded = True

    def __init__(
        self,
        address: Address,
        prefix: str,
        supervisor: Supervisor,
        random: Random,
        on_resubscribed: OnResubscribed,
    ) -> None:
        self._prefix = prefix
        self._keys = Keys(prefix)
        self._supervisor = supervisor
        self._random = random
        self._on_resubscribed = on_resubscribed
        self._watcher = TopologyWatcher(address, prefix, random, self._apply_topology)
        self._topology = UNKNOWN_TOPOLOGY
        self._shards: dict[Host, ClusterShard] = {}
        self._unassigned: list[MigratedSubscription] = []
        self._slot_queues = SlotQueues(self._send, self._watcher.wait_for_reread)
        self._numbers = itertools.count()
        self._uid = ""
        self._tasks: asyncio.TaskGroup | None = None
        self._shard_tasks: dict[ClusterShard, asyncio.Task[None]] = {}
        self._retired_connections = self._retired_pubsub_connections = 0
        self._is_open = asyncio.Event()

    # ----------------------------------------------------------------------------------------------- commands

    @property
    def connection_count(self) -> int:
        """How many pipeline connections were made so far, to all masters."""
        return self._retired_connections + sum(shard.pipeline.connection_count for shard in self.shards)

    def execute(
        self, *command: Argument, seconds: float = COMMAND_SECONDS, after: PendingReply | None = None
    ) -> PendingReply:
        """Send a command to the master of its key. It fails if it is not sent within `seconds`."""
        return self._route(self._command(pack_command(*command), seconds, slot_of(command[1]), after))

    def send(self, packed: bytes, key: str) -> EagerFuture[Any]:
        """Send a packed command to the master of its key."""
        reply: EagerFuture[Any] = EagerFuture()
        self._route(self._command(packed, COMMAND_SECONDS, slot_of(key), None, reply))
        return reply

    def run_script(
        self, script: Script, keys: Sequence[str], *arguments: Argument, after: PendingReply | None = None
    ) -> PendingReply:
        """Run a script on the master of its keys."""
        packed = pack_command("EVALSHA", script.digest, len(keys), *keys, *arguments)
        return self._route(self._command(packed, COMMAND_SECONDS, slot_of(keys[0]), after))

    def connector_for(self, key: str) -> Connector | None:
        """How to make further connections to the master of a key, as Deployment describes."""
        shard = self._shards.get(self._topology.owners[slot_of(key)])
        return None if shard is None else shard.pipeline.connector

    def _command(
        self,
        packed: bytes,
        seconds: float,
        slot: int,
        after: PendingReply | None,
        reply: EagerFuture[Any] | None = None,
    ) -> RoutedCommand:
        return RoutedCommand(packed, seconds, slot, next(self._numbers), self._redirect, after, reply)

    def _route(self, command: RoutedCommand) -> PendingReply:
        """Send or hold a command.

        There are three cases:

        1. The engine is not running: the command fails.
        2. It depends on another command, or its slot has a queue: it is held there.
        3. Otherwise it is sent to the master of its slot.
        """
        if self._tasks is None:
            command.fail("the engine is not running")
        elif command.after is not None or command.slot in self._slot_queues:
            self._slot_queues.hold(command)
        else:
            self._send(command)
        return command.reply

    def _send(self, command: RoutedCommand) -> None:
        """Send a command to a server.

        There are three cases:

        1. An ASK redirect named the server that imports the slot: the command is sent there, after ASKING.
        2. The slot has a master: the command is sent there.
        3. No server serves the slot: the command fails.
        """
        shard = self._shards.get(command.ask_host) if command.ask_host else None
        command.ask_host = None
        if shard is not None:
            asking = RedisCommand(pack_command("ASKING"), COMMAND_SECONDS)
            shard.pipeline.enqueue(asking).add_done_callback(_ignore_outcome)
        else:
            shard = self._shards.get(self._topology.owners[command.slot])
        if shard is None:
            command.fail("no server of the Redis Cluster serves its slot")
        else:
            shard.pipeline.enqueue(command)

    def _redirect(self, command: RoutedCommand, error: Exception) -> None:
        """Hold a command that a server has redirected.

        There are three cases:

        1. ASK, to a known master: the command is sent there once, and the topology stays.
        2. MOVED, or ASK to an unknown server: the topology is read again first, from that server if possible.
        3. TRYAGAIN or CLUSTERDOWN: the topology is read again first.
        """
        # MovedError is a subclass of AskError.
        host = Host(error.host, error.port) if isinstance(error, AskError) else None
        is_ask = host in self._shards and not isinstance(error, MovedError)
        command.ask_host = host if is_ask else None
        if host is not None:
            self._watcher.suggest_host(host)
        self._slot_queues.hold(command, needs_reread=not is_ask)

    # ------------------------------------------------------------------------------------------ subscriptions

    async def subscribe(self, name: str, on_message: OnMessage) -> None:
        """Subscribe to a name, as PubSub describes."""
        await self._pubsub_for(name).subscribe(name, on_message)

    async def unsubscribe(self, name: str) -> None:
        """Unsubscribe from a name. Idempotent."""
        self._unassigned = [migrated for migrated in self._unassigned if migrated.name != name.encode()]
        await self._pubsub_for(name).unsubscribe(name)

    def _pubsub_for(self, name: str) -> ShardedPubSubConnection:
        if self._tasks is None:
            raise EngineError("the engine is not running")
        shard = self._shards.get(self._topology.owners[slot_of(name)])
        if shard is None:
            raise EngineError("no server of the Redis Cluster serves its slot")
        return shard.pubsub

    # --------------------------------------------------------------------------------------------- deployment

    @property
    def commands(self) -> Router:
        """The router itself."""
        return self

    @property
    def pubsub(self) -> Router:
        """The router itself."""
        return self

    @property
    def shards(self) -> list[ClusterShard]:
        """The shards of all masters."""
        return list(self._shards.values())

    @property
    def unready_reason(self) -> str:
        """The reason of the first shard that is not ready, or that of the topology watcher."""
        reasons = (shard.unready_reason for shard in self.shards)
        return next((reason for reason in reasons if reason), self._watcher.unready_reason)

    @property
    def queued_bytes(self) -> int:
        """The size of the commands that are queued for any master, or held."""
        return self._slot_queues.queued_bytes + sum(shard.pipeline.queued_bytes for shard in self.shards)

    @property
    def pubsub_connection_count(self) -> int:
        """How many pub/sub connections were established so far, to all masters."""
        current = sum(shard.pubsub.connection_count for shard in self.shards)
        return self._retired_pubsub_connections + current

    async def check(self) -> None:
        """Check that the cluster serves all slots and is not too old. Raises EngineError if not."""
        await self._watcher.discovery.check()

    async def run(self, uid: str) -> None:
        """Connect to the cluster, and follow its topology, until cancelled."""
        self._uid = uid
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._slot_queues.open(tasks)
                for shard in self.shards:
                    self._start(shard)
                await self._watcher.run(self._ready_masters)
        finally:
            self._tasks = None
            self._slot_queues.close()

    async def wait_opened(self) -> None:
        """Wait until the topology is known and commands are accepted."""
        await self._is_open.wait()

    async def wait_proven(self) -> None:
        """Wait until a probe was received from every master. Masters may be replaced meanwhile."""
        while unproven := [shard for shard in self.shards if not shard.pubsub.proven.is_set()]:
            await unproven[0].wait_proven_or_retired()

    async def close(self) -> None:
        """Do nothing: every connection is closed when `run` ends."""

    # ----------------------------------------------------------------------------------------------- topology

    def _ready_masters(self) -> list[Host]:
        return [host for host, shard in self._shards.items() if not shard.unready_reason]

    async def _apply_topology(self, topology: Topology) -> None:
        new = {host: self._add_shard(host) for host in topology.masters - self._shards.keys()}
        for shard in new.values():
            await shard.opened.wait()
        self._shards.update(new)
        has_changed = topology.owners != self._topology.owners
        self._topology = topology
        if has_changed:
            self._move_to_owners()
        for shard in self.shards:
            shard.pubsub.retry()
        self._is_open.set()

    def _move_to_owners(self) -> None:
        """Move names and commands to the masters that serve their slots now.

        There are four cases for a shard:
        1. A slot has left it: the slot's names are released, and its queued commands are routed again.
        2. It serves no slots any longer: it is retired.
        3. Its probe's slot has left it, or it has no probe yet: the probe gets a name in one of its slots.
        4. A slot has come to it: it accepts the slot's names, once all shards have released theirs.
        """
        migrated, self._unassigned = self._unassigned, []
        slots_by_master = self._topology.slots_by_master
        for host, shard in list(self._shards.items()):
            slots = slots_by_master.get(host, set())
            migrated += self._release_subscriptions(shard, slots)
            self._requeue_commands(shard)
            if not slots:
                self._retire(host)
            elif not shard.probe.name or slot_of(shard.probe.name) not in slots:
                shard.probe.rename(self._keys.shard_probe(self._uid, hash_tag_within(slots)))
        for subscription in migrated:
            self._assign(subscription)

    def _release_subscriptions(self, shard: ClusterShard, slots: set[int]) -> list[MigratedSubscription]:
        """Remove and return the names whose slots this master no longer serves, except its probe's."""
        released = shard.pubsub.release(lambda name: slot_of(name) not in slots)
        probe_name = shard.probe.name.encode()
        for migrated in released:
            if migrated.name == probe_name:
                migrated.change.confirm()
        return [migrated for migrated in released if migrated.name != probe_name]

    def _requeue_commands(self, shard: ClusterShard) -> None:
        """Route a shard's queued commands again, after its commands in flight of the same slots."""
        owners = self._topology.owners
        self._slot_queues.track_in_flight(
            command
            for command in shard.pipeline.in_flight
            if isinstance(command, RoutedCommand) and self._shards.get(owners[command.slot]) is not shard
        )
        for command in shard.pipeline.take_queued():
            if isinstance(command, RoutedCommand):
                self._route(command)
            else:
                shard.pipeline.enqueue(command)

    def _assign(self, migrated: MigratedSubscription) -> None:
        shard = self._shards.get(self._topology.owners[slot_of(migrated.name)])
        if shard is None:
            self._unassigned.append(migrated)
        else:
            shard.pubsub.accept(migrated)

    # ------------------------------------------------------------------------------------------------- shards

    def _add_shard(self, host: Host) -> ClusterShard:
        invalidate = self._watcher.invalidate
        connector = InvalidatingConnector(self._watcher.discovery.address_of(host), self._prefix, invalidate)
        pipeline = Pipeline(connector, Backoff(self._random), SHARDED_PUBLISH)
        pubsub = ShardedPubSubConnection(connector, Backoff(self._random), self._on_resubscribed, invalidate)
        shard = ClusterShard(pipeline, pubsub)
        self._start(shard)
        if self._is_open.is_set():
            log.info("cluster_master_added", redis=str(host))
        return shard

    def _start(self, shard: ClusterShard) -> None:
        assert self._tasks is not None  # noqa: S101 - for mypy: only called while running
        self._shard_tasks[shard] = self._tasks.create_task(shard.run(self._supervisor))

    def _retire(self, host: Host) -> None:
        """Stop using a server that serves no slots."""
        shard = self._shards.pop(host)
        shard.retired.set()
        self._retired_connections += shard.pipeline.connection_count
        self._retired_pubsub_connections += shard.pubsub.connection_count
        task = self._shard_tasks.pop(shard)
        # It may still answer its commands in flight: if it became a replica, with redirects.
        asyncio.get_running_loop().call_later(REPLY_SECONDS, task.cancel)
        log.info("cluster_master_removed", redis=str(host))


class InvalidatingConnector(Connector):
    """A connector that invalidates the topology: a server that closed a connection may be replaced."""

    def __init__(self, address: Address, client_name: str, invalidate_topology: Callable[[], None]) -> None:
        super().__init__(address, client_name)
        self._invalidate_topology = invalidate_topology

    async def connect(self) -> RedisConnection:
        """Invalidate the topology, and make a connection."""
        self._invalidate_topology()
        return await super().connect()


def _ignore_outcome(reply: PendingReply) -> None:
    """Retrieve the exception of ASKING. The reply to the command after it shows whether it worked."""
    if not reply.cancelled():
        reply.exception()
