"""Turns to read history: so many at once, each owner in turn."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.support.timing import TICK
from tocsin_server.node.read_turns import OWNER_TURNS, ReadTurns


class Readers:
    """Owners that take turns, and give them back when they are told to."""

    def __init__(self, limit: int) -> None:
        self.turns: ReadTurns[str] = ReadTurns(limit)
        self.order: list[str] = []
        self._ends: list[asyncio.Event] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def ask(self, *owners: str) -> None:
        for owner in owners:
            end = asyncio.Event()
            self._ends.append(end)
            self._tasks.append(asyncio.create_task(self._read(owner, end)))
        await asyncio.sleep(0)

    async def _read(self, owner: str, end: asyncio.Event) -> None:
        async with self.turns.turn(owner):
            self.order.append(owner)
            await end.wait()

    async def end_all(self) -> str:
        """End every read; the order in which they had their turns."""
        for end in self._ends:
            end.set()
        await asyncio.gather(*self._tasks)
        assert len(self.turns) == 0
        assert not self.turns._waiting
        assert not self.turns._next
        return "".join(self.order)


async def test_the_limit_is_exact() -> None:
    readers = Readers(3)
    await readers.ask("a", "b", "c")
    assert readers.order == ["a", "b", "c"]
    await readers.ask("d")
    assert readers.order == ["a", "b", "c"]
    assert await readers.end_all() == "abcd"


async def test_one_owner_has_few_turns_at_once() -> None:
    readers = Readers(100)
    await readers.ask(*"a" * (OWNER_TURNS + 1), "b")
    assert "".join(readers.order) == "a" * OWNER_TURNS + "b"
    assert await readers.end_all() == "a" * OWNER_TURNS + "b" + "a"


async def test_owners_take_turns_however_much_each_asks_for() -> None:
    readers = Readers(1)
    await readers.ask(*"aaaaa", *"bb", "c")
    assert await readers.end_all() == "aabcabaa"


async def test_a_turn_that_is_not_free_in_time_is_given_up() -> None:
    """It is not counted, and the next owner gets the turn."""
    readers = Readers(1)
    await readers.ask("a")
    with pytest.raises(TimeoutError):
        async with readers.turns.turn("b", TICK / 10):
            raise AssertionError
    await readers.ask("c")
    assert await readers.end_all() == "ac"


async def test_a_waiting_owner_that_is_cancelled_takes_no_turn() -> None:
    """Neither before its turn nor in the moment in which it gets it."""
    turns: ReadTurns[str] = ReadTurns(1)
    for gets_it in (False, True):
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(AsyncExitStack())
            await first.enter_async_context(turns.turn("a"))

            async def wait() -> None:
                async with turns.turn("b"):
                    raise AssertionError

            task = asyncio.create_task(wait())
            await asyncio.sleep(0)
            if gets_it:
                await first.aclose()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert len(turns) == 0
        assert not turns._waiting


async def test_a_wait_that_is_cancelled_while_a_turn_becomes_free_takes_none() -> None:
    """The turn goes to the next one that waits."""
    turns: ReadTurns[str] = ReadTurns(1)
    order: list[str] = []

    async def read(owner: str) -> None:
        async with turns.turn(owner):
            order.append(owner)

    async with turns.turn("a"):
        cancelled, next_one = asyncio.create_task(read("b")), asyncio.create_task(read("c"))
        await asyncio.sleep(0)
        cancelled.cancel()
    await asyncio.gather(cancelled, next_one, return_exceptions=True)
    assert order == ["c"]
    assert len(turns) == 0
    assert not turns._waiting
