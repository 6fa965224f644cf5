"""Runs a script of `js/` in Node.js, and exchanges JSON lines with it."""

import asyncio
import contextlib
import itertools
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.support.recorded_events import RecordedEvents
from tests.support.refusal import Refused
from tests.support.timing import SOON, STARTED

SCRIPTS = Path(__file__).with_name("js")


class JavaScriptDriver:
    """A JavaScript client. `call` makes it act, `events` holds what it emitted to its application."""

    def __init__(self, process: Process) -> None:
        self.events = RecordedEvents()
        self.is_ready = asyncio.Event()
        self._process = process
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}

    async def call(self, name: str, **args: Any) -> Any:
        """Call a function of the script, and return its result. Raises `Refused` if the server refused."""
        assert self._process.stdin is not None
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"number": number, "call": name, "args": args})
        self._process.stdin.write(line.encode() + b"\n")
        async with asyncio.timeout(SOON):
            return await self._answers[number]

    async def read(self) -> None:
        """Sort the script's output into results and events, until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            message = json.loads(line)
            if "ready" in message:
                self.is_ready.set()
            elif "event" in message:
                await self.events.record(**message)
            elif "error" in message:
                error = Refused(message["error"]["code"], message["error"]["message"])
                self._answers.pop(message["number"]).set_exception(error)
            else:
                self._answers.pop(message["number"]).set_result(message["result"])


@contextlib.asynccontextmanager
async def run_script(script: str) -> AsyncIterator[JavaScriptDriver]:
    """A script that is ready for calls. It ends with its standard input."""
    process = await asyncio.create_subprocess_exec("node", script, cwd=SCRIPTS, stdin=PIPE, stdout=PIPE)
    driver = JavaScriptDriver(process)
    reading = asyncio.create_task(driver.read())
    try:
        async with asyncio.timeout(STARTED):
            await driver.is_ready.wait()
        yield driver
    finally:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(SOON):
            await process.wait()
            await reading
