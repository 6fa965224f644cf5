"""Faults of nodes, of pub/sub connections, and of a standalone Redis.

Each fault is real, and its function checks that it took effect.
"""

from __future__ import annotations

import asyncio
import math

import httpx

from tests.faults.cluster import NAMESPACE, NodeProcess
from tests.faults.fault_environment import (
    CHANNELS,
    CONNECTION_ENDED,
    DEAF_SECONDS,
    HISTORY_GAP,
    LATE_SECONDS,
    REDIS_DISCONNECTED,
    Fault,
    FaultEnvironment,
    FaultGroup,
    HistoryLoss,
)
from tests.faults.record import SubscriptionRecord
from tests.faults.standalone import StandaloneCluster, standalone_cluster
from tests.faults.subscribers import BareWebSocket
from tests.support.api import NO_TLS
from tests.support.timing import STARTED, TICK

Environment = FaultEnvironment[StandaloneCluster]

PARTITION_SECONDS = 5.0
"""Longer than a node takes to detect that Redis does not reply."""

KILOBYTE = "x" * 1000

PUBSUB_LIMIT_KILOBYTES = 48
PUBSUB_PADDING = 80 * KILOBYTE
"""One such message exceeds the limit. The first 16 kB of a connection's output do not count for Redis."""


async def kill_node(environment: Environment) -> None:
    """Kill the node with the most connections, and start it again."""
    node = max(environment.cluster.nodes, key=lambda node: node.connections)
    await node.kill()
    await node.start()


async def restart_each_node(environment: Environment) -> None:
    """Drain and restart the nodes one after the other. Each is ready again before the next one stops."""
    for node in environment.cluster.nodes:
        await node.stop()
        await node.start()
        await environment.cluster.wait_until_ready(node)


async def cut_pubsub_connections(environment: Environment) -> None:
    """Redis closes all pub/sub connections."""
    cut = await asyncio.to_thread(environment.cluster.redis.kill_pubsub_connections)
    assert cut == len(environment.cluster.nodes)


async def silence_pubsub_connection(environment: Environment) -> None:
    """The last node's pub/sub connection stays open and carries nothing, until the node replaces it."""
    cluster = environment.cluster
    before = cluster.pubsub_connections()
    cluster.proxy.drop_pubsub()
    async with asyncio.timeout(STARTED):
        while before <= cluster.pubsub_connections():  # noqa: ASYNC110 - Redis has to be polled
            await asyncio.sleep(TICK)


async def overflow_pubsub_connections(environment: Environment) -> None:
    """Redis closes pub/sub connections since the output queued for them exceeds its limit."""
    cluster, publishers = environment.cluster, environment.publishers
    redis = cluster.redis
    (limit,) = redis.command("CONFIG", "GET", "client-output-buffer-limit").values()
    before = cluster.pubsub_connections()
    redis.command("CONFIG", "SET", "client-output-buffer-limit", f"pubsub {PUBSUB_LIMIT_KILOBYTES}kb 0 0")
    try:
        async with asyncio.timeout(STARTED):
            while before & cluster.pubsub_connections():
                await asyncio.gather(*(publishers.publish(name, PUBSUB_PADDING) for name in CHANNELS))
    finally:
        redis.command("CONFIG", "SET", "client-output-buffer-limit", limit)


async def freeze_redis(environment: Environment) -> None:
    """Redis stops executing for a while (SIGSTOP). Its connections stay open."""
    environment.cluster.redis.freeze()
    try:
        await asyncio.sleep(environment.size.frozen_seconds)
    finally:
        environment.cluster.redis.thaw()


async def restart_redis(environment: Environment) -> None:
    """Redis is killed, and starts with its append-only file."""
    await environment.cluster.restart_redis()


async def restart_redis_empty(environment: Environment) -> None:
    """Redis is killed, and starts empty: every history is lost."""
    await environment.cluster.restart_redis(empty=True)


async def partition_node(environment: Environment) -> None:
    """The last node cannot reach Redis. Its connections stay open."""
    cluster = environment.cluster
    cluster.proxy.drop_all()
    await cluster.wait_until_not_ready(cluster.nodes[-1])
    await asyncio.sleep(PARTITION_SECONDS)
    cluster.proxy.pass_all()


async def stop_reading(environment: Environment) -> None:
    """A subscriber stays connected and stops reading, until its node disconnects it. Then it reconnects."""
    node, heavy = environment.cluster.nodes[0], f"{NAMESPACE}:heavy"
    subscriber = BareWebSocket(environment.record_end, receive_bytes=65536)
    channels = [*CHANNELS[:3], heavy]
    subscriptions = [
        SubscriptionRecord(environment.record, channel, "the slow subscriber") for channel in channels
    ]
    task = asyncio.create_task(subscriber.subscribe(node.url, subscriptions))
    try:
        await environment.wait_until_received(subscriptions, await environment.publish_to_each(channels))
        subscriber.may_read.clear()
        before = await _slow_closes(node)
        async with asyncio.timeout(STARTED):
            while await _slow_closes(node) == before:
                await asyncio.gather(
                    *(environment.publishers.publish(heavy, 240 * KILOBYTE) for _ in range(4))
                )
        subscriber.may_read.set()
        await environment.wait_until_received(subscriptions, await environment.publish_to_each(channels))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _slow_closes(node: NodeProcess) -> float:
    """The number of connections that this node has closed as slow (code 3008)."""
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as http:
        text = (await http.get(f"{node.url}/metrics")).text
    assert "# TYPE tocsin_disconnects_total" in text
    counts = [
        line.split()[-1]
        for line in text.splitlines()
        if line.startswith('tocsin_disconnects_total{code="3008"}')
    ]
    return float(counts[0]) if counts else 0


DEAF = DEAF_SECONDS + LATE_SECONDS

STANDALONE_FAULTS = FaultGroup(
    standalone_cluster,
    quick=[
        Fault("kill -9 of a node", kill_node, CONNECTION_ENDED, LATE_SECONDS, ended_connections=math.inf),
        Fault(
            "SIGTERM of each node in turn",
            restart_each_node,
            CONNECTION_ENDED,
            LATE_SECONDS,
            ended_connections=math.inf,
            allows_publishing=True,
        ),
        Fault("CLIENT KILL TYPE pubsub", cut_pubsub_connections, REDIS_DISCONNECTED, LATE_SECONDS),
        Fault(
            "a silent pub/sub connection",
            silence_pubsub_connection,
            REDIS_DISCONNECTED,
            DEAF,
            allows_publishing=True,
        ),
        Fault("Redis frozen", freeze_redis, REDIS_DISCONNECTED, DEAF),
        Fault("Redis restarted, with its file", restart_redis, REDIS_DISCONNECTED, LATE_SECONDS),
    ],
    slow=[
        Fault("pub/sub output limit exceeded", overflow_pubsub_connections, REDIS_DISCONNECTED),
        Fault(
            "a node partitioned from Redis", partition_node, REDIS_DISCONNECTED, DEAF, allows_publishing=True
        ),
        Fault("a subscriber that stops reading", stop_reading, CONNECTION_ENDED, ended_connections=1),
        Fault("Redis restarted, empty", restart_redis_empty, HISTORY_GAP, history_loss=HistoryLoss.ALWAYS),
    ],
)
