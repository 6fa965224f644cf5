"""The faults of the lifecycle run. Each ends with what must happen, and no fault waits for a time."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Sequence

from tests.faults.lifecycle_run import Fault, LifecycleRun, wait_until_none

ENDED_MEANWHILE = 100
"""How many sessions end while Redis is away."""


def _any_node(run: LifecycleRun) -> int:
    return random.randrange(len(run.cluster.nodes))


async def kill(run: LifecycleRun) -> None:
    """SIGKILL of a node, which starts again."""
    at = _any_node(run)
    with run.disturbance("kill", [at]) as noted:
        noted.killed_at = time.time()
        await run.cluster.nodes[at].kill()
    run.note_written(noted)
    await run.cluster.nodes[at].start()


async def drain(run: LifecycleRun) -> None:
    """SIGTERM of a node, which starts again."""
    node = run.cluster.nodes[_any_node(run)]
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
    at = random.randrange(2)
    server = run.cluster.nodes[at].server
    assert server is not None
    with run.disturbance("freeze", [at]):
        server.process.send_signal(signal.SIGSTOP)
        try:
            await run.until_taken_for_dead(at)
        finally:
            server.process.send_signal(signal.SIGCONT)


async def partition(run: LifecycleRun) -> None:
    """The last node cannot reach Redis until others have taken it for dead. Its clients stay connected."""
    at = len(run.cluster.nodes) - 1
    with run.disturbance("partition", [at]):
        run.cluster.proxy.drop_all()
        try:
            await run.until_taken_for_dead(at)
            await run.until_more_ended(ENDED_MEANWHILE)
        finally:
            run.cluster.proxy.pass_all()


async def restart_redis(run: LifecycleRun) -> None:
    """Redis is killed, and starts with its data once all nodes have noticed, and sessions have ended."""
    with run.disturbance("restart_redis", range(len(run.cluster.nodes))):
        await _stop_redis(run)
        await asyncio.to_thread(run.cluster.redis.start)


async def kill_without_redis(run: LifecycleRun) -> None:
    """A node is killed while Redis is away: what it could not write is lost with it."""
    at = _any_node(run)
    with run.disturbance("kill_without_redis", range(len(run.cluster.nodes))):
        with run.disturbance("kill_without_redis", [at]) as noted:
            await _stop_redis(run)
            noted.killed_at = time.time()
            await run.cluster.nodes[at].kill()
        run.note_written(noted)
        await asyncio.to_thread(run.cluster.redis.start)
    await run.cluster.nodes[at].start()


async def _stop_redis(run: LifecycleRun) -> None:
    since = time.monotonic()
    await asyncio.to_thread(run.cluster.redis.stop)
    nodes = len(run.cluster.running)
    await wait_until_none(lambda: nodes - run.cluster.disconnected_since(since), "until Redis is missed")
    await run.until_more_ended(ENDED_MEANWHILE)


FAULTS: Sequence[Fault] = (kill, drain, deafen, freeze, partition, restart_redis, kill_without_redis)
