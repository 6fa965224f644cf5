"""The shards of a cluster: every call goes to, and every name is heard from, the master of its slot."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from random import Random

import structlog
from redis.exceptions import AskError, MovedError

from tocsin_server.engine.redis.cluster.pubsub import ShardLink
from tocsin_server.engine.redis.cluster.redirects import Detours, RoutedCall
from tocsin_server.engine.redis.cluster.shard import Shard
from tocsin_server.engine.redis.cluster.slots import UNKNOWN, Host, Topology, slot_of, tag_within
from tocsin_server.engine.redis.cluster.subscriptions import Moved
from tocsin_server.engine.redis.cluster.topology_watcher import Lookout
from tocsin_server.engine.redis.connections.address import Address, Dialler
from tocsin_server.engine.redis.connections.backoff import Backoff
from tocsin_server.engine.redis.connections.connection import SILENCE_SECONDS, Connection, pack
from tocsin_server.engine.redis.interfaces import CALL_SECONDS, Answer, Argument, Hear
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.pipeline import Call, Pipeline
from tocsin_server.engine.redis.pubsub.connection import Resume
from tocsin_server.engine.redis.scripts import Script
from tocsin_server.engine.redis.supervisor import Keeper
from tocsin_server.errors import EngineError

PUBLISH = "SPUBLISH"

log = structlog.get_logger()

Master = Shard[ShardLink]


class Shards:
    """Takes calls and hears like one Redis.

    What a master does not carry out, since a slot has moved or is moving, is sent again (Detours): Redis says
    so before it does anything. A master that is gone is waited for as long as any other Redis; what waits for
    it goes to whoever is promoted in its place, and what was under way has an unknown outcome and fails.
    """

    publish = PUBLISH
    is_sharded = True

    def __init__(self, address: Address, prefix: str, keeper: Keeper, random: Random, resume: Resume) -> None:
        self._prefix = prefix
        self._keys = Keys(prefix)
        self._keeper = keeper
        self._random = random
        self._resume = resume
        self._lookout = Lookout(address, prefix, random, self._adopt)
        self._topology = UNKNOWN
        self._shards: dict[Host, Master] = {}
        self._homeless: list[Moved] = []  # names in slots that nobody serves at present
        self._detours = Detours(self._send, self._lookout.look_again)
        self._numbers = itertools.count()
        self._uid = ""
        self._tasks: asyncio.TaskGroup | None = None
        self._running: dict[Master, asyncio.Task[None]] = {}
        self._past_connections = self._past_links = 0
        self._is_open = asyncio.Event()

    # -------------------------------------------------------------------------------------------------- calls

    @property
    def connections(self) -> int:
        """How many there have been to any master."""
        return self._past_connections + sum(shard.pipeline.connections for shard in self._shards.values())

    def call(self, *command: Argument, seconds: float = CALL_SECONDS, after: Answer | None = None) -> Answer:
        """Send a command to the master of its key within `seconds`."""
        return self._route(self._make(pack(*command), seconds, f"{command[1]!s}", after))

    def run_script(
        self, script: Script, keys: Sequence[str], *arguments: Argument, after: Answer | None = None
    ) -> Answer:
        """Run a script at the master of its keys."""
        command = pack("EVALSHA", script.digest, len(keys), *keys, *arguments)
        return self._route(self._make(command, CALL_SECONDS, keys[0], after))

    def _make(self, command: bytes, seconds: float, key: str, after: Answer | None = None) -> RoutedCall:
        return RoutedCall(command, seconds, slot_of(key), next(self._numbers), self._redirect, after)

    def _route(self, call: RoutedCall) -> Answer:
        if self._tasks is None:
            call.fail("the engine is not running")
        elif call.after is not None or call.slot in self._detours:
            self._detours.hold(call)
        else:
            self._send(call)
        return call.answer

    def _send(self, call: RoutedCall) -> None:
        shard = self._shards.get(call.helper) if call.helper else None
        call.helper = None
        if shard is not None:
            shard.pipeline.put(Call(pack("ASKING"), CALL_SECONDS)).add_done_callback(_ignore)
        else:
            shard = self._shards.get(self._topology.owners[call.slot])
        if shard is None:
            call.fail("no server of the Redis Cluster serves its slot")
        else:
            shard.pipeline.put(call)

    def _redirect(self, call: RoutedCall, answer: Exception) -> None:
        """Redis did not carry a call out: it must be sent again, perhaps elsewhere."""
        host = Host(answer.host, answer.port) if isinstance(answer, AskError) else None
        is_helped = host in self._shards and not isinstance(answer, MovedError)
        call.helper = host if is_helped else None
        if host is not None:
            self._lookout.hint(host)
        self._detours.hold(call, must_look=not is_helped)

    # --------------------------------------------------------------------------------------------------- ears

    async def listen(self, name: str, hear: Hear) -> None:
        """Hear a name, as Ears says."""
        await self._link_of(name).listen(name, hear)

    async def forget(self, name: str) -> None:
        """Hear a name no more. Idempotent."""
        self._homeless = [moved for moved in self._homeless if moved.name != name.encode()]
        await self._link_of(name).forget(name)

    def _link_of(self, name: str) -> ShardLink:
        if self._tasks is None:
            raise EngineError("the engine is not running")
        shard = self._shards.get(self._topology.owners[slot_of(name)])
        if shard is None:
            raise EngineError("no server of the Redis Cluster serves its slot")
        return shard.link

    # ---------------------------------------------------------------------------------------------------- way

    @property
    def calls(self) -> Shards:
        """These."""
        return self

    @property
    def ears(self) -> Shards:
        """These."""
        return self

    @property
    def shards(self) -> list[Master]:
        """The masters."""
        return list(self._shards.values())

    @property
    def unready_reason(self) -> str:
        """That of the cluster, or of the first master that has any."""
        troubles = (shard.unready_reason for shard in self._shards.values())
        return next((trouble for trouble in troubles if trouble), self._lookout.trouble)

    @property
    def waiting_bytes(self) -> int:
        """Those of all masters, and of calls that wait for one."""
        return self._detours.waiting_bytes + sum(shard.pipeline.waiting_bytes for shard in self.shards)

    @property
    def links(self) -> int:
        """Those to all masters that there have been."""
        return self._past_links + sum(shard.link.connections for shard in self.shards)

    async def examine(self) -> None:
        """See to it that there is a cluster, whole and not too old."""
        await self._lookout.scout.examine()

    async def run(self, uid: str) -> None:
        """Follow the cluster until cancelled."""
        self._uid = uid
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._detours.open(tasks)
                for shard in self._shards.values():
                    self._run(shard)
                await self._lookout.run(self._trusted)
        finally:
            self._tasks = None
            self._detours.close()

    async def opened(self) -> None:
        """Wait until the topology is known."""
        await self._is_open.wait()

    async def proven(self) -> None:
        """Wait until a canary came through from every master."""
        for shard in self.shards:
            await shard.link.proven.wait()

    async def close(self) -> None:
        """Nothing is left open."""

    # ----------------------------------------------------------------------------------------------- topology

    def _trusted(self) -> list[Host]:
        """Masters that are there."""
        return [host for host, shard in self._shards.items() if not shard.unready_reason]

    async def _adopt(self, topology: Topology) -> None:
        fresh = {host: self._open(host) for host in topology.masters - self._shards.keys()}
        for shard in fresh.values():
            await shard.opened.wait()
        self._shards.update(fresh)
        has_changed = topology.owners != self._topology.owners
        self._topology = topology
        if has_changed:
            self._rearrange()
        for shard in self._shards.values():
            shard.link.retry()
        self._is_open.set()

    def _rearrange(self) -> None:
        """Move names and calls to the masters that their slots have now."""
        moved, self._homeless = self._homeless, []
        slots_of = self._topology.slots_of
        for host, shard in list(self._shards.items()):
            slots = slots_of.get(host, set())
            moved += self._surrendered(shard, slots)
            self._redirect_all(shard)
            if not slots:
                self._retire(host)
            elif not shard.canary.name or slot_of(shard.canary.name) not in slots:
                shard.canary.rename(self._keys.shard_canary(self._uid, tag_within(slots)))
        for one in moved:
            self._settle(one)

    def _surrendered(self, shard: Master, slots: set[int]) -> list[Moved]:
        """The names that are no longer in a master's slots. Its canary does not move to another one."""
        names = shard.link.surrender(lambda name: slot_of(name) not in slots)
        for moved in names:
            if moved.name == shard.canary.name.encode():
                moved.wish.confirm()  # it is about to sing under another name
        return [moved for moved in names if moved.name != shard.canary.name.encode()]

    def _redirect_all(self, shard: Master) -> None:
        """Let calls that have not been sent go to whoever has their slot now, behind those that were."""
        owners = self._topology.owners
        self._detours.accompany(
            call
            for call in shard.pipeline.under_way
            if isinstance(call, RoutedCall) and self._shards.get(owners[call.slot]) is not shard
        )
        for call in shard.pipeline.take_back():
            if isinstance(call, RoutedCall):
                self._route(call)
            else:
                shard.pipeline.put(call)

    def _settle(self, moved: Moved) -> None:
        shard = self._shards.get(self._topology.owners[slot_of(moved.name)])
        if shard is None:
            self._homeless.append(moved)
        else:
            shard.link.adopt(moved)

    # ------------------------------------------------------------------------------------------------ masters

    def _open(self, host: Host) -> Master:
        dialler = WaryDialler(self._lookout.scout.address_of(host), self._prefix, self._lookout.doubt)
        pipeline = Pipeline(dialler, Backoff(self._random), PUBLISH)
        link = ShardLink(dialler, Backoff(self._random), self._resume, self._lookout.doubt)
        shard = Shard(pipeline, link)
        self._run(shard)
        if self._is_open.is_set():
            log.info("a master of the Redis Cluster is used from now on", redis=str(host))
        return shard

    def _run(self, shard: Master) -> None:
        assert self._tasks is not None  # noqa: S101 - for mypy: only called while running
        self._running[shard] = self._tasks.create_task(shard.run(self._keeper))

    def _retire(self, host: Host) -> None:
        """Use a server no more that serves no slots."""
        shard = self._shards.pop(host)
        self._past_connections += shard.pipeline.connections
        self._past_links += shard.link.connections
        running = self._running.pop(shard)
        # What it was asked it may still answer: if it became a replica, with where to go.
        asyncio.get_running_loop().call_later(SILENCE_SECONDS, running.cancel)
        log.info("a server of the Redis Cluster is used no more", redis=str(host))


class WaryDialler(Dialler):
    """Whoever dials again has lost a connection, perhaps to a server that is no longer what it was."""

    def __init__(self, address: Address, client_name: str, doubt: Callable[[], None]) -> None:
        super().__init__(address, client_name)
        self._doubt = doubt

    async def connect(self) -> Connection:
        """Make a connection, and give rise to doubt."""
        self._doubt()
        return await super().connect()


def _ignore(answer: Answer) -> None:
    """Whether a server took ASKING shows in what it answers next."""
    if not answer.cancelled():
        answer.exception()
