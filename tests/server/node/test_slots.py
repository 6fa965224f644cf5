"""Slots to read history: so many at once, each owner in turn."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.support.timing import TICK
from tocsin_server.node.slots import OWNER_SLOTS, Slots


class Readers:
    """Owners that take slots, and give them back when they are told to."""

    def __init__(self, limit: int) -> None:
        self.slots: Slots[str] = Slots(limit)
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
        async with self.slots.slot(owner):
            self.order.append(owner)
            await end.wait()

    async def end_all(self) -> str:
        """End every read; the order in which they had their slots."""
        for end in self._ends:
            end.set()
        await asyncio.gather(*self._tasks)
        assert len(self.slots) == 0
        assert not self.slots._waiting
        assert not self.slots._next
        return "".join(self.order)


async def test_the_limit_is_exact() -> None:
    readers = Readers(3)
    await readers.ask("a", "b", "c")
    assert readers.order == ["a", "b", "c"]
    await readers.ask("d")
    assert readers.order == ["a", "b", "c"]
    assert await readers.end_all() == "abcd"


async def test_one_owner_has_few_slots_at_once() -> None:
    readers = Readers(100)
    await readers.ask(*"a" * (OWNER_SLOTS + 1), "b")
    assert "".join(readers.order) == "a" * OWNER_SLOTS + "b"
    assert await readers.end_all() == "a" * OWNER_SLOTS + "b" + "a"


async def test_owners_take_slots_however_much_each_asks_for() -> None:
    readers = Readers(1)
    await readers.ask(*"aaaaa", *"bb", "c")
    assert await readers.end_all() == "aabcabaa"


async def test_a_slot_that_is_not_free_in_time_is_given_up() -> None:
    """It is not counted, and the next owner gets the slot."""
    readers = Readers(1)
    await readers.ask("a")
    with pytest.raises(TimeoutError):
        async with readers.slots.slot("b", TICK / 10):
            raise AssertionError
    await readers.ask("c")
    assert await readers.end_all() == "ac"


async def test_a_waiting_owner_that_is_cancelled_takes_no_slot() -> None:
    """Neither while it waits nor in the moment in which it gets one."""
    slots: Slots[str] = Slots(1)
    for gets_it in (False, True):
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(AsyncExitStack())
            await first.enter_async_context(slots.slot("a"))

            async def wait() -> None:
                async with slots.slot("b"):
                    raise AssertionError

            task = asyncio.create_task(wait())
            await asyncio.sleep(0)
            if gets_it:
                await first.aclose()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert len(slots) == 0
        assert not slots._waiting


async def test_a_wait_that_is_cancelled_while_a_slot_becomes_free_takes_none() -> None:
    """The slot goes to the next one that waits."""
    slots: Slots[str] = Slots(1)
    order: list[str] = []

    async def read(owner: str) -> None:
        async with slots.slot(owner):
            order.append(owner)

    async with slots.slot("a"):
        cancelled, next_one = asyncio.create_task(read("b")), asyncio.create_task(read("c"))
        await asyncio.sleep(0)
        cancelled.cancel()
    await asyncio.gather(cancelled, next_one, return_exceptions=True)
    assert order == ["c"]
    assert len(slots) == 0
    assert not slots._waiting


async def test_slots_are_taken_as_long_as_their_sizes_fit() -> None:
    """A large one that waits is not overtaken by small ones. One fits always."""
    slots: Slots[str] = Slots(10)
    assert slots.take_now("a", 8)
    assert slots.take_now("b", 2)
    assert not slots.take_now("c", 1)
    large = asyncio.create_task(slots.wait("d", size=100))
    await asyncio.sleep(0)
    slots.give_back("a", 8)
    assert not slots.take_now("c", 1)
    slots.give_back("b", 2)
    await large
    assert len(slots) == 1
    assert not slots.take_now("c", 1)
    slots.give_back("d", 100)
    assert slots.take_now("c", 10)


async def test_a_large_slot_that_is_given_up_holds_no_other_up() -> None:
    slots: Slots[str] = Slots(10)
    assert slots.take_now("a", 5)
    large, small = (asyncio.create_task(slots.wait(name, size=size)) for name, size in (("b", 6), ("c", 5)))
    await asyncio.sleep(0)
    assert not small.done()
    large.cancel()
    await small
    assert len(slots) == 2
