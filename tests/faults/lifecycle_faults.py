"""The faults of the lifecycle run. Each ends with what must happen, and no fault waits for a time."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Sequence

from tests.faults.cluster import NodeProcess
from tests.faults.lifecycle_run import Fault, LifecycleRun, wait_until_none

ENDED_MEANWHILE = 100
"""How many sessions end while Redis is away."""


async def kill(run: LifecycleRun) -> None:
    """SIGKILL of a node, which starts again."""
    node = random.choice(run.cluster.nodes)
    with run.disturbance("kill", [_process_of(node)]) as noted:
        noted.killed_at = time.time()
        await node.kill()
    run.note_written(noted)
    await node.start()


async def drain(run: LifecycleRun) -> None:
    """SIGTERM of a node, which starts again."""
    node = random.choice(run.cluster.nodes)
    await node.stop()
    await node.start()


async def deafen(run: LifecycleRun) -> None:
    """The last node's pub/sub connection is silent until the node replaces it."""
    cluster = run.cluster
    old = cluster.pubsub_connections()
    cluster.proxy.drop_pubsub()
    await wait_until_none(lambda: int(old <= cluster.pubsub_connections()), "until a connection is replaced")


async def freeze(run: LifecycleRun) -> None:
    """A node is frozen (SIGSTOP) until others have taken it for dead. Then it goes on."""
    process = _process_of(random.choice(run.cluster.nodes[:2]))
    with run.disturbance("freeze", [process]):
        os.kill(process, signal.SIGSTOP)
        try:
            await run.until_taken_for_dead(process)
        finally:
            os.kill(process, signal.SIGCONT)


async def partition(run: LifecycleRun) -> None:
    """The last node cannot reach Redis until others have taken it for dead. Its clients stay connected."""
    process = _process_of(run.cluster.nodes[-1])
    with run.disturbance("partition", [process]):
        run.cluster.proxy.drop_all()
        try:
            await run.until_taken_for_dead(process)
            await run.until_more_ended(ENDED_MEANWHILE)
        finally:
            run.cluster.proxy.pass_all()


async def restart_redis(run: LifecycleRun) -> None:
    """Redis is killed, and starts with its data once all nodes have noticed, and sessions have ended."""
    with run.disturbance("restart_redis", run.cluster.processes()):
        await _stop_redis(run)
        await asyncio.to_thread(run.cluster.redis.start)


async def kill_without_redis(run: LifecycleRun) -> None:
    """A node is killed while Redis is away: what it could not write is lost with it."""
    node = random.choice(run.cluster.nodes)
    with run.disturbance("kill_without_redis", run.cluster.processes()):
        with run.disturbance("kill_without_redis", [_process_of(node)]) as noted:
            await _stop_redis(run)
            noted.killed_at = time.time()
            await node.kill()
        run.note_written(noted)
        await asyncio.to_thread(run.cluster.redis.start)
    await node.start()


async def _stop_redis(run: LifecycleRun) -> None:
    since = time.monotonic()
    await asyncio.to_thread(run.cluster.redis.stop)
    nodes = len(run.cluster.running)
    await wait_until_none(lambda: nodes - run.cluster.disconnected_since(since), "until Redis is missed")
    await run.until_more_ended(ENDED_MEANWHILE)


def _process_of(node: NodeProcess) -> int:
    assert node.server is not None
    return node.server.process.pid


FAULTS: Sequence[Fault] = (kill, drain, deafen, freeze, partition, restart_redis, kill_without_redis)
