"""The supervisor's view of a node process: messages to a process that ends are dropped."""

import asyncio
import sys

import uvloop

from tests.support.timing import SOON, TICK
from tocsin_demo.ipc import ClusterStatus
from tocsin_demo.node_process import NodeProcess


def test_a_message_to_a_process_with_a_closed_pipe_is_dropped() -> None:
    """The pipe closes before the exit is known. The event loop of the demo then refuses to write."""

    async def send() -> None:
        node = NodeProcess("node-1")
        node.send(ClusterStatus())  # there is no process yet
        sleep = f"import time; time.sleep({SOON})"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", sleep, stdin=asyncio.subprocess.PIPE
        )
        node.process = process
        try:
            assert process.stdin is not None
            process.stdin.transport.abort()
            await asyncio.sleep(TICK / 2)
            assert process.returncode is None
            node.send(ClusterStatus())
        finally:
            process.kill()
            await process.wait()
        node.send(ClusterStatus())

    uvloop.run(send())
