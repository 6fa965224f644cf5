"""Deliveries of lifecycle events to subscribers: order, retries, dead letters, claims, draining."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from tests.server.hooks.lifecycle_events import WrittenLog, event, events
from tests.server.served_node import until
from tests.support.timing import SOON, TICK
from tocsin_server.core import delivery
from tocsin_server.core.delivery import Outcome, Result
from tocsin_server.core.lifecycle import LifecycleEvent
from tocsin_server.engine.deliveries import DeadLetterLimits
from tocsin_server.engine.event_log import ClaimLost, StoredEvent
from tocsin_server.engine.memory.deliveries import MemoryDeliveryStore
from tocsin_server.errors import EngineError
from tocsin_server.hooks import deliveries as deliveries_module
from tocsin_server.hooks import part_delivery
from tocsin_server.hooks.deliveries import Deliveries
from tocsin_server.hooks.subscriber import DeliveryOptions
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.sampled_log import SampledLog

TAKEN = Outcome(Result.DELIVERED)
DOWN = Outcome(Result.UNREACHABLE, "connection refused")
REFUSED = Outcome(Result.REFUSED, "status 422", 422)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are short. Their real lengths are those of tests/server/core/test_delivery.py."""
    monkeypatch.setattr(delivery, "FIRST_PAUSE_SECONDS", 0.002)
    monkeypatch.setattr(delivery, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(part_delivery, "CLAIM_SECONDS", 0.005)
    monkeypatch.setattr(part_delivery, "ENGINE_PAUSE_SECONDS", 0.005)


class Recorder:
    """A subscriber whose outcomes a test chooses."""

    def __init__(self, name: str = "webhooks.app", batch_size: int = 10, limit: int = 100) -> None:
        self.name = name
        self.options = DeliveryOptions(batch_size, 0.0, 3600.0, DeadLetterLimits(limit, 3600.0))
        self.outcome: Callable[[Sequence[LifecycleEvent]], Outcome] = lambda _: TAKEN
        self.attempts: list[tuple[str, list[str]]] = []
        self.taken: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        yield

    def wants(self, event: LifecycleEvent) -> bool:
        return event.type == "connected"

    async def deliver(self, delivery: str, events: Sequence[LifecycleEvent]) -> Outcome:
        ids = [one.id for one in events]
        self.attempts.append((delivery, ids))
        await self.may_answer.wait()
        outcome = self.outcome(events)
        if outcome.result is Result.DELIVERED:
            self.taken += ids
        return outcome


class Setting:
    """A log, a store and what is known of them, shared by the nodes of a test."""

    def __init__(self, parts: int = 1) -> None:
        self.log = WrittenLog(parts)
        self.store = MemoryDeliveryStore(time.monotonic)
        self.metrics = Metrics()

    @asynccontextmanager
    async def delivering(self, *subscribers: Recorder, is_shared: bool = True) -> AsyncIterator[Deliveries]:
        """Deliver, and drain at the end."""
        deliveries = Deliveries(
            self.log, self.store, self.metrics, SampledLog(), subscribers, is_shared=is_shared
        )
        task = asyncio.create_task(deliveries.run())
        try:
            yield deliveries
        finally:
            deliveries.drain()
            deliveries.stop()
            await task

    async def dead_letters(self, subscriber: str = "webhooks.app") -> list[str]:
        return [
            str(one.letter.reason) + " " + bytes(one.letter.event).decode()
            for one in await self.store.read_dead_letters(subscriber, 1000)
        ]


async def test_events_are_delivered_once_and_in_order() -> None:
    """Those that were written before the node runs, and those that follow."""
    setting, receiver = Setting(), Recorder()
    await setting.log.add(events(25))
    async with setting.delivering(receiver):
        await until(lambda: len(receiver.taken) == 25)
        await setting.log.add([event(25)])
        await until(lambda: len(receiver.taken) == 26)
    assert receiver.taken == [f"e{number}" for number in range(26)]
    assert len(receiver.attempts) == 4
    assert setting.metrics.delivered_events.counts["webhooks.app",] == 26
    assert await setting.log.read("webhooks.app", 0, 10) == []


async def test_the_events_of_a_session_stay_in_order_in_many_parts() -> None:
    """Each client's events are in one part."""
    setting, receiver = Setting(parts=8), Recorder()
    clients = [f"c{number}" for number in range(20)]
    async with setting.delivering(receiver):
        for number in range(30):
            await setting.log.add([event(number * 100 + i, client) for i, client in enumerate(clients)])
        await until(lambda: len(receiver.taken) == 600)
    for i in range(20):
        numbers = [int(one[1:]) // 100 for one in receiver.taken if int(one[1:]) % 100 == i]
        assert numbers == list(range(30))


async def test_unwanted_events_are_acknowledged_and_not_delivered() -> None:
    setting, receiver = Setting(), Recorder()
    unwanted = [event(number, kind="subscribed", channel="news") for number in range(15)]
    await setting.log.add([*unwanted, event(15), event(16, kind="vacated"), event(17)])
    async with setting.delivering(receiver):
        await until(lambda: receiver.taken == ["e15", "e17"])
        await until(lambda: not setting.log._parts[0].entries)


async def test_a_failed_batch_is_delivered_again_with_the_same_id() -> None:
    """Unchanged, also if more events came meanwhile. None is lost or delivered twice."""
    setting, receiver = Setting(), Recorder()
    await setting.log.add(events(3))
    receiver.outcome = lambda _: DOWN
    async with setting.delivering(receiver):
        await until(lambda: len(receiver.attempts) >= 3)
        await setting.log.add([event(3)])
        await until(lambda: len(receiver.attempts) >= 6)
        receiver.outcome = lambda _: TAKEN
        await until(lambda: len(receiver.taken) == 4)
    assert len({delivery for delivery, ids in receiver.attempts if ids == ["e0", "e1", "e2"]}) == 1
    assert receiver.taken == ["e0", "e1", "e2", "e3"]
    assert await setting.store.failing("webhooks.app") == {}


async def test_a_failing_subscriber_harms_no_other() -> None:
    """One is down and one hangs, while the third gets everything. Each holds one batch in memory."""
    setting = Setting(parts=4)
    down, hanging, well = Recorder("webhooks.down"), Recorder("webhooks.hanging"), Recorder("webhooks.well")
    down.outcome = lambda _: DOWN
    hanging.may_answer.clear()
    async with setting.delivering(down, hanging, well):
        for number in range(50):
            await setting.log.add([event(number * 10 + i, f"c{i}") for i in range(10)])
        await until(lambda: len(well.taken) == 500)
        assert len(hanging.attempts) <= 4
        hanging.may_answer.set()
        down.outcome = lambda _: TAKEN
        await until(lambda: len(hanging.taken) == len(down.taken) == 500)


async def test_a_refused_event_becomes_a_dead_letter_and_the_others_are_delivered() -> None:
    """With its reason. The log and the metrics say so."""
    setting, receiver = Setting(), Recorder()
    receiver.outcome = lambda batch: REFUSED if any(one.id == "e7" for one in batch) else TAKEN
    await setting.log.add(events(12))
    with capture_logs() as logs:
        async with setting.delivering(receiver):
            await until(lambda: len(receiver.taken) == 11)
    assert receiver.taken == [f"e{number}" for number in range(12) if number != 7]
    (letter,) = await setting.dead_letters()
    assert letter.startswith("status 422")
    assert '"id":"e7"' in letter
    assert setting.metrics.dead_letters.counts["webhooks.app",] == 1
    assert [line["event"] for line in logs].count("events_not_delivered") == 1


async def test_of_a_batch_only_events_that_are_too_old_become_dead_letters() -> None:
    """With the unwanted ones before them. Those that follow are delivered once the receiver works."""
    setting, receiver = Setting(), Recorder()
    receiver.outcome = lambda _: DOWN
    old = [structs.replace(event(number), time=time.time() - 7200) for number in range(3)]
    await setting.log.add([event(9, kind="vacated", channel="news"), *old, event(3), event(4)])
    async with setting.delivering(receiver):
        await until(lambda: setting.metrics.dead_letters.counts["webhooks.app",] == 3)
        receiver.outcome = lambda _: TAKEN
        await until(lambda: receiver.taken == ["e3", "e4"])
    assert ['"id":"e' in letter for letter in await setting.dead_letters()] == [True] * 3


async def test_dead_letters_above_the_limit_are_dropped_and_counted() -> None:
    setting, receiver = Setting(), Recorder(limit=3)
    receiver.outcome = lambda _: Outcome(Result.GONE, "status 410", 410)
    await setting.log.add(events(25))
    async with setting.delivering(receiver):
        await until(lambda: setting.metrics.dead_letters.counts["webhooks.app",] == 25)
    assert len(await setting.dead_letters()) == 3
    assert setting.metrics.dropped_dead_letters.counts["webhooks.app",] == 22


async def test_one_log_line_says_that_deliveries_fail_and_one_that_they_work_again() -> None:
    """However many attempts there are. Meanwhile a gauge has the age of the oldest event."""
    setting, receiver = Setting(parts=4), Recorder()
    receiver.outcome = lambda _: DOWN
    await setting.log.add([event(i, f"c{i}") for i in range(20)])
    with capture_logs() as logs:
        async with setting.delivering(receiver) as deliveries:
            await until(lambda: len(receiver.attempts) > 20)
            sample = setting.metrics.registry.get_sample_value
            assert sample("tocsin_waiting_event_age_seconds", {"subscriber": "webhooks.app"})
            assert deliveries.warnings == []
            for running in deliveries._running:
                running.report._clock = lambda: time.time() + 301
            assert "webhooks.app" in deliveries.warnings[0]
            receiver.outcome = lambda _: TAKEN
            await until(lambda: len(receiver.taken) == 20)
            await until(lambda: not deliveries.warnings)
    assert [line["event"] for line in logs] == ["delivery_failing", "delivery_recovered"]


async def test_a_drained_node_ends_its_attempt_in_flight_and_begins_no_other() -> None:
    """The events of that attempt are acknowledged, and the claim is released."""
    setting, receiver = Setting(), Recorder(batch_size=2)
    receiver.may_answer.clear()
    await setting.log.add(events(6))
    released: list[tuple[str, int]] = []

    async def release(subscriber: str, part: int) -> None:
        released.append((subscriber, part))

    setting.log.release = release  # type: ignore[method-assign]
    async with setting.delivering(receiver) as deliveries:
        await until(lambda: receiver.attempts)
        deliveries.drain()
        receiver.may_answer.set()
    assert receiver.taken == ["e0", "e1"]
    assert released == [("webhooks.app", 0)]
    async with setting.delivering(receiver):
        await until(lambda: len(receiver.taken) == 6)
    assert receiver.taken == [f"e{number}" for number in range(6)]


async def test_a_node_that_stops_delivers_what_is_left_where_no_other_node_can() -> None:
    """All of it, also what was written last. A drain does not end it."""
    setting, receiver = Setting(parts=2), Recorder(batch_size=2)
    async with setting.delivering(receiver, is_shared=False) as deliveries:
        await until(deliveries._all_parts)
        deliveries.drain()
        await setting.log.add([event(i, f"c{i}") for i in range(20)])
    assert sorted(receiver.taken) == sorted(f"e{i}" for i in range(20))


async def test_a_node_that_stops_waits_for_no_receiver_that_fails() -> None:
    """Each part ends with its next failed attempt, whose pause is not waited for."""
    setting, receiver = Setting(parts=2), Recorder(batch_size=2)
    receiver.outcome = lambda _: DOWN._replace(retry_after=1000.0)
    async with setting.delivering(receiver, is_shared=False):
        await setting.log.add([event(i, f"c{i}") for i in range(20)])
        await until(lambda: len(receiver.attempts) == 2)
    assert len(receiver.attempts) <= 4
    assert receiver.taken == []


async def test_a_node_that_stops_leaves_a_receiver_that_does_not_answer_to_another_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It cancels the attempt, and acknowledges nothing of it. The events have the same delivery id again."""
    monkeypatch.setattr(deliveries_module, "STOP_SECONDS", TICK)
    setting, first, second = Setting(), Recorder(), Recorder()
    first.may_answer.clear()
    await setting.log.add(events(3))
    with capture_logs() as logs:
        async with asyncio.timeout(SOON), setting.delivering(first):
            await until(lambda: first.attempts)
    assert logs == [
        {
            "event": "deliveries_left_to_other_nodes",
            "log_level": "info",
            "subscriber": "webhooks.app",
            "parts": 1,
        }
    ]
    async with setting.delivering(second):
        await until(lambda: len(second.taken) == 3)
    assert second.attempts[0] == first.attempts[0]


async def test_another_node_continues_with_the_failing_delivery() -> None:
    """With the same delivery id and the number of attempts."""
    setting, first, second = Setting(), Recorder(), Recorder()
    first.outcome = second.outcome = lambda _: DOWN
    await setting.log.add(events(3))
    async with setting.delivering(first):
        await until(lambda: len(first.attempts) >= 2)
    await setting.log.add([event(3)])
    before = (await setting.store.failing("webhooks.app"))[0]
    async with setting.delivering(second):
        await until(lambda: second.attempts)
    assert second.attempts[0] == first.attempts[0]
    assert (await setting.store.failing("webhooks.app"))[0].attempts > before.attempts


async def test_a_claim_is_respected_and_taken_over() -> None:
    """A node without the claim delivers nothing, and delivers once it has it."""
    setting, receiver = Setting(), Recorder()
    may_claim = asyncio.Event()
    claims = 0

    async def claim(_subscriber: str, _part: int) -> bool:
        nonlocal claims
        claims += 1
        return may_claim.is_set()

    setting.log.claim = claim  # type: ignore[method-assign, assignment]
    await setting.log.add(events(3))
    async with setting.delivering(receiver):
        await until(lambda: claims > 3)
        assert receiver.attempts == []
        may_claim.set()
        await until(lambda: len(receiver.taken) == 3)


class FrozenReader(WrittenLog):
    """The log as a node sees it that was frozen and has lost its claims, once `is_lost`."""

    def __init__(self, log: WrittenLog) -> None:
        super().__init__()
        self._parts = log._parts
        self.is_lost = False

    async def claim(self, subscriber: str, part: int) -> bool:
        return not self.is_lost and await super().claim(subscriber, part)

    async def read(self, subscriber: str, part: int, limit: int) -> Sequence[StoredEvent]:
        if self.is_lost:
            raise ClaimLost
        return await super().read(subscriber, part, limit)

    async def acknowledge(self, subscriber: str, part: int, entries: Sequence[str]) -> None:
        if self.is_lost:
            raise ClaimLost
        await super().acknowledge(subscriber, part, entries)


@pytest.mark.parametrize("has_claim_again", [False, True])
@pytest.mark.parametrize("outcome", [DOWN, REFUSED, TAKEN])
async def test_a_node_that_was_frozen_during_an_attempt_says_nothing_of_it(
    outcome: Outcome, has_claim_again: bool
) -> None:
    """Another node has delivered the events. Nothing is failing then, and nothing is a dead letter.

    What that node knows of a failing delivery stays.
    """
    setting, thawed = Setting(), Setting()
    reader = FrozenReader(setting.log)
    thawed.log, thawed.store = reader, setting.store
    first, second = Recorder(), Recorder()
    first.outcome = lambda _: outcome
    first.may_answer.clear()
    async with thawed.delivering(first):
        await setting.log.add([event(1)])
        reader._writes.increment()
        await until(lambda: first.attempts)
        reader.is_lost = True
        async with setting.delivering(second):
            await until(lambda: second.taken == ["e1"])
            second.outcome = lambda _: DOWN
            await setting.log.add([event(2)])
            await until(lambda: len(second.attempts) > 2)
        kept = await setting.store.failing("webhooks.app")
        assert list(kept) == [0]
        reader.is_lost = not has_claim_again
        first.outcome = lambda batch: outcome if batch[0].id == "e1" else DOWN
        first.may_answer.set()
        attempted = thawed.metrics.delivery_attempts
        await until(lambda: attempted.counts["webhooks.app", outcome.result.value] >= 1)
        assert await setting.dead_letters() == []
    found = await setting.store.failing("webhooks.app")
    assert found[0].delivery == kept[0].delivery
    assert await setting.dead_letters() == []


@pytest.mark.parametrize(
    "error",
    [ClaimLost(), EngineError("Redis is away"), RuntimeError("a fault"), asyncio.CancelledError("a fault")],
)
async def test_an_error_of_the_engine_ends_no_delivery(error: BaseException) -> None:
    """The part is claimed again later. What was not acknowledged is delivered again, with the same id."""
    setting, receiver = Setting(), Recorder()
    acknowledge, failures = setting.log.acknowledge, 3

    async def failing(subscriber: str, part: int, entries: Sequence[str]) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise error
        await acknowledge(subscriber, part, entries)

    setting.log.acknowledge = failing  # type: ignore[method-assign]
    await setting.log.add(events(3))
    with capture_logs() as logs:
        async with setting.delivering(receiver):
            await until(lambda: not failures and len(receiver.attempts) == 4)
    assert len({delivery for delivery, _ in receiver.attempts}) == 1
    assert any(line["log_level"] == "error" for line in logs) == (not isinstance(error, EngineError))


async def test_without_subscribers_there_is_no_task() -> None:
    setting = Setting()
    before = len(asyncio.all_tasks())
    async with setting.delivering() as deliveries:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == before
        assert deliveries.subscribers == []


async def test_memory_is_bounded_while_a_subscriber_is_away() -> None:
    """Of each part at most one batch is read."""
    setting, receiver = Setting(parts=2), Recorder(batch_size=5)
    receiver.outcome = lambda _: DOWN
    largest = 0
    read = setting.log.read

    async def measured(subscriber: str, part: int, limit: int) -> Sequence[StoredEvent]:
        nonlocal largest
        found = await read(subscriber, part, limit)
        largest = max(largest, len(found))
        return found

    setting.log.read = measured  # type: ignore[method-assign]
    await setting.log.add([event(i, f"c{i}") for i in range(1000)])
    async with setting.delivering(receiver):
        await until(lambda: len(receiver.attempts) > 10)
        assert largest <= 5
        assert len({delivery for delivery, _ in receiver.attempts}) == 2


def test_two_subscribers_of_one_name_are_refused() -> None:
    setting = Setting()
    deliveries = Deliveries(setting.log, setting.store, setting.metrics, SampledLog(), [Recorder()])
    with pytest.raises(ValueError, match="already a subscriber"):
        deliveries.add(Recorder())
