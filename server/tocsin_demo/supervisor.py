"""Several nodes as processes: started, watched, started again when they die, ended with this one.

starting --> running --> draining --> ended --> starting …
                 `--------------------^           (killed)
"""

import asyncio
import contextlib
import signal
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from typing import cast

import msgspec

from tocsin_demo.settings import Ground
from tocsin_demo.wire import Condition, Deed, Member, Plan, Ready, Roster, Wish, line_of

AWAY_SECONDS = 5.0
"""How long a node that died stays away: long enough for its lease to lapse (4 s), which one should see."""

STOP_SECONDS = 15.0
"""How long all nodes may take to end. Then they are killed."""

_decode = msgspec.json.Decoder(Ready | Wish).decode


class StartError(Exception):
    """A node ended before it was ready for the first time; it has said why on standard error."""


class Place:
    """One node's name, and the process that bears it just now."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.condition: Condition = "starting"
        self.address = ""
        self.process: Process | None = None

    @property
    def member(self) -> Member:
        """As the nodes are told of it."""
        pid = 0 if self.process is None else self.process.pid
        return Member(self.name, self.condition, pid, self.address)

    def tell(self, message: msgspec.Struct) -> None:
        """Over its standard input; a process that has just died is told nothing."""
        if self.process is not None and self.process.returncode is None:
            _input(self.process).write(line_of(message))

    def signal(self, number: signal.Signals) -> None:
        """To the process, if there is one that still lives."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)


class Supervisor:
    """Nodes `node-1` to `node-COUNT` of one ground. `run` until cancelled; it leaves no process behind."""

    def __init__(self, ground: Ground, count: int, log_level: str) -> None:
        self.ground = ground
        self._log_level = log_level
        self._places = {f"node-{number}": Place(f"node-{number}") for number in range(1, count + 1)}
        self.is_ready = asyncio.Event()

    async def run(self, engine: str) -> None:
        """Start all on this engine, and keep them running. Raises StartError."""
        self.ground = msgspec.structs.replace(self.ground, engine=engine)
        try:
            async with asyncio.TaskGroup() as tasks:
                for place in self._places.values():
                    tasks.create_task(self._keep(place))
        except* StartError as group:
            raise group.exceptions[0] from None

    def hurry(self) -> None:
        """Do not wait for anybody's farewell."""
        for place in self._places.values():
            place.signal(signal.SIGKILL)

    async def _keep(self, place: Place) -> None:
        while True:
            async with self._process(place) as process:
                async for line in cast(StreamReader, process.stdout):
                    self._hear(place, _decode(line))
                await process.wait()
            if not self.is_ready.is_set():
                raise StartError(f"{place.name} ended before it was ready.")
            self._turn(place, "ended")
            await asyncio.sleep(AWAY_SECONDS)

    @contextlib.asynccontextmanager
    async def _process(self, place: Place) -> AsyncIterator[Process]:
        """A process under this name, told to end on leaving and then waited for."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tocsin_demo.member"),
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,  # Ctrl-C is for this process, which passes it on
        )
        place.process, place.address = process, ""
        try:
            place.tell(Plan(place.name, self.ground, self._log_level))
            self._turn(place, "starting")
            yield process
        finally:
            await _end(place, process)

    def _hear(self, place: Place, message: Ready | Wish) -> None:
        if isinstance(message, Wish):
            return self._do(message.deed, message.name)
        place.address = message.address
        self._turn(place, "running")
        if all(each.condition == "running" for each in self._places.values()):
            self.is_ready.set()
        return None

    def _do(self, deed: Deed, name: str) -> None:
        place = self._places.get(name)
        if place is None or place.condition == "ended":
            return
        if deed == "kill":
            place.signal(signal.SIGKILL)
        elif place.condition == "running":
            self._turn(place, "draining")
            place.signal(signal.SIGTERM)

    def _turn(self, place: Place, condition: Condition) -> None:
        """It is something else now, and every node hears of it."""
        place.condition = condition
        roster = Roster(tuple(each.member for each in self._places.values()))
        for each in self._places.values():
            each.tell(roster)


async def _end(place: Place, process: Process) -> None:
    """Tell it to end. It is killed if it takes too long, or if we may not wait."""
    place.signal(signal.SIGTERM)
    _input(process).close()
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
    finally:
        place.signal(signal.SIGKILL)


def _input(process: Process) -> StreamWriter:
    return cast(StreamWriter, process.stdin)
