"""The shared clock: a publication's age is known wherever it is heard, whatever the machines' clocks say."""

from __future__ import annotations

import time

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import LOG, NO_LOG, Node
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.redis_server import RedisServer
from tests.server.served_node import until
from tocsin_server.config.options import ChannelOptions
from tocsin_server.engine.broker import NewPublication
from tocsin_server.engine.redis.clock import SAMPLES, UNKNOWN_TIME, SharedClock
from tocsin_server.engine.redis.engine import RedisEngine
from tocsin_server.engine.redis.keys import Keys

AHEAD = 1_000_000.0


class Own:
    """A node's monotonic clock, moved by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def clock_by(own: Own) -> SharedClock:
    return SharedClock(Keys("unused"), None, own)  # type: ignore[arg-type]  # it is told, and asks nobody


def clock_of(node: Node) -> SharedClock:
    assert isinstance(node.engine, RedisEngine)
    return node.engine._clock


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    """Before the first look, and for a stamp of a node that had not looked yet."""
    clock = clock_by(Own())
    assert clock.stamp() == UNKNOWN_TIME
    assert clock.monotonic(5) == UNKNOWN_TIME
    clock.add_sample(AHEAD + 100, 100, 100)
    assert clock.monotonic(UNKNOWN_TIME) == UNKNOWN_TIME


def test_a_stamp_means_the_same_moment_to_both_nodes() -> None:
    """Their own clocks began at different times, and Redis' is on another date."""
    one, other = Own(), Own()
    other.now = 7000
    here, there = clock_by(one), clock_by(other)
    here.add_sample(AHEAD, one.now, one.now)
    there.add_sample(AHEAD, other.now, other.now)
    one.now += 0.25
    assert there.monotonic(here.stamp()) == pytest.approx(other.now + 0.25, abs=1e-5)


def test_the_look_that_took_least_time_counts() -> None:
    """It is wrong by at most half of that; when it is too old it is forgotten."""
    own = Own()
    clock = clock_by(own)
    clock.add_sample(AHEAD + 100.0, 100, 100.001)
    clock.add_sample(AHEAD + 100.9, 100, 101)
    assert clock.stamp() == pytest.approx((AHEAD + 99.9995) * 1e6, abs=1e3)
    for _ in range(SAMPLES):
        clock.add_sample(AHEAD + 100.9, 100, 101)
    assert clock.stamp() == pytest.approx((AHEAD + 100.4) * 1e6, abs=1e3)


def test_a_clock_that_jumped_is_believed_at_once() -> None:
    """Two looks that cannot both be true: the older ones are forgotten, however exact they were."""
    clock = clock_by(Own())
    clock.add_sample(AHEAD, 100, 100.001)
    clock.add_sample(AHEAD - 3600, 100, 100.5)
    assert clock.stamp() == pytest.approx((AHEAD - 3600) * 1e6, abs=1e6)


@pytest.mark.parametrize("options", [NO_LOG, LOG], ids=["no log", "log"])
async def test_whoever_hears_a_publication_knows_when_it_was_made(
    running: Running, redis_server: RedisServer, options: ChannelOptions
) -> None:
    """At another node, over a real Redis, and by its own clock; with a log and without."""
    async with running(redis_server.url, "n1") as here, running(redis_server.url, "n2") as there:
        await there.broker.subscribe("news")
        clocks = [clock_of(node) for node in (here, there)]
        await until(lambda: all(clock.stamp() != UNKNOWN_TIME for clock in clocks))
        before = time.monotonic()
        await here.broker.publish("news", NewPublication(Raw(b"1")), options)
        await there.handler.until_received(1)
        (published_at,) = there.handler.published_at
        wrong = sum(max(look.error for look in clock._samples) for clock in clocks)
        assert before - wrong <= published_at <= time.monotonic() + wrong
