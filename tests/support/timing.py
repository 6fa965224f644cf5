"""Every time limit of the tests, as a multiple of one constant.

On a slow machine set `TOCSIN_TEST_TICK` higher; nothing else has to change.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable

TICK = float(os.environ.get("TOCSIN_TEST_TICK", "0.1"))
"""Seconds. The shortest time that a loaded machine keeps to."""

SOON = 100 * TICK
"""The longest wait for something that must happen."""

STARTED = 300 * TICK
"""The longest wait for a process to be ready, or to end after its signal."""

QUIET = 2 * TICK
"""How long a test waits to see that something does not happen."""

LONG_TESTS = (
    "tests/faults/",
    "tests/hostile/",
    "tests/deploy/test_nginx.py",
    "tests/server/node/test_leaks.py",
    "tests/server/core/session/test_stateful.py",
    "tests/load/test_run.py",
)
"""Files and folders of tests that take 10 s or more each. They are started first."""


@contextlib.asynccontextmanager
async def progress_timeout(measure: Callable[[], object], seconds: float = SOON) -> AsyncIterator[None]:
    """Raise TimeoutError once `measure()` has given the same value for so many seconds.

    For work whose total duration depends on the machine: it may take any time as long as it advances.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(seconds) as limit:

        async def extend() -> None:
            last = measure()
            while True:
                await asyncio.sleep(TICK)
                if (value := measure()) != last:
                    last = value
                    limit.reschedule(loop.time() + seconds)

        extending = asyncio.create_task(extend())
        try:
            yield
        finally:
            extending.cancel()
            await asyncio.wait((extending,))
