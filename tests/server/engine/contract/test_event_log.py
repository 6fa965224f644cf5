"""The event log: what subscribers read, in which order, and when it is read again."""

from collections.abc import Sequence

import pytest

from tests.server.engine.contract.harness import Node
from tocsin_server.core.lifecycle import EventBatch, LifecycleEvent, SessionRecord, WriteOutcome, part_of
from tocsin_server.engine.event_log import EventLog

LIMIT = 1000


def event(client: str, sequence: int, kind: str = "connected") -> LifecycleEvent:
    """An event of a session."""
    return LifecycleEvent(
        kind,  # type: ignore[arg-type]
        f"{client}-{sequence}",
        1_700_000_000.25,
        "node",
        client,
        "user",
        sequence,
        transport="websocket",
    )


def batch(number: int, *events: LifecycleEvent) -> EventBatch:
    """A batch in which every session lives on."""
    sessions = {one.client: SessionRecord(one.user, one.transport, one.sequence) for one in events}
    return EventBatch(number, events, sessions)


async def written(log: EventLog, *events: LifecycleEvent) -> None:
    await log.open("node")
    assert await log.write(batch(1, *events)) is WriteOutcome.WRITTEN


async def read_all(log: EventLog, subscriber: str = "hook") -> list[LifecycleEvent]:
    """All events that a subscriber has not acknowledged, part by part."""
    found: list[LifecycleEvent] = []
    for part in range(log.parts):
        assert await log.claim(subscriber, part)
        found += [stored.event for stored in await log.read(subscriber, part, LIMIT)]
    return found


def of_client(events: Sequence[LifecycleEvent], client: str) -> list[int]:
    return [one.sequence for one in events if one.client == client]


async def test_events_are_read_unchanged_and_in_the_order_of_each_session(node: Node) -> None:
    log = node.engine.event_log
    events = [event(client, number) for number in range(1, 20) for client in ("a", "b", "ü")]
    await written(log, *events)
    found = await read_all(log)
    assert sorted(found, key=lambda one: one.id) == sorted(events, key=lambda one: one.id)
    assert all(of_client(found, client) == list(range(1, 20)) for client in ("a", "b", "ü"))


async def test_a_batch_that_is_written_twice_is_in_the_log_once(node: Node) -> None:
    log = node.engine.event_log
    await written(log, event("a", 1))
    assert await log.write(batch(1, event("a", 1))) is WriteOutcome.WRITTEN
    assert await read_all(log) == [event("a", 1)]


async def test_what_is_not_acknowledged_is_read_again(node: Node) -> None:
    log = node.engine.event_log
    await written(log, *(event("a", number) for number in (1, 2, 3)))
    part = part_of("a", log.parts)
    await log.claim("hook", part)
    first = await log.read("hook", part, 2)
    assert [stored.event.sequence for stored in first] == [1, 2]
    assert list(await log.read("hook", part, 2)) == list(first)
    await log.acknowledge("hook", part, [first[0].entry])
    await log.acknowledge("hook", part, [first[0].entry])
    assert [stored.event.sequence for stored in await log.read("hook", part, 9)] == [2, 3]


async def test_an_acknowledgement_with_a_gap_is_refused(node: Node) -> None:
    """An event that was left out would be lost."""
    log = node.engine.event_log
    await written(log, *(event("a", number) for number in (1, 2, 3)))
    part = part_of("a", log.parts)
    await log.claim("hook", part)
    stored = await log.read("hook", part, 9)
    with pytest.raises(ValueError, match="before these"):
        await log.acknowledge("hook", part, [stored[1].entry])
    assert len(await log.read("hook", part, 9)) == 3


async def test_a_subscriber_does_not_change_what_another_one_reads(node: Node) -> None:
    log = node.engine.event_log
    await written(log, event("a", 1), event("a", 2))
    assert await read_all(log, "slow")
    part = part_of("a", log.parts)
    await log.claim("quick", part)
    await log.acknowledge("quick", part, [one.entry for one in await log.read("quick", part, 9)])
    assert await log.read("quick", part, 9) == []
    assert of_client(await read_all(log, "slow"), "a") == [1, 2]


async def test_what_all_subscribers_acknowledged_is_no_longer_kept(node: Node) -> None:
    log = node.engine.event_log
    await written(log, *(event(f"c{number}", 1) for number in range(30)))
    assert (await log.figures()).stored == 30
    for part in range(log.parts):
        await log.claim("hook", part)
        if stored := await log.read("hook", part, LIMIT):
            await log.acknowledge("hook", part, [one.entry for one in stored])
    figures = await log.figures()
    assert (figures.stored, figures.trimmed) == (0, 0)


async def test_a_reader_waits_until_events_are_written(node: Node) -> None:
    log = node.engine.event_log
    await written(log, event("a", 1))
    seen = await log.wait(0, 60)
    assert await log.wait(seen, 0.001) == seen
    await log.write(batch(2, event("a", 2)))
    assert await log.wait(seen, 60) > seen
