"""The Redis engine's event log: dead nodes, lost data, claims, and the limits of what is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, get_args

import pytest

from tests.server.engine.recording_handler import RecordingHandler
from tests.server.engine.redis.redis_server import RedisServer
from tests.server.engine.redis.test_server_checks import NEEDED, allow
from tests.support.timing import TICK
from tocsin_server.config.event_options import EventOptions, RecordedType
from tocsin_server.core.lifecycle import EventBatch, LifecycleEvent, SessionRecord, WriteOutcome, part_of
from tocsin_server.engine.event_log import ClaimLost
from tocsin_server.engine.redis import event_reaper, scripts
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.engine import RedisEngine
from tocsin_server.engine.redis.event_log import RedisEventLog
from tocsin_server.engine.redis.event_reaper import EventReaper
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.scripts import Script
from tocsin_server.errors import EngineError

ALL = get_args(RecordedType)
Opened = Callable[..., AbstractAsyncContextManager[RedisEventLog]]


@pytest.fixture
def opened(prefix: str, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """A function that runs a node and opens its event log. Only a test makes it look for dead nodes."""
    monkeypatch.setattr("tocsin_server.engine.redis.event_log.SWEEP_SECONDS", 3600)

    @asynccontextmanager
    async def run(uid: str, url: str = "", **options: object) -> AsyncIterator[RedisEventLog]:
        events = EventOptions.model_validate({"types": ALL, **options})
        engine = RedisEngine(parse_address(url or redis_server.url), prefix, events=events)
        await engine.start(RecordingHandler(uid))
        try:
            await engine.event_log.open(f"name of {uid}")
            yield engine.event_log
        finally:
            await engine.stop()

    return run


def event(client: str, sequence: int, kind: RecordedType = "connected", channel: str = "") -> LifecycleEvent:
    return LifecycleEvent(kind, f"{client}-{sequence}", 1.5, "node", client, "u", sequence, channel)


def of_channel(kind: RecordedType, channel: str, number: int) -> LifecycleEvent:
    return LifecycleEvent(kind, f"{kind}{number}", 1.5, "node", channel=channel)


def connected(number: int, *clients: str, channels: tuple[str, ...] = ()) -> EventBatch:
    """A batch in which clients connect and subscribe."""
    events: list[LifecycleEvent] = []
    sessions: dict[str, SessionRecord | None] = {}
    for client in clients:
        events.append(event(client, 1))
        events += [event(client, at, "subscribed", channel) for at, channel in enumerate(channels, 2)]
        sessions[client] = SessionRecord("u", "websocket", 1 + len(channels), channels)
    events += [of_channel("occupied", channel, number) for channel in channels]
    return EventBatch(number, events, sessions)


async def read_all(log: RedisEventLog, subscriber: str = "hook") -> list[LifecycleEvent]:
    found: list[LifecycleEvent] = []
    for part in range(log.parts):
        assert await log.claim(subscriber, part)
        found += [stored.event for stored in await log.read(subscriber, part, 10_000)]
    return found


def told(events: list[LifecycleEvent], client: str = "", channel: str = "") -> list[str]:
    return [one.type for one in events if one.client == client and (client or one.channel == channel)]


async def take_for_dead(uid: str, log: RedisEventLog) -> None:
    """Let a node find out that the lease of another one has expired."""
    log.on_alive(frozenset())
    log.on_node_dead(uid)
    await log.sweep()


# ----------------------------------------------------------------------------------------------- dead nodes


async def test_what_a_dead_node_could_not_say_is_said_once(opened: Opened) -> None:
    """Although two nodes find out."""
    async with opened("n1") as dead, opened("n2") as log, opened("n3") as other:
        await dead.write(connected(1, "a", "b", channels=("news", "sport")))
        await take_for_dead("n1", log)
        await take_for_dead("n1", other)
        events = await read_all(log)
        for client in ("a", "b"):
            assert told(events, client) == [
                "connected",
                *("subscribed", "subscribed"),
                *("unsubscribed", "unsubscribed"),
                "disconnected",
            ]
            mine = [one for one in events if one.client == client]
            assert [one.sequence for one in mine] == [1, 2, 3, 4, 5, 6]
            assert len({one.id for one in mine}) == 6
            assert (mine[-1].code, mine[-1].reason, mine[-1].node) == (3020, "node died", "name of n1")
        for channel in ("news", "sport"):
            assert told(events, channel=channel) == ["occupied", "vacated"]


async def test_the_events_of_a_dead_node_are_written_as_soon_as_it_is_found(opened: Opened) -> None:
    """Not only when a node looks for dead ones the next time, which it does here every hour."""
    async with opened("n1") as dead, opened("n2") as log:
        await dead.write(connected(1, "a"))
        seen = 0
        while "disconnected" not in told(await read_all(log), "a"):
            log.on_alive(frozenset())  # the engine says every second that the first node is alive
            log.on_node_dead("n1")
            seen = await log.wait(seen, TICK)


class DyingReaper(EventReaper):
    """It dies after the second slice."""

    slices = 0

    async def _announce(self, *arguments: Any) -> int:
        self.slices += 1
        if self.slices > 2:
            raise EngineError("the node died")
        return await super()._announce(*arguments)


async def test_a_node_goes_on_where_a_reaper_died(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """What that one has said is not said again."""
    monkeypatch.setattr(event_reaper, "SLICE", 100)
    clients = [f"c{number}" for number in range(1000)]
    async with opened("n1") as dead, opened("n2") as log:
        await dead.write(connected(1, *clients))
        reaper = DyingReaper(log._keys, log._commands, lambda _type: True, lambda: 1.5)
        with pytest.raises(EngineError):
            await reaper.reap("n1.0", log.parts)
        assert 100 <= (await log.figures()).stored - 1000 < 900
        await log.sweep()
        ended = [one.client for one in await read_all(log) if one.type == "disconnected"]
        assert sorted(ended) == sorted(clients)


class CountingReaper(EventReaper):
    """It notes how many sessions and events each step has."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.steps: list[tuple[int, int]] = []

    async def _announce(self, script: Script, *arguments: Any) -> int:
        if script is scripts.EVENTS_END_SESSIONS:
            flat, sessions = list(arguments[2]), 0
            before = len(flat)
            while flat:
                del flat[: 3 + flat[2]]
                sessions += 1
            self.steps.append((sessions, before - 3 * sessions))
        return await super()._announce(script, *arguments)


async def test_a_step_of_a_reaper_writes_few_events(opened: Opened) -> None:
    """Sessions may have many subscriptions, and Redis runs nothing else meanwhile."""
    channels = tuple(f"room:{number}" for number in range(99))
    async with opened("n1") as dead, opened("n2") as log:
        await dead.write(connected(1, *(f"c{number}" for number in range(30)), channels=channels))
        reaper = CountingReaper(log._keys, log._commands, lambda _type: True, lambda: 1.5)
        await reaper.reap("n1.0", log.parts)
        assert reaper.steps == [(5, 500)] * 6
        ended = [one for one in await read_all(log) if one.type == "disconnected"]
        assert len(ended) == 30


class ResumingReaper(EventReaper):
    """Before it vacates channels, something happens."""

    async def _announce(self, script: Script, *arguments: Any) -> int:
        if script is scripts.EVENTS_VACATE:
            await self.happens()
        return await super()._announce(script, *arguments)

    async def happens(self) -> None: ...


async def test_a_reaper_vacates_no_channel_after_a_loss_of_data(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is found between two of its steps. The channel is occupied by another node."""
    async with opened("n1") as dead, opened("n2") as other, opened("n3") as log:
        await dead.write(connected(1, "a", channels=("news",)))

        async def lose_data(_reaper: EventReaper) -> None:
            assert await other.write(EventBatch(9, (), {})) is WriteOutcome.STATE_LOST
            await other.open("n2")
            await other.write(connected(1, "b", channels=("news",)))

        monkeypatch.setattr(ResumingReaper, "happens", lose_data)
        reaper = ResumingReaper(log._keys, log._commands, lambda _type: True, lambda: 1.5)
        await reaper.reap("n1.0", log.parts)
        assert told(await read_all(log), channel="news") == ["occupied", "occupied"]


async def test_a_channel_is_vacated_when_its_last_node_is_gone(opened: Opened) -> None:
    async with opened("n1") as dead, opened("n2") as log:
        await dead.write(connected(1, "a", channels=("news",)))
        await log.write(connected(1, "b", channels=("news",)))
        await take_for_dead("n1", log)
        assert told(await read_all(log), channel="news") == ["occupied"]
        vacated = [event("b", 3, "unsubscribed", "news"), of_channel("vacated", "news", 2)]
        await log.write(EventBatch(2, vacated, {"b": SessionRecord("u", "websocket", 3)}))
        assert told(await read_all(log), channel="news") == ["occupied", "vacated"]


@pytest.mark.parametrize("is_carried_out", [False, True])
async def test_a_node_that_was_only_frozen_finds_out(opened: Opened, is_carried_out: bool) -> None:
    """And whether its batch without a reply had been carried out. Then it begins again."""
    async with opened("n1") as frozen, opened("n2") as log:
        batch = connected(1, "a")
        if is_carried_out:
            await frozen.write(batch)
        await take_for_dead("n1", log)
        outcome = await frozen.write(batch)
        expected = WriteOutcome.WRITTEN_AND_REAPED if is_carried_out else WriteOutcome.REAPED
        assert outcome is expected
        await frozen.open("n1")
        await log.sweep()
        assert await frozen.write(connected(1, "b")) is WriteOutcome.WRITTEN, "it has no new lease yet"
        assert told(await read_all(log), "a") == (["connected", "disconnected"] if is_carried_out else [])
        assert told(await read_all(log), "b") == ["connected"]


async def test_a_node_says_what_its_reaper_has_not_said_yet_before_it_begins_again(
    opened: Opened, redis_server: RedisServer, prefix: str
) -> None:
    """The reaper is slow, or died. A session that begins again is told in the right order."""
    async with opened("n1") as frozen, opened("n2") as log:
        await frozen.write(connected(1, "a", channels=("news",)))
        await log._reaper._run(scripts.EVENTS_MARK_DEAD, "n1.0", log.parts, "n1.0", 1_000_000)
        assert await frozen.write(EventBatch(2, (), {})) is WriteOutcome.REAPED
        await frozen.open("n1", live=["a"])
        again = EventBatch(1, [event("a", 6)], {"a": SessionRecord("u", "websocket", 6)})
        assert await frozen.write(again) is WriteOutcome.WRITTEN
        await log.sweep()
        events = await read_all(log)
        assert told(events, "a") == ["connected", "subscribed", "unsubscribed", "disconnected", "connected"]
        assert told(events, channel="news") == ["occupied", "vacated"]
    assert redis_server.command("HEXISTS", Keys(prefix).of_events[1], "n1.0") == 0


async def test_a_node_that_stopped_leaves_nothing(
    opened: Opened, redis_server: RedisServer, prefix: str
) -> None:
    async with opened("n1") as log:
        await log.write(connected(1, "a", channels=("news",)))
        end = [event("a", 2, "unsubscribed", "news"), event("a", 3, "disconnected")]
        await log.write(EventBatch(2, [*end, of_channel("vacated", "news", 2)], {"a": None}))
        await log.close()
    assert redis_server.command("KEYS", f"{prefix}:events:*n1*") == []
    assert redis_server.command("HLEN", Keys(prefix).of_events[1]) == 0


async def test_a_node_that_stopped_with_sessions_left_counts_as_dead(opened: Opened) -> None:
    async with opened("n2") as log:
        async with opened("n1") as stopped:
            await stopped.write(connected(1, "a"))
            await stopped.close()
        await log.sweep()
        assert told(await read_all(log), "a") == ["connected", "disconnected"]


# ------------------------------------------------------------------------------------------------ lost data


async def test_lost_data_is_told_once_and_sessions_are_told_again(
    opened: Opened, volatile_redis: RedisServer
) -> None:
    """A node that starts before the others have noticed does not hide the loss."""
    url = volatile_redis.url
    async with opened("n1", url) as first, opened("n2", url) as second:
        for log, client in ((first, "a"), (second, "b")):
            await log.write(connected(1, client, channels=("news",)))
        volatile_redis.command("FLUSHALL")
        async with opened("n3", url) as new:
            for log in (first, second):
                assert await log.write(connected(2, "x")) is WriteOutcome.STATE_LOST
                await log.open("node", ["a", "b"])
                assert await log.write(connected(1, "a")) is WriteOutcome.WRITTEN
            events = await read_all(new)
            assert [one.type for one in events if one.type == "state_lost"] == ["state_lost"]


async def test_after_a_step_back_only_the_sessions_that_live_are_left(
    opened: Opened, redis_server: RedisServer, prefix: str
) -> None:
    """Redis came back with an earlier state, as after a failover."""
    async with opened("n1") as log:
        await log.write(connected(1, "a", "b", channels=("news",)))
        await log.write(connected(2, "c"))
        redis_server.command("HSET", Keys(prefix).of_events[2], "n1.0", 1)
        assert await log.write(connected(3, "d")) is WriteOutcome.STATE_LOST
        await log.open("n1", live=["a", "c"])
        await log.write(connected(1, "a", channels=("news",)))
        events = await read_all(log)
        assert told(events, "b")[-1] == "disconnected"
        assert told(events, "a") == ["connected", "subscribed"] * 2
        assert told(events, channel="news") == ["occupied", "occupied"]


# ------------------------------------------------------------------------------------------------- readers


async def test_one_live_node_reads_a_part_for_a_subscriber(opened: Opened) -> None:
    """When it dies, another one can claim the part, and the first one can no longer acknowledge."""
    async with opened("n1") as first, opened("n2") as second:
        await first.write(connected(1, "a"))
        part = part_of("a", first.parts)
        assert await first.claim("hook", part)
        assert await first.claim("hook", part)
        assert not await second.claim("hook", part)
        assert await second.claim("other hook", part)
        (stored,) = await first.read("hook", part, 9)
        with pytest.raises(ClaimLost):
            await second.read("hook", part, 9)
        await take_for_dead("n1", second)
        assert await second.claim("hook", part)
        with pytest.raises(ClaimLost):
            await first.acknowledge("hook", part, [stored.entry])
        assert [one.event.type for one in await second.read("hook", part, 9)] == ["connected", "disconnected"]
        await second.release("hook", part)
        await first.write(EventBatch(2, (), {}))
        await first.open("n1")
        assert await first.claim("hook", part)


async def claimed(log: RedisEventLog) -> list[int]:
    """The parts that a node has after it has tried to claim all of them."""
    return [part for part in range(log.parts) if await log.claim("hook", part)]


async def balanced(*logs: RedisEventLog) -> list[int]:
    """How many parts each node has, once none has too many."""
    while True:
        held = [await claimed(log) for log in logs]
        surpluses = [await log.surplus("hook") for log in logs]
        if not any(surpluses) and sum(map(len, held)) == logs[0].parts:
            return [len(parts) for parts in held]
        for log, parts, surplus in zip(logs, held, surpluses, strict=True):
            for part in parts[:surplus]:
                await log.release("hook", part)


async def test_every_node_gets_its_share_of_the_parts(opened: Opened) -> None:
    """One that has more gives some of them up, and does not claim them again."""
    async with opened("n1") as first, opened("n2") as second:
        assert len(await claimed(first)) == 8
        assert (await claimed(second), await first.surplus("hook")) == ([], 4)
        assert await second.surplus("hook") == 0
        for part in range(4):
            await first.release("hook", part)
        assert await claimed(first) == [4, 5, 6, 7]
        assert await claimed(second) == [0, 1, 2, 3]
        async with opened("n3") as third:
            assert sorted(await balanced(first, second, third)) == [2, 3, 3]
            await third.close()
        assert await balanced(first, second) == [4, 4]


async def test_no_part_is_kept_for_a_node_that_has_left(opened: Opened) -> None:
    """Although deliveries of its parts are still in flight. When it claims again, it gets its share."""
    async with opened("n1") as first, opened("n2") as second:
        await claimed(first)
        await claimed(second)
        assert await balanced(first, second) == [4, 4]
        await first.leave("hook")
        for part in set(range(8)).difference(await claimed(second)):
            await first.release("hook", part)
            break
        assert len(await claimed(second)) == 5
        assert await second.surplus("hook") == 0
        assert len(await claimed(first)) == 3
        assert await second.surplus("hook") == 1


async def test_no_part_is_kept_for_a_node_that_has_stopped_to_claim(
    opened: Opened, redis_server: RedisServer, prefix: str
) -> None:
    async with opened("n1") as first, opened("n2") as silent:
        await claimed(first)
        await claimed(silent)
        await first.release("hook", 0)
        assert not await first.claim("hook", 0)
        redis_server.command("HSET", Keys(prefix).of_events[-1], "n2.0 hook", "1700000000000")
        assert await first.claim("hook", 0)
        assert await first.surplus("hook") == 0


async def test_unread_events_beyond_the_size_are_removed_and_counted(opened: Opened) -> None:
    async with opened("n1", size=80, parts=1) as log:
        await log.claim("hook", 0)
        for number in range(1, 11):
            await log.write(connected(number, *(f"c{number}-{at}" for at in range(20))))
        figures = await log.figures()
        assert (figures.stored, figures.trimmed) == (80, 120)


async def test_events_older_than_the_retention_are_removed(opened: Opened) -> None:
    async with opened("n1", retention=0.001) as log:
        await log.claim("hook", 0)
        await log.write(connected(1, "a"))
        while (await log.figures()).stored:
            pass
        assert (await log.figures()).trimmed == 1


async def test_an_event_of_another_format_is_skipped(
    opened: Opened, redis_server: RedisServer, prefix: str
) -> None:
    """It holds up no event behind it."""
    async with opened("n1", parts=1) as log:
        stream = Keys(prefix).event_part(0)
        for number in (1, 2, 3):
            redis_server.command("XADD", stream, "*", "e", "{]")
            await log.write(connected(number, f"c{number}"))
        await log.claim("hook", 0)
        read: list[str] = []
        while stored := await log.read("hook", 0, 10):
            read += [one.event.client for one in stored]
            await log.acknowledge("hook", 0, [one.entry for one in stored])
        assert read == ["c1", "c2", "c3"]


async def test_all_nodes_use_the_number_of_parts_of_the_first(opened: Opened) -> None:
    async with opened("n1", parts=4) as first, opened("n2", parts=16) as second:
        assert (first.parts, second.parts) == (4, 4)


@pytest.mark.parametrize(("before", "after"), [(8, 2), (2, 8)])
async def test_the_number_of_parts_changes_once_no_events_are_left(
    opened: Opened, before: int, after: int
) -> None:
    """So no event is lost, and none is overtaken by a later one of its session or channel."""
    clients = [f"c{number}" for number in range(40)]
    async with opened("n1", parts=before) as log:
        ended = dict.fromkeys(clients)
        await log.write(EventBatch(1, [event(client, 1, "disconnected") for client in clients], ended))
        await log.close()
    async with opened("n2", parts=after) as log:
        assert log.parts == before
        assert sorted(one.client for one in await read_all(log)) == sorted(clients)
        for part in range(before):
            await log.acknowledge("hook", part, [one.entry for one in await log.read("hook", part, 99)])
        await log.close()
    async with opened("n3", parts=after) as log:
        assert log.parts == after
        assert await log.write(connected(1, *clients)) is WriteOutcome.WRITTEN
        assert len(await read_all(log)) == 40
        await log.close()


async def test_the_documented_permissions_suffice(
    opened: Opened, volatile_redis: RedisServer, prefix: str
) -> None:
    """Those of a node, and four more commands."""
    url = allow(volatile_redis, f"{NEEDED} +xlen +xtrim +hscan +sscan", prefix)
    async with opened("n1", url) as log, opened("n2", url) as other:
        await log.write(connected(1, "a", channels=("news",)))
        await log.figures()
        await take_for_dead("n1", other)
        assert await read_all(other)
        for part in range(other.parts):
            stored = await other.read("hook", part, 99)
            await other.acknowledge("hook", part, [one.entry for one in stored])
        await other.close()
    assert volatile_redis.command("ACL", "LOG") == []
