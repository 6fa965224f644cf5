"""Several nodes as processes: started, watched, troubled, started again when they die, ended with this one.

starting --> running --> draining --> ended --> starting …
                 `--------------------^           (killed)
"""

import asyncio
import contextlib
import signal
import time
from asyncio import StreamReader
from asyncio.subprocess import Process
from typing import Literal, cast

import msgspec

from tocsin_demo.cable import laid
from tocsin_demo.incidents import Journal
from tocsin_demo.leases import LAPSE_SECONDS, Leases
from tocsin_demo.place import Place, milliseconds
from tocsin_demo.redis_server import RedisServer
from tocsin_demo.settings import Ground
from tocsin_demo.wire import Deed, Member, Plan, Ready, Report, Roster, Wish

AWAY_SECONDS = 5.0
"""How long a node that died stays away: long enough for its lease to lapse, which one should see."""

LEFT_SECONDS = 1.5
"""How long one stays away that has left on purpose, and its lease with it."""

SILENT_SECONDS = 8.0
"""How long a node is deafened: it takes 3 of them to notice."""

_decode = msgspec.json.Decoder(Ready | Report | Wish).decode


class StartError(Exception):
    """A node ended before it was ready for the first time; it has said why on standard error."""


class Supervisor:
    """Nodes `node-1` to `node-COUNT` of one ground. `run` until cancelled; it leaves no process behind."""

    def __init__(self, ground: Ground, count: int, log_level: str) -> None:
        self.ground = ground
        self._log_level = log_level
        self._places = {f"node-{number}": Place(f"node-{number}") for number in range(1, count + 1)}
        self._journal = Journal(time.time)
        self.is_ready = asyncio.Event()

    @property
    def members(self) -> tuple[Member, ...]:
        """How it stands with each node."""
        return tuple(place.member for place in self._places.values())

    async def run(self, server: RedisServer) -> None:
        """Start all on this Redis, each by a cable of its own, and keep them running. Raises StartError."""
        async with contextlib.AsyncExitStack() as stack:
            leases = await stack.enter_async_context(Leases(server.url))
            for place in self._places.values():
                place.cable = await stack.enter_async_context(laid(server.port))
            try:
                async with asyncio.TaskGroup() as tasks:
                    for place in self._places.values():
                        tasks.create_task(self._keep(place, server, leases))
            except* StartError as group:
                raise group.exceptions[0] from None

    def hurry(self) -> None:
        """Do not wait for anybody's farewell."""
        for place in self._places.values():
            place.signal(signal.SIGKILL)

    async def _keep(self, place: Place, server: RedisServer, leases: Leases) -> None:
        engine = server.url if place.cable is None else server.url_at(place.cable.port)
        plan = Plan(place.name, msgspec.structs.replace(self.ground, engine=engine), self._log_level)
        while True:
            async with place.occupied(plan) as process:
                self._tell()
                async for line in cast(StreamReader, process.stdout):
                    self._hear(place, _decode(line))
                await process.wait()
            if not self.is_ready.is_set():
                raise StartError(f"{place.name} ended before it was ready.")
            await self._mourn(place, process, leases)

    async def _mourn(self, place: Place, process: Process, leases: Leases) -> None:
        """Its process is gone: watch its lease go, and keep its place empty for a while."""
        if not place.is_doomed:
            self._journal.begin(place.name, "end")
        uid = "" if place.report is None else place.report.uid
        has_left = process.returncode == 0
        away = LEFT_SECONDS if has_left else AWAY_SECONDS
        place.condition, place.address, place.report = "ended", "", None
        place.returns_at = milliseconds(away)
        place.lapses_by = 0 if has_left else milliseconds(LAPSE_SECONDS)
        self._heal(place)
        if has_left:
            self._journal.note(place.name, "gone")
        self._tell()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(away))
            if uid and not has_left:
                tasks.create_task(self._see_lapse(place, uid, leases))

    async def _see_lapse(self, place: Place, uid: str, leases: Leases) -> None:
        if await leases.gone(uid):
            self._journal.note(place.name, "lapsed")
        place.lapses_by = 0
        self._tell()

    # --------------------------------------------------------------------------------------- what nodes say

    def _hear(self, place: Place, message: Ready | Report | Wish) -> None:
        match message:
            case Wish(deed, name):
                self._do(deed, name)
            case Report():
                self._learn(place, message)
            case Ready(address):
                place.address = address
                place.condition = "running"
                self._journal.note(place.name, "back")
                if all(each.condition == "running" for each in self._places.values()):
                    self.is_ready.set()
        self._tell()

    def _learn(self, place: Place, report: Report) -> None:
        if report.state == "deaf":
            self._journal.note(place.name, "deaf", report.trouble)
        elif place.report is not None and place.report.state == "deaf":
            self._journal.note(place.name, "ready")
        place.report = report

    def _tell(self) -> None:
        """Every node hears how it stands with all of them."""
        roster = Roster(self.members, self._journal.incidents)
        for place in self._places.values():
            place.tell(roster)

    # ---------------------------------------------------------------------------------- what visitors wish

    def _do(self, deed: Deed, name: str) -> None:
        place = self._places.get(name)
        if place is None or place.condition == "ended":
            return
        match deed:
            case "kill":
                self._end(place, deed, signal.SIGKILL)
            case "drain" if place.condition == "running":
                place.condition = "draining"
                self._end(place, deed, signal.SIGTERM)
            case "deafen" if not place.silent_until:
                self._journal.begin(place.name, deed)
                self._deafen(place)
            case "heal":
                self._heal(place)

    def _end(self, place: Place, deed: Literal["kill", "drain"], number: signal.Signals) -> None:
        self._journal.begin(place.name, deed)
        place.is_doomed = True
        place.signal(number)

    def _deafen(self, place: Place) -> None:
        """Swallow what Redis announces to it; it can still ask, write and renew its lease."""
        if place.cable is not None:
            place.cable.fall_silent("hearing")
            place.silent_until = milliseconds(SILENT_SECONDS)
            place.healing = asyncio.get_running_loop().call_later(SILENT_SECONDS, self._heal, place)

    def _heal(self, place: Place) -> None:
        if place.cable is not None and place.healing is not None:
            place.healing.cancel()
            place.healing, place.silent_until = None, 0
            place.cable.heal()
            self._journal.note(place.name, "healed")
            self._tell()
