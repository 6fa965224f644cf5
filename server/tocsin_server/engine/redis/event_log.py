"""The Redis engine's event log: a stream for each part, and what each node has told of its sessions.

    node --batch--> script events_write --> streams, and the records of the node's incarnation
    dead node's records --reap--> the events that it could not write

All keys are in one slot, so that one script writes a batch, and decides in the same step about a channel's
`occupied` and `vacated`.

An incarnation is one beginning of a node to write. Its batches are numbered, so a batch whose outcome was
unknown can be written again. A node takes a new incarnation when other nodes have marked its own as dead, or
when Redis has lost data. The log has an epoch: a random name that is lost with the data. A node finds a loss
by an epoch that is not the one it knows, or by the number of its last batch.

The mutable state is this node's incarnation and epoch, its incarnations whose records are out of date, and
what is known about the leases of other nodes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from random import Random
from typing import Any, NoReturn

import msgspec
import structlog

from tocsin_server.config.event_options import EventOptions
from tocsin_server.core.lifecycle import EventBatch, LifecycleEvent, WriteOutcome, part_of
from tocsin_server.engine.event_log import ClaimLost, LogFigures, StoredEvent, WriteCount
from tocsin_server.engine.redis import scripts
from tocsin_server.engine.redis.event_reaper import EventReaper
from tocsin_server.engine.redis.interfaces import Argument, Commands, PubSub
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.scripts import Script
from tocsin_server.errors import EngineError

TTL_MS = 7 * 86_400_000
"""How long the records of an incarnation are kept without a write. A live node writes every second."""

SWEEP_SECONDS = 1.0
"""How often a node looks for incarnations of dead nodes, besides at each death that it finds."""

ABSENT_SECONDS = 3.0
"""An incarnation whose node has no lease for so long is dead.

A lease may be missing for a moment: when Redis loses data, and when a node that was frozen begins again.
"""

EPOCH_BITS = 64

PARTS_HINT = (
    "other nodes use this number, or events are left in its parts; another number is used by the first node "
    "that starts when no other one runs and all subscribers have acknowledged all events"
)

log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode
_encode_record = msgspec.msgpack.Encoder().encode
_decode = msgspec.json.Decoder(LifecycleEvent).decode


class RedisEventLog:
    """Implements EventLog for any number of nodes."""

    def __init__(
        self,
        keys: Keys,
        commands: Commands,
        pubsub: PubSub,
        options: EventOptions,
        random: Random,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._commands = commands
        self._pubsub = pubsub
        self._options = options
        self._random = random
        self.uid = ""
        """The node's uid. The owner sets it."""
        self._parts = options.parts
        self._opened = 0  # how many incarnations this node had before its present one
        self._is_open = False
        self._epoch = ""
        self._has_lost = False
        self._outdated: list[tuple[str, bool]] = []  # each with whether all its sessions have ended
        self._writes = WriteCount()
        self._reaper = EventReaper(keys, commands, options.keeps, unix_clock)
        self._absent_since: dict[str, float] = {}
        self._alive: frozenset[str] = frozenset()
        self._dead: set[str] = set()
        self._died = asyncio.Event()
        self._unix_clock = unix_clock

    @property
    def parts(self) -> int:
        """The number of parts: that of the nodes that were there before, or else the configured one.

        That of before also stays while events are left, so that none is overtaken by a later one.
        """
        return self._parts

    @property
    def _incarnation(self) -> str:
        return f"{self.uid}.{self._opened}"

    # ----------------------------------------------------------------------------------------------- writing

    async def open(self, node: str, live: Container[str] = ()) -> None:
        """Begin to write, as EventLog describes."""
        await self._pubsub.subscribe(self._keys.event_announcements, self._on_announcement)
        state_lost = LifecycleEvent("state_lost", self._make_epoch(), self._unix_clock(), node)
        before = await self._commands.execute("HGET", self._keys.of_events[0], "parts")
        keys = self._all_keys(max(int(before or 0), self._options.parts))
        epoch, parts = await self._commands.run_script(
            scripts.EVENTS_OPEN,
            [*keys, *self._keys.of_incarnation(self._incarnation)],
            self._incarnation,
            node,
            self._epoch,
            self._make_epoch(),
            int(self._has_lost),
            _encode(state_lost),
            self._options.parts,
        )
        if self._epoch and self._epoch != epoch.decode():
            log.warning("event_log_lost_data", node=node)
        self._epoch, self._has_lost = epoch.decode(), False
        self._use_parts(int(parts))
        while self._outdated:
            incarnation, is_reaped = self._outdated[-1]
            await self._reaper.reap(incarnation, self._parts, () if is_reaped else live)
            self._outdated.pop()
        self._is_open = True

    def _use_parts(self, parts: int) -> None:
        if parts not in (self._options.parts, self._parts):
            log.warning("event_parts_differ", configured=self._options.parts, used=parts, hint=PARTS_HINT)
        self._parts = parts

    async def write(self, batch: EventBatch) -> WriteOutcome:
        """Write a batch, as EventLog describes."""
        reply = await self._run(
            scripts.EVENTS_WRITE,
            self._epoch,
            self._incarnation,
            batch.number,
            TTL_MS,
            self._part_size,
            self._retention_ms,
            self._commands.publish_command,
            self._keys.event_announcements,
            *self._changes(batch),
        )
        if reply[0] == b"written":
            return WriteOutcome.WRITTEN
        self._is_open = False
        if reply[0] == b"lost":
            self._outdated.append((self._incarnation, False))
            self._has_lost = True
            self._opened += 1
            return WriteOutcome.STATE_LOST
        self._outdated.append((self._incarnation, True))  # its reaper may be at work, or have died
        self._opened += 1
        log.warning("event_log_incarnation_reaped", node=self.uid)
        return WriteOutcome.WRITTEN_AND_REAPED if int(reply[1]) >= batch.number else WriteOutcome.REAPED

    def _changes(self, batch: EventBatch) -> list[Argument]:
        """The arguments of the script events_write that say what a batch changes."""
        changes: list[Argument] = []
        for event in batch.events:
            is_wanted = self._options.keeps(event.type)
            part, body = part_of(event.key, self._parts), _encode(event)
            if event.type in ("occupied", "vacated"):
                changes += [event.type[0], event.channel, part, body if is_wanted else b""]
            elif is_wanted:
                changes += ["e", part, body]
        for client, record in batch.sessions.items():
            changes += ["d", client] if record is None else ["s", client, _encode_record(record)]
        return changes

    async def close(self) -> None:
        """End writing, as EventLog describes."""
        if not self._is_open:
            return
        self._is_open = False
        keys = self._keys.of_incarnation(self._incarnation)
        if not await self._run(scripts.EVENTS_FORGET, self._incarnation, 0, keys=keys):
            await self._run(scripts.EVENTS_MARK_DEAD, self._incarnation, TTL_MS, keys=keys)

    # ----------------------------------------------------------------------------------------------- reading

    async def claim(self, subscriber: str, part: int) -> bool:
        """Let this node alone read a part for a subscriber, as EventReader describes."""
        return bool(await self._run(scripts.EVENTS_CLAIM, self._incarnation, part, subscriber, 1, keys=()))

    async def release(self, subscriber: str, part: int) -> None:
        """Give up a claim. Idempotent."""
        await self._run(scripts.EVENTS_CLAIM, self._incarnation, part, subscriber, 0, keys=())

    async def surplus(self, subscriber: str) -> int:
        """Return how many parts this node should release, as EventReader describes."""
        parts: int = await self._run(scripts.EVENTS_SURPLUS, self._incarnation, subscriber, keys=())
        return parts

    async def leave(self, subscriber: str) -> None:
        """Let other nodes claim this node's share, too."""
        readers = self._keys.of_events[-1]
        await self._commands.execute("HSET", readers, f"{self._incarnation} {subscriber}", "left")

    async def read(self, subscriber: str, part: int, limit: int) -> Sequence[StoredEvent]:
        """Return the oldest events that the subscriber has not acknowledged, as EventReader describes.

        An event that is not of this format is acknowledged once it is the oldest.
        """
        while True:
            found = await self._run(scripts.EVENTS_READ, self._incarnation, part, subscriber, limit, keys=())
            if found is None:
                raise ClaimLost
            events = list(_until_malformed(found))
            if events or not found:
                return events
            entry = found[0][0].decode()
            log.warning("malformed_event_ignored", part=part, entry=entry)
            await self.acknowledge(subscriber, part, [entry])

    async def acknowledge(self, subscriber: str, part: int, entries: Sequence[str]) -> None:
        """Note that a subscriber has these events, as EventReader describes."""
        if not entries:
            return
        reply = await self._run(
            scripts.EVENTS_ACKNOWLEDGE,
            self._incarnation,
            part,
            subscriber,
            entries[0],
            entries[-1],
            self._retention_ms,
            keys=(),
        )
        if reply == b"claim":
            raise ClaimLost
        if reply == b"gap":
            raise ValueError("an event before these has not been acknowledged")

    async def wait(self, seen: int, seconds: float) -> int:
        """Wait until more than `seen` writes are known, or `seconds` have passed."""
        return await self._writes.wait(seen, seconds)

    async def figures(self) -> LogFigures:
        """Return the current figures. Removes what is too old, too."""
        stored, oldest_ms, trimmed = await self._run(
            scripts.EVENTS_FIGURES, self._part_size, self._retention_ms, keys=()
        )
        return LogFigures(stored, oldest_ms / 1000, trimmed)

    def _on_announcement(self, _message: bytes) -> None:
        self._writes.increment()

    # ----------------------------------------------------------------------------------------- dead nodes

    def on_alive(self, alive: frozenset[str]) -> None:
        """Note the uids of the nodes that have a live lease; called about every second."""
        self._alive = alive

    def on_node_dead(self, uid: str) -> None:
        """Note that the last lease of a node has expired, and look for its incarnation at once."""
        self._dead.add(uid)
        self._died.set()

    async def run(self) -> NoReturn:
        """Write what dead nodes could not, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._died.wait()
            self._died.clear()
            try:
                await self.sweep()
            except EngineError as error:
                log.warning("events_of_dead_nodes_not_written", error=str(error))

    async def sweep(self) -> None:
        """Look for incarnations of dead nodes, and reap them. Raises EngineError."""
        if not self._is_open:
            return
        flat = await self._commands.execute("HGETALL", self._keys.of_events[1])
        now = asyncio.get_running_loop().time()
        states = {name.decode(): state for name, state in zip(flat[::2], flat[1::2], strict=True)}
        dead, self._dead = self._dead, set()
        absent = {name for name in states if _uid_of(name) not in {*self._alive, self.uid}}
        self._absent_since = {name: self._absent_since.get(name, now) for name in absent}
        for name, state in states.items():
            is_late = name in absent and now - self._absent_since[name] >= ABSENT_SECONDS
            is_gone = is_late or (name in absent and _uid_of(name) in dead) or state.startswith(b"dead ")
            if is_gone and name != self._incarnation:
                await self._reaper.reap_alone(name, self._parts, self.uid)

    # ------------------------------------------------------------------------------------------------ Redis

    @property
    def _part_size(self) -> int:
        return max(1, self._options.size // self._parts)

    @property
    def _retention_ms(self) -> int:
        return round(self._options.retention * 1000)

    def _make_epoch(self) -> str:
        return f"{self._random.getrandbits(EPOCH_BITS):016x}"

    async def _run(self, script: Script, *arguments: Argument, keys: Sequence[str] | None = None) -> Any:
        """Run a script with the keys of the log and of this node's incarnation, unless `keys` are given."""
        of_incarnation = self._keys.of_incarnation(self._incarnation) if keys is None else keys
        return await self._commands.run_script(
            script, [*self._all_keys(self._parts), *of_incarnation], *arguments
        )

    def _all_keys(self, parts: int) -> Sequence[str]:
        return [*self._keys.of_events, *map(self._keys.event_part, range(parts))]


def _uid_of(incarnation: str) -> str:
    return incarnation.rpartition(".")[0]


def _until_malformed(found: Sequence[tuple[bytes, Sequence[bytes]]]) -> Iterator[StoredEvent]:
    """Decode entries up to the first that is not of this format."""
    with suppress(msgspec.DecodeError):
        for entry, fields in found:
            yield StoredEvent(entry.decode(), _decode(fields[1]))
