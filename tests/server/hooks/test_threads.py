"""Plain functions run in threads, also one whose answer comes too late."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from typing import Any

import pytest

from tests.server.served_node import until
from tests.support.timing import TICK
from tocsin_server.hooks.threads import Threads


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
async def test_an_answer_that_comes_too_late_is_ignored_and_its_thread_is_used_again(fails: bool) -> None:
    release = threading.Event()
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, fault: faults.append(fault))

    def block(argument: int) -> int:
        release.wait()
        if fails:
            raise ValueError
        return argument

    with closing(Threads(1)) as threads:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(TICK):
                await threads.run(block, 1)
        assert threads.busy_count == 1
        release.set()
        await until(lambda: not threads.busy_count)
        assert await threads.run(str, 2) == "2"
        assert threads.count == 1
    assert faults == []
