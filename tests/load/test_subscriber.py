"""The state of a subscriber across its connections."""

import asyncio

import pytest

from tests.load.recording_transport import RecordingTransport, counters_of, new_subscriber
from tests.support.timing import SOON
from tocsin import backoff
from tocsin.models import Position
from tocsin_load.counters import WorkerCounters
from tocsin_load.receipts import Gap, Receipts
from tocsin_load.subscriber import OPEN_SECONDS, Subscriber, describe


async def test_a_lost_subscriber_connects_again_at_the_next_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.0)
    attempts: asyncio.Queue[int] = asyncio.Queue()
    subscriber = Subscriber(
        0, Receipts(0), WorkerCounters("run", 1), 2, lambda one: attempts.put_nowait(one.url_index)
    )
    async with asyncio.timeout(SOON):
        for expected in (1, 0):
            subscriber.on_opening()
            subscriber.on_lost(0, "gone")
            subscriber.on_lost(0, "gone")
            assert await attempts.get() == expected
    assert counters_of(subscriber).failures == {"gone": 2}


async def test_a_final_code_ends_the_subscriber_and_settles_it() -> None:
    subscriber = new_subscriber()
    subscriber.on_lost(3500, "invalid token")
    assert subscriber.is_ended
    assert counters_of(subscriber).settled == 1


async def test_a_connection_without_an_answer_fails_at_its_deadline() -> None:
    subscriber, transport = new_subscriber(), RecordingTransport()
    subscriber.on_connected(transport)
    now = asyncio.get_running_loop().time()
    subscriber.check_deadline(now)
    assert transport.abort_count == 0
    subscriber.check_deadline(now + OPEN_SECONDS + 1)
    assert transport.abort_count == 1
    assert counters_of(subscriber).failures == {"no response in time": 1}


async def test_an_interruption_is_a_gap_unless_it_is_recovered() -> None:
    subscriber = new_subscriber()
    subscriber.on_subscribed(Position(3, "E"), is_recovered=False)
    subscriber.on_unsubscribed()
    subscriber.on_subscribed(Position(3, "E"), is_recovered=True)
    assert subscriber.receipts.gaps == []
    subscriber.on_unsubscribed()
    subscriber.on_subscribed(Position(9, "E"), is_recovered=False)
    assert subscriber.receipts.gaps == [Gap(0, "E", 9)]
    assert counters_of(subscriber).reconnects.total == 2


async def test_the_first_subscription_during_publishing_begins_with_a_gap() -> None:
    subscriber = new_subscriber()
    counters_of(subscriber).is_publishing = True
    subscriber.on_subscribed(Position(3, "E"), is_recovered=False)
    assert subscriber.receipts.gaps == [Gap(0, "E", 3, is_start=True)]


def test_a_failed_attempt_is_described_without_its_address() -> None:
    assert describe(TimeoutError()) == "cannot connect: no response in time"
    refused = ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 9)")
    assert describe(refused) == "cannot connect: Connection refused"
    assert describe(OSError("Multiple exceptions")) == "cannot connect: Multiple exceptions"
