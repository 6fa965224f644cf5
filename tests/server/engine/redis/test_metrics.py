"""Metrics of nodes that share a Redis: faults and recoveries are visible."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from tests.server.engine.redis.blackhole_proxy import BlackholeProxy
from tests.server.engine.redis.node_process import node_process_running
from tests.server.engine.redis.redis_server import RedisServer
from tests.server.metrics.metrics_page import of
from tests.server.served_node import ServedNode, publish, serve_node
from tests.support.timing import STARTED, TICK
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.connections.connection import REPLY_SECONDS
from tocsin_server.engine.redis.engine import RedisEngine
from tocsin_server.engine.redis.pubsub import probe
from tocsin_server.errors import EngineError

CHANNEL = "log:1"

Condition = Callable[[dict[str, float]], bool]


@asynccontextmanager
async def sharing(url: str, prefix: str) -> AsyncIterator[ServedNode]:
    async with serve_node(engine=RedisEngine(parse_address(url), prefix)) as served:
        yield served


async def until_page(served: ServedNode, condition: Condition) -> dict[str, float]:
    """Wait until the metrics page fulfils a condition. Returns it."""
    async with asyncio.timeout(STARTED):
        while not condition(samples := of(served.node)):  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(TICK / 5)
    return samples


def clock_error(served: ServedNode) -> float:
    """By how many seconds the node's shared clock may be wrong."""
    assert isinstance(served.node.engine, RedisEngine)
    return max(sample.error for sample in served.node.engine._clock._samples)


async def test_the_age_of_another_nodes_publication_is_measured(
    redis_server: RedisServer, prefix: str
) -> None:
    """From the publish there to the write here, by the clock of Redis."""
    url = redis_server.url
    async with sharing(url, prefix) as here, sharing(url, prefix) as there, there.connected(CHANNEL):
        for number in range(20):
            await publish(here.node, CHANNEL, b"%d" % number)
        name = "tocsin_publish_to_socket_seconds"
        samples = await until_page(there, lambda samples: samples["tocsin_deliveries_total"] == 20)
        assert samples[f"{name}_count"] == samples["tocsin_fanout_seconds_count"] > 0
        wrong = samples[f"{name}_count"] * sum(clock_error(served) for served in (here, there))
        rounds, ages = samples["tocsin_fanout_seconds_sum"], samples[f"{name}_sum"]
        assert rounds - wrong < ages < 20 * STARTED
        assert of(here.node)[f"{name}_count"] == 0, "the publishing node has no subscribers"


@pytest.mark.usefixtures("short_timeouts")
async def test_a_deaf_node_and_its_recovery_are_visible(proxy: BlackholeProxy, prefix: str) -> None:
    """The probe's age grows; the connection is replaced, and lost publications are backfilled."""
    async with sharing(proxy.url, prefix) as served, served.connected(CHANNEL) as wire:
        before = of(served.node)
        assert before["tocsin_deaf"] == 0
        assert before["tocsin_pubsub_connections_total"] == 1
        assert 0 < before["tocsin_probe_lag_seconds"] < STARTED
        proxy.drop_pubsub()
        proxy.drop_subscribers()  # the node then stays deaf until the test has read the metrics
        await publish(served.node, CHANNEL, b"1", b"2")
        deaf = await until_page(served, lambda samples: samples["tocsin_deaf"] == 1)
        assert deaf["tocsin_probe_age_seconds"] > 1.5 * probe.PROBE_SECONDS
        assert deaf["tocsin_engine_ready"] == 0
        proxy.pass_all()
        age = deaf["tocsin_probe_age_seconds"]
        recovered = await until_page(
            served,
            lambda samples: samples["tocsin_deaf"] == 0 and samples["tocsin_probe_age_seconds"] < age,
        )
        assert recovered["tocsin_pubsub_connections_total"] == 2
        await wire.push("pub")
        assert of(served.node)["tocsin_backfilled_publications_total"] == 2


@pytest.mark.usefixtures("short_timeouts")
async def test_a_frozen_redis_is_visible(volatile_redis: RedisServer, prefix: str) -> None:
    """Commands are queued and then fail. Their duration is measured."""
    async with sharing(volatile_redis.url, prefix) as served:
        volatile_redis.freeze()
        first = asyncio.create_task(publish(served.node, CHANNEL, b"1"))
        await asyncio.sleep(TICK)
        second = asyncio.create_task(publish(served.node, CHANNEL, b"2"))
        await until_page(served, lambda samples: samples["tocsin_queued_bytes{queue=engine}"] > 0)
        with capture_logs(), pytest.raises(EngineError):
            await first
        volatile_redis.thaw()
        await asyncio.gather(second, return_exceptions=True)
        samples = await until_page(served, lambda samples: samples["tocsin_queued_bytes{queue=engine}"] == 0)
        assert samples["tocsin_engine_errors_total{call=publish}"] >= 1
        assert samples["tocsin_engine_call_seconds_sum{call=publish}"] > REPLY_SECONDS / 4


async def test_a_lost_history_is_visible(redis_server: RedisServer, prefix: str) -> None:
    """Each of its subscribers is told, and counted."""
    url = redis_server.url
    async with sharing(url, prefix) as served, served.connected(CHANNEL), served.connected(CHANNEL):
        await publish(served.node, CHANNEL, b"1")
        redis_server.command("DEL", *redis_server.command("KEYS", f"{prefix}:*{CHANNEL}*"))
        await publish(served.node, CHANNEL, b"2")
        await until_page(served, lambda samples: samples["tocsin_gaps_total"] == 2)


@pytest.mark.usefixtures("short_leases")
async def test_a_reaped_node_is_counted(redis_server: RedisServer, prefix: str) -> None:
    """By the node that reaped it."""
    url = redis_server.url
    async with sharing(url, prefix) as served, node_process_running(url, prefix, "gone") as node_process:
        await node_process.add("news", "client", "user")
        assert of(served.node)["tocsin_reaped_nodes_total"] == 0
        node_process.signal(signal.SIGKILL)
        await until_page(served, lambda samples: samples["tocsin_reaped_nodes_total"] == 1)
