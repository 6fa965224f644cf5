"""The shared clock: every node knows the age of a publication, even if the machines' clocks differ."""

from __future__ import annotations

import asyncio
import time

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import HISTORY, NO_HISTORY, Node
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.redis_server import RedisServer
from tests.server.served_node import until
from tests.support.timing import QUIET
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.engine.broker import NewPublication
from tocsin_server.engine.redis.clock import SAMPLES, UNKNOWN_TIME, SharedClock
from tocsin_server.engine.redis.engine import RedisEngine
from tocsin_server.engine.redis.keys import Keys

AHEAD = 1_000_000.0


class ManualClock:
    """A node's monotonic clock, which the test advances."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def clock_by(own: ManualClock) -> SharedClock:
    return SharedClock(Keys("unused"), None, own)  # type: ignore[arg-type]  # the test adds the samples


def clock_of(node: Node) -> SharedClock:
    assert isinstance(node.engine, RedisEngine)
    return node.engine._clock


def test_an_unknown_time_is_reported_as_unknown() -> None:
    """Before the first sample, and for a stamp of a node that had no sample yet."""
    clock = clock_by(ManualClock())
    assert clock.stamp() == UNKNOWN_TIME
    assert clock.monotonic(5) == UNKNOWN_TIME
    clock.add_sample(AHEAD + 100, 100, 100)
    assert clock.monotonic(UNKNOWN_TIME) == UNKNOWN_TIME


def test_a_stamp_is_the_same_moment_on_both_nodes() -> None:
    """Their clocks have different origins, and Redis' clock shows another date."""
    one, other = ManualClock(), ManualClock()
    other.now = 7000
    here, there = clock_by(one), clock_by(other)
    here.add_sample(AHEAD, one.now, one.now)
    there.add_sample(AHEAD, other.now, other.now)
    one.now += 0.25
    assert there.monotonic(here.stamp()) == pytest.approx(other.now + 0.25, abs=1e-5)


def test_the_sample_that_took_the_least_time_is_used() -> None:
    """Its error is at most half of that time. It is dropped when it is too old."""
    own = ManualClock()
    clock = clock_by(own)
    clock.add_sample(AHEAD + 100.0, 100, 100.001)
    clock.add_sample(AHEAD + 100.9, 100, 101)
    assert clock.stamp() == pytest.approx((AHEAD + 99.9995) * 1e6, abs=1e3)
    for _ in range(SAMPLES):
        clock.add_sample(AHEAD + 100.9, 100, 101)
    assert clock.stamp() == pytest.approx((AHEAD + 100.4) * 1e6, abs=1e3)


def test_a_jump_of_the_clock_is_followed_at_once() -> None:
    """Two samples that cannot both be right: the older ones are dropped, however exact."""
    clock = clock_by(ManualClock())
    clock.add_sample(AHEAD, 100, 100.001)
    clock.add_sample(AHEAD - 3600, 100, 100.5)
    assert clock.stamp() == pytest.approx((AHEAD - 3600) * 1e6, abs=1e6)


@pytest.mark.parametrize("options", [NO_HISTORY, HISTORY], ids=["no history", "history"])
async def test_a_subscribed_node_knows_when_a_publication_was_published(
    running: Running, redis_server: RedisServer, options: ChannelOptions
) -> None:
    """By its own clock, over a real Redis, with and without history."""
    async with running(redis_server.url, "n1") as here, running(redis_server.url, "n2") as there:
        await there.broker.subscribe("news")
        clocks = [clock_of(node) for node in (here, there)]
        await until(lambda: all(clock.stamp() != UNKNOWN_TIME for clock in clocks))
        before = time.monotonic()
        await here.broker.publish("news", NewPublication(Raw(b"1")), options)
        await there.handler.until_received(1)
        (published_at,) = there.handler.published_at
        wrong = sum(max(sample.error for sample in clock._samples) for clock in clocks)
        assert before - wrong <= published_at <= time.monotonic() + wrong


async def test_a_node_that_has_started_knows_the_shared_time(
    running: Running, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the others would refuse its first requests, and it theirs, as too old."""
    take_sample = SharedClock.sample

    async def take_slow_sample(self: SharedClock) -> None:
        await asyncio.sleep(QUIET)
        await take_sample(self)

    monkeypatch.setattr(SharedClock, "sample", take_slow_sample)
    async with running(redis_server.url) as node:
        assert clock_of(node).stamp() != UNKNOWN_TIME
