"""Metrics of nodes that share a Redis: what breaks shows on the page, and so does what mends it."""

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
from tests.server.served_node import House, housed, publish
from tests.support.timing import STARTED, TICK
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.engine import RedisEngine
from tocsin_server.errors import EngineError

CHANNEL = "log:1"

Fact = Callable[[dict[str, float]], bool]


@asynccontextmanager
async def sharing(url: str, prefix: str) -> AsyncIterator[House]:
    async with housed(engine=RedisEngine(parse_address(url), prefix)) as house:
        yield house


async def until_page(house: House, fact: Fact) -> dict[str, float]:
    """The page, once it says so."""
    async with asyncio.timeout(STARTED):
        while not fact(samples := of(house.node)):  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(TICK / 5)
    return samples


def clock_error(house: House) -> float:
    """Seconds by which its reckoning of Redis' time may be wrong: what asking took is part of it."""
    assert isinstance(house.node.engine, RedisEngine)
    return max(look.error for look in house.node.engine._clock._samples)


async def test_a_publication_of_another_node_has_its_age(redis_server: RedisServer, prefix: str) -> None:
    """From the call there to the write here, over the clock of Redis."""
    url = redis_server.url
    async with sharing(url, prefix) as here, sharing(url, prefix) as there, there.connected(CHANNEL):
        for number in range(20):
            await publish(here.node, CHANNEL, b"%d" % number)
        name = "tocsin_publish_to_socket_seconds"
        samples = await until_page(there, lambda samples: samples["tocsin_deliveries_total"] == 20)
        assert samples[f"{name}_count"] == samples["tocsin_round_seconds_count"] > 0
        wrong = samples[f"{name}_count"] * sum(clock_error(house) for house in (here, there))
        rounds, ages = samples["tocsin_round_seconds_sum"], samples[f"{name}_sum"]
        assert rounds - wrong < ages < 20 * STARTED
        assert of(here.node)[f"{name}_count"] == 0, "nobody hears it there"


async def test_a_deaf_node_shows_and_so_does_what_mended_it(swallower: BlackholeProxy, prefix: str) -> None:
    """Its canary grows old; the link is replaced; what was published meanwhile comes from the log."""
    async with sharing(swallower.url, prefix) as house, house.connected(CHANNEL) as wire:
        before = of(house.node)
        assert before["tocsin_deaf"] == 0
        assert before["tocsin_links_total"] == 1
        assert 0 < before["tocsin_canary_lag_seconds"] < STARTED
        swallower.drop_pubsub()
        swallower.drop_subscribers()  # so that one is deaf long enough to be looked at
        await publish(house.node, CHANNEL, b"1", b"2")
        deaf = await until_page(house, lambda samples: samples["tocsin_deaf"] == 1)
        assert deaf["tocsin_canary_age_seconds"] > 1.5
        assert deaf["tocsin_engine_ready"] == 0
        swallower.pass_all()
        whole = await until_page(house, lambda samples: samples["tocsin_deaf"] == 0)
        assert whole["tocsin_links_total"] == 2
        assert whole["tocsin_canary_age_seconds"] < deaf["tocsin_canary_age_seconds"]
        await wire.push("pub")
        assert of(house.node)["tocsin_mended_publications_total"] == 2


async def test_what_a_frozen_redis_does_shows(fleeting_redis: RedisServer, prefix: str) -> None:
    """Calls wait, then fail, and what they took is known."""
    async with sharing(fleeting_redis.url, prefix) as house:
        fleeting_redis.freeze()
        first = asyncio.create_task(publish(house.node, CHANNEL, b"1"))
        await asyncio.sleep(TICK)
        second = asyncio.create_task(publish(house.node, CHANNEL, b"2"))
        await until_page(house, lambda samples: samples["tocsin_queue_bytes{place=engine}"] > 0)
        with capture_logs(), pytest.raises(EngineError):
            await first
        fleeting_redis.thaw()
        await asyncio.gather(second, return_exceptions=True)
        samples = await until_page(house, lambda samples: samples["tocsin_queue_bytes{place=engine}"] == 0)
        assert samples["tocsin_engine_errors_total{call=publish}"] >= 1
        assert samples["tocsin_engine_call_seconds_sum{call=publish}"] > 1


async def test_a_log_that_died_shows(redis_server: RedisServer, prefix: str) -> None:
    """Everybody who followed it is told, and counted."""
    url = redis_server.url
    async with sharing(url, prefix) as house, house.connected(CHANNEL), house.connected(CHANNEL):
        await publish(house.node, CHANNEL, b"1")
        redis_server.command("DEL", *redis_server.command("KEYS", f"{prefix}:*{CHANNEL}*"))
        await publish(house.node, CHANNEL, b"2")
        await until_page(house, lambda samples: samples["tocsin_broken_streams_total"] == 2)


async def test_a_node_that_was_reaped_is_counted(redis_server: RedisServer, prefix: str) -> None:
    """By the one that did it."""
    url = redis_server.url
    async with sharing(url, prefix) as house, node_process_running(url, prefix, "gone") as apart:
        await apart.add("news", "client", "user")
        assert of(house.node)["tocsin_reaped_nodes_total"] == 0
        apart.signal(signal.SIGKILL)
        await until_page(house, lambda samples: samples["tocsin_reaped_nodes_total"] == 1)
