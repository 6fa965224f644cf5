"""The event reaper: writes the lifecycle events that a dead incarnation of a node could not write.

Each session's record is removed in the same step in which its last events are written, so they are written
once, also if several nodes do it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

import msgspec
import structlog

from tocsin_server.core.lifecycle import LifecycleEvent, SessionRecord, ends_of, part_of
from tocsin_server.engine.redis import scripts
from tocsin_server.engine.redis.interfaces import Argument, Commands
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.scripts import Script

SLICE = 200
"""How many sessions or channels are handled in one step, so that Redis can run other commands in between."""

SLICE_EVENTS = 500
"""How many events one step writes at most, unless one session has more. Redis takes about 2 ms for them."""

TOMBSTONE_MS = 7 * 86_400_000
"""How long a node that was taken for dead may need to find it out."""

CLAIM_MS = 5000
"""How long one node reaps alone. If it dies in the meantime, another node continues."""

SessionEnd = tuple[str, Sequence[bytes]]
"""A client, and the events that say the end of its session."""

log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode
_decode_record = msgspec.msgpack.Decoder(SessionRecord).decode


class EventReaper:
    """Reaps incarnations. `keeps` says which types of events are wanted."""

    def __init__(
        self,
        keys: Keys,
        commands: Commands,
        keeps: Callable[[str], bool],
        unix_clock: Callable[[], float],
    ) -> None:
        self._keys = keys
        self._commands = commands
        self._keeps = keeps
        self._unix_clock = unix_clock

    async def reap_alone(self, incarnation: str, parts: int, uid: str) -> None:
        """Reap, unless another node does. Raises EngineError."""
        claim = self._keys.incarnation_reaper(incarnation)
        if await self._commands.execute("SET", claim, uid, "NX", "PX", CLAIM_MS):
            await self.reap(incarnation, parts)
            await self._commands.execute("DEL", claim)

    async def reap(self, incarnation: str, parts: int, live: Container[str] = ()) -> None:
        """Say the end of all sessions of an incarnation but those in `live`, and vacate its channels.

        Raises EngineError. Can be repeated.
        """
        marked = await self._run(scripts.EVENTS_MARK_DEAD, incarnation, parts, incarnation, TOMBSTONE_MS)
        node = marked.decode() if marked else ""
        sessions = await self._end_sessions(incarnation, parts, node, live)
        channels = await self._vacate_channels(incarnation, parts, node)
        await self._run(scripts.EVENTS_FORGET, incarnation, parts, incarnation, 1)
        if sessions or channels:
            log.info("events_of_dead_node_written", node=node, sessions=sessions, channels=channels)

    async def _end_sessions(self, incarnation: str, parts: int, node: str, live: Container[str]) -> int:
        sessions, _, _ = self._keys.of_incarnation(incarnation)
        ended, cursor = 0, b"0"
        while True:
            cursor, flat = await self._commands.execute("HSCAN", sessions, cursor, "COUNT", SLICE)
            found = [(name.decode(), record) for name, record in zip(flat[::2], flat[1::2], strict=True)]
            ends = [
                (client, [] if client in live else self._ends_of(client, record, node))
                for client, record in found
            ]
            for few in _slices(ends):  # a short hash comes as a whole
                arguments: list[Argument] = []
                for client, events in few:
                    arguments += [client, part_of(client, parts), len(events), *events]
                ended += await self._announce(scripts.EVENTS_END_SESSIONS, incarnation, parts, arguments)
            if cursor == b"0":
                return ended

    def _ends_of(self, client: str, record: bytes, node: str) -> list[bytes]:
        ends = ends_of(client, _decode_record(record), node, self._unix_clock())
        return [_encode(event) for event in ends if self._keeps(event.type)]

    async def _vacate_channels(self, incarnation: str, parts: int, node: str) -> int:
        _, channels, _ = self._keys.of_incarnation(incarnation)
        vacated, cursor = 0, b"0"
        while True:
            cursor, found = await self._commands.execute("SSCAN", channels, cursor, "COUNT", SLICE)
            for first in range(0, len(found), SLICE):
                arguments: list[Argument] = []
                for channel in [name.decode() for name in found[first : first + SLICE]]:
                    event = LifecycleEvent(
                        "vacated", f"{incarnation}-{channel}", self._unix_clock(), node, channel=channel
                    )
                    body = _encode(event) if self._keeps(event.type) else b""
                    arguments += [channel, part_of(channel, parts), body]
                vacated += await self._announce(
                    scripts.EVENTS_VACATE, incarnation, parts, arguments, incarnation
                )
            if cursor == b"0":
                return vacated

    async def _announce(
        self,
        script: Script,
        incarnation: str,
        parts: int,
        arguments: Sequence[Argument],
        *before: Argument,
    ) -> int:
        names = self._commands.publish_command, self._keys.event_announcements
        removed: int = await self._run(script, incarnation, parts, *before, *names, *arguments)
        return removed

    async def _run(self, script: Script, incarnation: str, parts: int, *arguments: Argument) -> Any:
        streams = [self._keys.event_part(part) for part in range(parts)]
        keys = [*self._keys.of_events, *streams, *self._keys.of_incarnation(incarnation)]
        return await self._commands.run_script(script, keys, *arguments)


def _slices(ends: Sequence[SessionEnd]) -> Iterator[Sequence[SessionEnd]]:
    """Parts of the ends of sessions, each for one step."""
    few: list[SessionEnd] = []
    count = 0
    for end in ends:
        if few and (len(few) >= SLICE or count + len(end[1]) > SLICE_EVENTS):
            yield few
            few, count = [], 0
        few.append(end)
        count += len(end[1])
    if few:
        yield few
