"""What a caller has not read yet."""

import asyncio

import pytest

from tocsin.inbox import EVENT_BYTES, Inbox


class Source:
    """Counts how often it was asked to stop and to go on."""

    def __init__(self) -> None:
        self.stops = 0
        self.goes = 0

    def full(self) -> None:
        self.stops += 1

    def drained(self) -> None:
        self.goes += 1


def new(limit: int = 10 * EVENT_BYTES) -> tuple[Inbox[int], Source]:
    source = Source()
    return Inbox(limit, source.full, source.drained), source


async def test_items_come_out_in_order_whenever_they_went_in() -> None:
    inbox, _ = new()
    waiting = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    inbox.put(1, 0)
    inbox.put(2, 0)
    assert [await waiting, await inbox.take()] == [1, 2]


async def test_the_source_is_stopped_once_past_the_limit_and_goes_on_at_half() -> None:
    """Even items without a payload weigh something."""
    inbox, source = new()
    for n in range(13):
        inbox.put(n, 0)
    assert (source.stops, source.goes) == (1, 0)
    taken = []
    while not source.goes:
        taken.append(await inbox.take())
    assert taken == list(range(8))
    for n in range(13, 30):
        inbox.put(n, 0)
    assert (source.stops, source.goes) == (2, 1)
    assert [await inbox.take() for _ in range(22)] == list(range(8, 30))


async def test_one_large_item_fills_it() -> None:
    inbox, source = new(1000)
    inbox.put(1, 5000)
    assert source.stops == 1
    await inbox.take()
    assert source.goes == 1


async def test_a_close_comes_after_what_is_still_there_and_only_the_first_counts() -> None:
    inbox, _ = new()
    inbox.put(1, 0)
    inbox.close(RuntimeError("why"))
    inbox.close(None)
    assert await inbox.take() == 1
    for _ in range(2):
        with pytest.raises(RuntimeError, match="why"):
            await inbox.take()


async def test_a_quiet_close_wakes_every_reader() -> None:
    inbox, _ = new()

    async def read() -> str:
        try:
            await inbox.take()
        except StopAsyncIteration:
            return "ended"
        return "read"

    readers = [asyncio.create_task(read()) for _ in range(3)]
    await asyncio.sleep(0)
    inbox.close(None)
    assert await asyncio.gather(*readers) == ["ended"] * 3


async def test_cancelling_a_reader_loses_nothing() -> None:
    inbox, _ = new()
    reader = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    inbox.put(1, 0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await inbox.take() == 1
