"""A place: whatever becomes of its process, the supervisor that tells it something goes on."""

import asyncio
import sys

import uvloop

from tests.support.timing import SOON
from tocsin_demo.place import Place
from tocsin_demo.wire import Roster


def test_a_process_whose_input_is_gone_is_told_nothing() -> None:
    """It is known to have ended only later. On the loop of the demo, which refuses to write then."""

    async def tell() -> None:
        place = Place("node-1")
        place.tell(Roster())  # there is none yet
        sleep = f"import time; time.sleep({SOON})"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", sleep, stdin=asyncio.subprocess.PIPE
        )
        place.process = process
        try:
            assert process.stdin is not None
            process.stdin.transport.abort()
            await asyncio.sleep(0.05)
            assert process.returncode is None
            place.tell(Roster())
        finally:
            process.kill()
            await process.wait()
        place.tell(Roster())

    uvloop.run(tell())
