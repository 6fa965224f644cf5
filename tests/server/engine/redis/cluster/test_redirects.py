"""Slot queues: held commands keep their order, their time limits and the memory bound."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import TryAgainError

from tests.support.timing import SOON, TICK
from tocsin_server.engine.redis.cluster import slot_queues as module
from tocsin_server.engine.redis.cluster.redirects import RoutedCommand, SlotQueues
from tocsin_server.engine.redis.interfaces import PendingReply
from tocsin_server.errors import EngineError

TRYAGAIN = TryAgainError("Multiple keys request during rehashing of slot")


class FakeRouter:
    """Records what is sent, and reads the topology again when the test allows it."""

    def __init__(self) -> None:
        self.slot_queues = SlotQueues(self.send, self.wait_for_reread)
        self.commands: list[RoutedCommand] = []
        self.sent: list[RoutedCommand] = []
        self.may_reread = asyncio.Event()
        self.rereads = 0
        self.is_closing = False
        self._numbers = itertools.count()

    def send(self, command: RoutedCommand) -> None:
        self.sent.append(command)
        if self.is_closing:
            command.reply.cancel()

    async def wait_for_reread(self) -> None:
        await self.may_reread.wait()
        self.rereads += 1

    def command(
        self, slot: int = 1, after: PendingReply | None = None, seconds: float = 100 * TICK
    ) -> RoutedCommand:
        command = RoutedCommand(b"x" * 100, seconds, slot, next(self._numbers), self.redirect, after)
        self.commands.append(command)
        return command

    def redirect(self, command: RoutedCommand, answer: Exception) -> None:
        self.slot_queues.hold(command, needs_reread=answer is TRYAGAIN)


async def run_event_loop() -> None:
    """Let the event loop run until it has nothing to do."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def router() -> AsyncIterator[FakeRouter]:
    router = FakeRouter()
    async with asyncio.TaskGroup() as tasks:
        router.slot_queues.open(tasks)
        yield router
        router.is_closing = True
        for command in router.commands:
            command.reply.cancel()
        router.may_reread.set()
    assert router.slot_queues.queued_bytes == 0
    assert 1 not in router.slot_queues


async def test_held_commands_are_sent_in_the_order_in_which_they_were_made(router: FakeRouter) -> None:
    """However late the first of them is redirected."""
    first, second, third = router.command(), router.command(), router.command()
    router.slot_queues.hold(second, needs_reread=True)
    router.slot_queues.hold(third)
    router.slot_queues.hold(first)
    await run_event_loop()
    assert not router.sent
    router.may_reread.set()
    await run_event_loop()
    assert router.sent == [first, second, third]


async def test_a_slot_queue_ends_when_all_its_commands_are_answered(router: FakeRouter) -> None:
    """Until then, new commands join it. A command that is redirected again goes first."""
    first, second = router.command(), router.command()
    router.may_reread.set()
    router.slot_queues.hold(first)
    await run_event_loop()
    assert 1 in router.slot_queues
    router.slot_queues.hold(second)
    await run_event_loop()
    assert router.sent == [first]
    first.resolve(TRYAGAIN)
    await run_event_loop()
    assert router.rereads == 1
    assert router.sent == [first, first, second]
    for command in (first, second):
        command.resolve(b"OK")
    await run_event_loop()
    assert 1 not in router.slot_queues
    assert [await command.reply for command in (first, second)] == [b"OK", b"OK"]


async def test_held_commands_wait_for_commands_in_flight(router: FakeRouter) -> None:
    """They must not overtake a command that may be redirected."""
    in_flight, later = router.command(), router.command()
    router.slot_queues.track_in_flight([in_flight])
    router.slot_queues.hold(later)
    await run_event_loop()
    assert not router.sent
    in_flight.resolve(b"OK")
    await run_event_loop()
    assert router.sent == [later]


async def test_after_a_redirect_during_a_read_the_topology_is_read_again(router: FakeRouter) -> None:
    """The read may have begun before the redirect."""
    first, second = router.command(), router.command()
    router.slot_queues.hold(first, needs_reread=True)
    await run_event_loop()
    router.slot_queues.hold(second, needs_reread=True)
    router.may_reread.set()
    await run_event_loop()
    assert router.rereads == 2
    assert router.sent == [first, second]


async def test_held_commands_wait_for_commands_that_a_new_topology_left_in_flight(router: FakeRouter) -> None:
    """A command in flight to the old master may be redirected, and precedes the new ones."""
    first, in_flight, last = router.command(), router.command(), router.command()
    router.slot_queues.hold(first, needs_reread=True)
    router.slot_queues.hold(last)
    await run_event_loop()
    router.slot_queues.track_in_flight([in_flight])
    router.may_reread.set()
    await run_event_loop()
    assert not router.sent
    in_flight.resolve(TRYAGAIN)
    await run_event_loop()
    assert router.sent == [first, in_flight, last]


async def test_a_dependent_command_waits_for_the_other_command(router: FakeRouter) -> None:
    """The commands behind it wait as well. Other slots do not."""
    first = router.command(slot=2)
    second, third, other = router.command(after=first.reply), router.command(), router.command(slot=3)
    for command in (second, third, other):
        router.slot_queues.hold(command)
    await run_event_loop()
    assert router.sent == [other]
    first.resolve(b"OK")
    await run_event_loop()
    assert router.sent == [other, second, third]


async def test_a_dependent_command_fails_with_the_other_command(router: FakeRouter) -> None:
    """The commands behind it are sent."""
    first = router.command(slot=2)
    second, third = router.command(after=first.reply), router.command()
    for command in (second, third):
        router.slot_queues.hold(command)
    first.fail("no")
    await run_event_loop()
    assert router.sent == [third]
    for command in (first, second):
        with pytest.raises(EngineError):
            await command.reply


async def test_a_held_command_fails_in_time(router: FakeRouter) -> None:
    """Although the topology is unknown."""
    command = router.command(seconds=TICK)
    router.slot_queues.hold(command, needs_reread=True)
    with pytest.raises(EngineError, match="in time"):
        await asyncio.wait_for(command.reply, SOON)


async def test_held_commands_do_not_wait_for_a_redirected_command(router: FakeRouter) -> None:
    """Its old master still lists it as in flight when the topology changes."""
    command = router.command(seconds=4 * TICK)
    router.slot_queues.hold(command, needs_reread=True)
    await run_event_loop()
    router.slot_queues.track_in_flight([command])
    async with asyncio.timeout(SOON):
        with pytest.raises(EngineError, match="in time"):
            await command.reply


async def test_a_cancelled_command_is_not_sent(router: FakeRouter) -> None:
    """As in the pipeline."""
    command = router.command()
    router.slot_queues.hold(command, needs_reread=True)
    command.reply.cancel()
    router.may_reread.set()
    await run_event_loop()
    assert not router.sent


async def test_held_commands_are_bounded_in_bytes(
    router: FakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound covers all slots."""
    monkeypatch.setattr(module, "MAX_QUEUED_BYTES", 250)
    commands = [router.command(slot) for slot in range(3)]
    for command in commands:
        router.slot_queues.hold(command, needs_reread=True)
    assert router.slot_queues.queued_bytes == 200
    with pytest.raises(EngineError, match="too many"):
        await commands[2].reply


async def test_held_commands_fail_when_the_slot_queues_close(router: FakeRouter) -> None:
    """Later commands fail at once."""
    command = router.command()
    router.slot_queues.hold(command, needs_reread=True)
    router.slot_queues.close()
    with pytest.raises(EngineError, match="not running"):
        await command.reply
    late = router.command()
    router.slot_queues.hold(late)
    with pytest.raises(EngineError, match="not running"):
        await late.reply
