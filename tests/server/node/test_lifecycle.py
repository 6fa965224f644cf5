"""Lifecycle events of a node: what it records of real sessions, and what becomes of it when the log fails."""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from typing import Any, get_args

import pytest
from msgspec import Raw

from tests.server.node.fake_connection import FakeConnection, connected, running
from tests.server.served_node import until
from tocsin_server.config.event_options import EventOptions, RecordedType
from tocsin_server.core.lifecycle import EventBatch, LifecycleEvent, WriteOutcome
from tocsin_server.engine.broker import NewPublication
from tocsin_server.engine.event_log import EventLog, LogFigures
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.engine.memory.event_log import MemoryEventLog
from tocsin_server.errors import EngineError

ALL = get_args(RecordedType)
CHANNELS = {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}


def memory_engine(types: Collection[RecordedType] = ALL) -> MemoryEngine:
    return MemoryEngine(events=EventOptions(types=tuple(types)))


async def recorded(log: EventLog) -> list[LifecycleEvent]:
    """All events in the log, part by part."""
    found: list[LifecycleEvent] = []
    for part in range(log.parts):
        await log.claim("test", part)
        found += [stored.event for stored in await log.read("test", part, 10_000)]
    return found


def of_client(events: Sequence[LifecycleEvent], connection: FakeConnection) -> list[tuple[str, str]]:
    return [(one.type, one.channel) for one in events if one.client == connection.session.client]


def of_channel(events: Sequence[LifecycleEvent], channel: str) -> list[str]:
    return [one.type for one in events if not one.client and one.channel == channel]


async def events_after(engine: MemoryEngine, count: int) -> list[LifecycleEvent]:
    """The events, once there are so many."""
    found: list[LifecycleEvent] = []

    async def are_there() -> bool:
        found[:] = await recorded(engine.event_log)
        return len(found) >= count

    seen = 0
    while not await are_there():
        seen = await engine.event_log.wait(seen, 60)
    return found


async def test_a_session_is_told_from_its_beginning_to_its_end() -> None:
    engine = memory_engine()
    async with running(engine, events={"types": ["all"]}, channels=CHANNELS) as node:
        connection = await connected(node, "news", "sport")
        await connection.call("unsubscribe", channel="news")
        connection.drop()
        events = await events_after(engine, 10)
    assert of_client(events, connection) == [
        ("connected", ""),
        ("subscribed", "news"),
        ("subscribed", "sport"),
        ("unsubscribed", "news"),
        ("unsubscribed", "sport"),
        ("disconnected", ""),
    ]
    mine = [one for one in events if one.client == connection.session.client]
    assert [one.sequence for one in mine] == [1, 2, 3, 4, 5, 6]
    assert [(one.code, one.reason) for one in mine[3:]] == [
        (0, "client unsubscribed"),
        (1, "client disconnected"),
        (3000, "connection closed"),
    ]
    assert {(one.node, one.transport) for one in mine} == {(node.name, "fake")}


async def test_a_channel_is_occupied_from_its_first_subscriber_to_its_last() -> None:
    engine = memory_engine()
    async with running(engine, events={"types": ["occupied", "vacated"]}, channels=CHANNELS) as node:
        first, second = await connected(node, "news"), await connected(node, "news")
        first.drop()
        assert of_channel(await events_after(engine, 1), "news") == ["occupied"]
        second.drop()
        events = await events_after(engine, 2)
    assert [one.type for one in events] == ["occupied", "vacated"]


async def test_a_node_that_stops_says_the_end_of_all_its_sessions() -> None:
    engine = memory_engine()
    async with running(engine, events={"types": ["all"]}, channels=CHANNELS) as node:
        connections = [await connected(node, "news") for _ in range(3)]
    events = await recorded(engine.event_log)
    for connection in connections:
        assert of_client(events, connection)[-2:] == [("unsubscribed", "news"), ("disconnected", "")]
    assert of_channel(events, "news") == ["occupied", "vacated"]
    ends = [one for one in events if one.type == "disconnected"]
    assert {(one.code, one.reason) for one in ends} == {(3001, "shutdown")}


async def test_a_connection_that_never_connected_is_not_told() -> None:
    """Nor one whose connect command was refused."""
    engine = memory_engine()
    async with running(engine, events={"types": ["all"]}) as node:
        FakeConnection(node).drop()
        refused = FakeConnection(node)
        refused.send_command("connect", token="none")
        await until(lambda: refused.closed_with)
    assert await recorded(engine.event_log) == []


async def test_an_empty_cache_is_told_until_it_has_a_publication() -> None:
    engine = memory_engine(["cache_empty"])
    cache: dict[str, Any] = {
        **CHANNELS,
        "history_size": 1,
        "history_ttl": 300,
        "force_recovery": True,
        "force_recovery_mode": "cache",
    }
    async with running(engine, events={"types": ["cache_empty"]}, channels=cache) as node:
        first = await connected(node, "news")
        recovering = await connected(node)
        await recovering.call("subscribe", channel="sport", recover=True)
        await node.operations.publish("news", NewPublication(Raw(b"1")))
        await node.operations.publish("sport", NewPublication(Raw(b"1")))
        await connected(node, "news")
        await (await connected(node)).call("subscribe", channel="sport", recover=True)
    events = await recorded(engine.event_log)
    assert of_client(events, first) == [("cache_empty", "news")]
    assert of_client(events, recovering) == [("cache_empty", "sport")]
    assert len(events) == 2


async def test_only_the_wanted_types_and_channels_are_recorded() -> None:
    types: list[RecordedType] = ["subscribed", "vacated"]
    engine = memory_engine(types)
    namespaces = {"quiet": {**CHANNELS, "record_events": False}}
    sections: dict[str, Any] = {"events": {"types": types}, "channels": CHANNELS, "namespaces": namespaces}
    async with running(engine, **sections) as node:
        connection = await connected(node, "news", "quiet:1")
    events = await recorded(engine.event_log)
    assert of_client(events, connection) == [("subscribed", "news")]
    assert of_channel(events, "news") == ["vacated"]
    assert len(events) == 2


async def test_without_types_nothing_is_recorded_and_no_task_runs() -> None:
    engine = memory_engine()
    async with running(engine, channels=CHANNELS) as node:
        await connected(node, "news")
        assert node.lifecycle is None
        assert node.state.observe is None
    assert await recorded(engine.event_log) == []


class FailingLog(MemoryEventLog):
    """A log whose writes fail, after or without being carried out, while `failures` says so."""

    def __init__(self) -> None:
        super().__init__(EventOptions(types=ALL))
        self.failures: list[bool] = []
        """For each of the next writes that fail: whether it is carried out."""
        self.failed = 0
        self.error: Exception = EngineError("the outcome is unknown")
        self.outcomes: list[WriteOutcome] = []
        """What the next writes return, which are not carried out."""
        self.opened = 0
        self.failing_figures = 0

    async def open(self, node: str, live: Container[str] = ()) -> None:
        self.opened += 1
        await super().open(node, live)

    async def figures(self) -> LogFigures:
        if self.failing_figures:
            self.failing_figures -= 1
            raise self.error
        return await super().figures()

    async def write(self, batch: EventBatch) -> WriteOutcome:
        if self.failures:
            self.failed += 1
            if self.failures.pop(0):
                await super().write(batch)
            raise self.error
        if self.outcomes:
            return self.outcomes.pop(0)
        return await super().write(batch)


@pytest.mark.parametrize("error", [EngineError("the outcome is unknown"), RuntimeError("a defect")])
async def test_a_batch_with_an_unknown_outcome_is_written_once(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """And clients do not wait for it. A defect does not end the node."""
    monkeypatch.setattr("tocsin_server.node.lifecycle.RETRY_SECONDS", 0)
    log, engine = FailingLog(), memory_engine()
    log.error = error
    monkeypatch.setattr(MemoryEngine, "event_log", log)
    log.failures = [True, False, True, False]
    async with running(engine, events={"types": ["all"]}, channels=CHANNELS) as node:
        connection = await connected(node, "news")
        await until(lambda: log.failed == 4)
    events = await recorded(log)
    assert [event for event, _ in of_client(events, connection)] == [
        "connected",
        "subscribed",
        "unsubscribed",
        "disconnected",
    ]


@pytest.mark.parametrize("error", [EngineError("Redis is away"), RuntimeError("a defect")])
async def test_events_that_cannot_be_written_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Not at once. It says how many events wait and why, and ends once they are written."""
    monkeypatch.setattr("tocsin_server.node.lifecycle.RETRY_SECONDS", 0)
    log, engine = FailingLog(), memory_engine()
    log.error = error
    monkeypatch.setattr(MemoryEngine, "event_log", log)
    async with running(engine, events={"types": ["all"]}, channels=CHANNELS) as node:
        log.failures = [False] * 1_000_000
        await connected(node, "news")
        await until(lambda: log.failed > 2)
        monkeypatch.setattr("tocsin_server.node.lifecycle.WARNING_SECONDS", 3600)
        assert node.warnings == ()
        monkeypatch.setattr("tocsin_server.node.lifecycle.WARNING_SECONDS", 0)
        warning = " ".join(node.warnings)
        assert warning.startswith("3 lifecycle events wait")
        assert ("Redis is away" in warning) is isinstance(error, EngineError)
        sample = node.metrics.registry.get_sample_value
        assert sample("tocsin_lifecycle_failing_seconds")
        log.failures = []
        await until(lambda: node.warnings == ())
        assert sample("tocsin_lifecycle_failing_seconds") == 0


@pytest.mark.parametrize("error", [EngineError("Redis is away"), RuntimeError("a defect")])
async def test_a_node_that_was_reaped_finds_out_although_no_figures_can_be_read(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It opens the log again, and its sessions that live are connected again."""
    monkeypatch.setattr("tocsin_server.node.lifecycle.RETRY_SECONDS", 0)
    monkeypatch.setattr("tocsin_server.node.lifecycle.CHECK_SECONDS", 0.001)
    monkeypatch.setattr("tocsin_server.node.lifecycle.FIGURES_SECONDS", 0)
    log, engine = FailingLog(), memory_engine()
    log.error = error
    monkeypatch.setattr(MemoryEngine, "event_log", log)
    async with running(engine, events={"types": ["connected", "disconnected"]}) as node:
        connection = await connected(node)
        await until(lambda: node.lifecycle is not None and not node.lifecycle.waiting_count)
        log.failing_figures, log.outcomes = 1, [WriteOutcome.REAPED]
        await until(lambda: log.opened == 2)
        await until(lambda: node.lifecycle is not None and not node.lifecycle.waiting_count)
    events = of_client(await recorded(log), connection)
    assert [kind for kind, _ in events] == ["connected", "connected", "disconnected"]


async def test_a_node_stops_although_its_log_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin_server.node.lifecycle.STOP_SECONDS", 0.05)
    log, engine = FailingLog(), memory_engine()
    monkeypatch.setattr(MemoryEngine, "event_log", log)
    async with running(engine, events={"types": ["all"]}) as node:
        await connected(node)
        log.failures = [False] * 1000
    assert log.failed
