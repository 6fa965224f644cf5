"""Two nodes over Redis deliver the events of one log: each has its share of the parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.server.engine.recording_handler import RecordingHandler
from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.server.hooks.lifecycle_events import event
from tests.server.hooks.test_deliveries import DOWN, TAKEN, Recorder
from tests.server.served_node import until
from tocsin_server.config.event_options import EventOptions
from tocsin_server.core import delivery
from tocsin_server.core.lifecycle import EventBatch, WriteOutcome
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.engine import RedisEngine
from tocsin_server.engine.redis.event_log import RedisEventLog
from tocsin_server.hooks import deliveries, part_delivery
from tocsin_server.hooks.deliveries import Deliveries
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.sampled_log import SampledLog

CLIENTS = [f"c{number}" for number in range(40)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes try often to claim parts and to balance them. A delivery that failed pauses for half an hour."""
    monkeypatch.setattr(part_delivery, "CLAIM_SECONDS", 0.02)
    monkeypatch.setattr(deliveries, "BALANCE_SECONDS", 0.05)
    monkeypatch.setattr(delivery, "FIRST_PAUSE_SECONDS", 1800.0)
    monkeypatch.setattr(delivery, "LONGEST_PAUSE_SECONDS", 1800.0)


class DeliveringNode:
    """A node with one subscriber."""

    def __init__(self, log: RedisEventLog, engine: RedisEngine, receiver: Recorder) -> None:
        self.log = log
        self.receiver = receiver
        self.deliveries = Deliveries(log, engine.deliveries, Metrics(), SampledLog(), [receiver])
        self._written = 0

    @property
    def claims(self) -> int:
        """How many parts it has."""
        return sum(part.has_claim for part in self.deliveries._all_parts())

    async def write(self, number: int) -> None:
        """Write an event of each client."""
        self._written += 1
        events = [event(number * 100 + at, client) for at, client in enumerate(CLIENTS)]
        assert await self.log.write(EventBatch(self._written, events, {})) is WriteOutcome.WRITTEN


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def nodes(redis: RedisServer, request: pytest.FixtureRequest) -> Nodes:
    return Nodes(request.node.name, redis.url)


class Nodes:
    """Runs nodes that share a log."""

    def __init__(self, prefix: str, url: str) -> None:
        self._prefix = prefix
        self._url = url

    @asynccontextmanager
    async def delivering(self, uid: str, receiver: Recorder) -> AsyncIterator[DeliveringNode]:
        events = EventOptions(types=("connected",))
        engine = RedisEngine(parse_address(self._url), self._prefix, events=events)
        await engine.start(RecordingHandler(uid))
        try:
            await engine.event_log.open(uid)
            node = DeliveringNode(engine.event_log, engine, receiver)
            task = asyncio.create_task(node.deliveries.run())
            try:
                yield node
            finally:
                node.deliveries.drain()
                await task
        finally:
            await engine.stop()


async def test_parts_move_to_a_node_that_starts_and_back_when_it_drains(nodes: Nodes) -> None:
    """Meanwhile every event is delivered once, and those of each client in their order."""
    receiver = Recorder(batch_size=3)
    async with nodes.delivering("n1", receiver) as first:
        await until(lambda: first.claims == 8)
        await first.write(0)
        async with nodes.delivering("n2", receiver) as second:
            for number in range(1, 15):
                await first.write(number)
            await until(lambda: (first.claims, second.claims) == (4, 4))
            await first.write(15)
        await first.write(16)
        await until(lambda: first.claims == 8)
        await until(lambda: len(receiver.taken) == 17 * len(CLIENTS))
    for at, _ in enumerate(CLIENTS):
        mine = [one for one in receiver.taken if int(one[1:]) % 100 == at]
        assert mine == [f"e{number * 100 + at}" for number in range(17)]


async def test_a_part_whose_delivery_fails_moves_during_its_pause(nodes: Nodes) -> None:
    """The other node makes the next attempt when it is due, with the same delivery id."""
    down, well = Recorder(), Recorder()
    down.outcome = lambda _: DOWN
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(nodes.delivering("n1", down))
        await first.write(0)
        await until(lambda: len({delivery for delivery, _ in down.attempts}) == 8)
        second = await stack.enter_async_context(nodes.delivering("n2", well))
        await until(lambda: (first.claims, second.claims) == (4, 4))
        failing = await first.deliveries.store.failing("webhooks.app")
        assert {one.delivery for one in failing.values()} == {delivery for delivery, _ in down.attempts}
        assert (len(down.attempts), well.attempts) == (8, [])


async def test_a_node_gives_up_a_part_once_its_attempt_has_ended(nodes: Nodes) -> None:
    """So no other node delivers the same events meanwhile."""
    slow, other = Recorder(), Recorder()
    slow.may_answer.clear()
    slow.outcome = lambda _: TAKEN
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(nodes.delivering("n1", slow))
        await first.write(0)
        await until(lambda: len(slow.attempts) == 8)
        second = await stack.enter_async_context(nodes.delivering("n2", other))
        await until(lambda: sum(part.is_giving_up for part in first.deliveries._all_parts()) == 4)
        assert (first.claims, second.claims, other.attempts) == (8, 0, [])
        slow.may_answer.set()
        await until(lambda: (first.claims, second.claims) == (4, 4))
        assert sorted(slow.taken + other.taken) == sorted(f"e{at}" for at, _ in enumerate(CLIENTS))
