"""Detours: what cannot go straight waits its turn, in order, within its time and within bounds."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import TryAgainError

from tests.support.timing import SOON, TICK
from tocsin_server.engine.redis.cluster import redirects as module
from tocsin_server.engine.redis.cluster.redirects import Redirects, RoutedCommand
from tocsin_server.engine.redis.interfaces import PendingReply
from tocsin_server.errors import EngineError

TRYAGAIN = TryAgainError("Multiple keys request during rehashing of slot")


class Town:
    """Calls are sent when they are sent, and looks end when they end."""

    def __init__(self) -> None:
        self.detours = Redirects(self.send, self.look)
        self.sent: list[RoutedCommand] = []
        self.may_look = asyncio.Event()
        self.looks = 0
        self.is_over = False
        self._numbers = itertools.count()

    def send(self, call: RoutedCommand) -> None:
        self.sent.append(call)
        if self.is_over:
            call.reply.cancel()

    async def look(self) -> None:
        await self.may_look.wait()
        self.looks += 1

    def call(
        self, slot: int = 1, after: PendingReply | None = None, seconds: float = 100 * TICK
    ) -> RoutedCommand:
        return RoutedCommand(b"x" * 100, seconds, slot, next(self._numbers), self.redirect, after)

    def redirect(self, call: RoutedCommand, answer: Exception) -> None:
        self.detours.hold(call, needs_refresh=answer is TRYAGAIN)


async def turn() -> None:
    """Let everything happen that can."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    town = Town()
    async with asyncio.TaskGroup() as tasks:
        town.detours.open(tasks)
        yield town
        town.is_over = True
        for call in town.sent:
            call.reply.cancel()
        town.may_look.set()
    assert town.detours.queued_bytes == 0
    assert 1 not in town.detours


async def test_those_that_were_made_first_go_first(town: Town) -> None:
    """However late it shows that they must go again."""
    first, second, third = town.call(), town.call(), town.call()
    town.detours.hold(second, needs_refresh=True)
    town.detours.hold(third)
    town.detours.hold(first)
    await turn()
    assert not town.sent
    town.may_look.set()
    await turn()
    assert town.sent == [first, second, third]


async def test_a_detour_ends_when_all_on_it_are_answered(town: Town) -> None:
    """Until then whatever comes must take it; what is redirected once more goes before that."""
    first, second = town.call(), town.call()
    town.may_look.set()
    town.detours.hold(first)
    await turn()
    assert 1 in town.detours
    town.detours.hold(second)
    await turn()
    assert town.sent == [first]
    first.resolve(TRYAGAIN)
    await turn()
    assert town.looks == 1
    assert town.sent == [first, first, second]
    for call in (first, second):
        call.resolve(b"OK")
    await turn()
    assert 1 not in town.detours
    assert [await call.reply for call in (first, second)] == [b"OK", b"OK"]


async def test_what_was_sent_straight_is_waited_for(town: Town) -> None:
    """So that nothing overtakes it on its way to where it will be redirected to."""
    straight, later = town.call(), town.call()
    town.detours.track_in_flight([straight])
    town.detours.hold(later)
    await turn()
    assert not town.sent
    straight.resolve(b"OK")
    await turn()
    assert town.sent == [later]


async def test_what_comes_after_another_call_waits_for_it(town: Town) -> None:
    """And so does whatever is behind it; other slots do not."""
    first = town.call(slot=2)
    second, third, other = town.call(after=first.reply), town.call(), town.call(slot=3)
    for call in (second, third, other):
        town.detours.hold(call)
    await turn()
    assert town.sent == [other]
    first.resolve(b"OK")
    await turn()
    assert town.sent == [other, second, third]


async def test_what_comes_after_a_failure_is_not_sent(town: Town) -> None:
    """What is behind it is."""
    first = town.call(slot=2)
    second, third = town.call(after=first.reply), town.call()
    for call in (second, third):
        town.detours.hold(call)
    first.fail("no")
    await turn()
    assert town.sent == [third]
    for call in (first, second):
        with pytest.raises(EngineError):
            await call.reply


async def test_a_call_fails_in_time(town: Town) -> None:
    """Although nobody knows where it should go."""
    call = town.call(seconds=TICK)
    town.detours.hold(call, needs_refresh=True)
    with pytest.raises(EngineError, match="in time"):
        await asyncio.wait_for(call.reply, SOON)


async def test_what_was_redirected_already_is_not_waited_for(town: Town) -> None:
    """The topology changes while it waits, and its old master still counts it among what was sent last."""
    call = town.call(seconds=4 * TICK)
    town.detours.hold(call, needs_refresh=True)
    await turn()
    town.detours.track_in_flight([call])
    async with asyncio.timeout(SOON):
        with pytest.raises(EngineError, match="in time"):
            await call.reply


async def test_what_nobody_waits_for_any_more_is_not_sent(town: Town) -> None:
    """As in a pipeline."""
    call = town.call()
    town.detours.hold(call, needs_refresh=True)
    call.reply.cancel()
    town.may_look.set()
    await turn()
    assert not town.sent


async def test_what_is_held_is_bounded(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bytes, over all slots."""
    monkeypatch.setattr(module, "MAX_QUEUED_BYTES", 250)
    calls = [town.call(slot) for slot in range(3)]
    for call in calls:
        town.detours.hold(call, needs_refresh=True)
    assert town.detours.queued_bytes == 200
    with pytest.raises(EngineError, match="too many"):
        await calls[2].reply


async def test_nothing_is_left_hanging(town: Town) -> None:
    """When all is over."""
    call = town.call()
    town.detours.hold(call, needs_refresh=True)
    town.detours.close()
    with pytest.raises(EngineError, match="not running"):
        await call.reply
    late = town.call()
    town.detours.hold(late)
    with pytest.raises(EngineError, match="not running"):
        await late.reply
