"""The queue of events that the caller has not read yet."""

import asyncio

import pytest

from tocsin.inbox import EVENT_BYTES, Inbox


class Source:
    """Counts the calls to stop and to resume."""

    def __init__(self) -> None:
        self.stops = 0
        self.resumes = 0

    def on_full(self) -> None:
        self.stops += 1

    def on_drained(self) -> None:
        self.resumes += 1


def new(limit: int = 10 * EVENT_BYTES) -> tuple[Inbox[int], Source]:
    source = Source()
    return Inbox(limit, source.on_full, source.on_drained), source


async def test_items_are_taken_in_the_order_of_putting() -> None:
    inbox, _ = new()
    waiting = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    inbox.put(1, 0)
    inbox.put(2, 0)
    assert [await waiting, await inbox.take()] == [1, 2]


async def test_the_source_is_stopped_once_above_the_limit_and_resumed_at_half() -> None:
    """Items without a payload count too."""
    inbox, source = new()
    for n in range(13):
        inbox.put(n, 0)
    assert (source.stops, source.resumes) == (1, 0)
    taken = []
    while not source.resumes:
        taken.append(await inbox.take())
    assert taken == list(range(8))
    for n in range(13, 30):
        inbox.put(n, 0)
    assert (source.stops, source.resumes) == (2, 1)
    assert [await inbox.take() for _ in range(22)] == list(range(8, 30))


async def test_one_large_item_fills_it() -> None:
    inbox, source = new(1000)
    inbox.put(1, 5000)
    assert source.stops == 1
    await inbox.take()
    assert source.resumes == 1


async def test_a_close_follows_the_queued_items_and_only_the_first_counts() -> None:
    inbox, _ = new()
    inbox.put(1, 0)
    inbox.close(RuntimeError("why"))
    inbox.close(None)
    assert await inbox.take() == 1
    for _ in range(2):
        with pytest.raises(RuntimeError, match="why"):
            await inbox.take()


async def test_a_close_without_an_error_wakes_every_reader() -> None:
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


async def test_cancelling_a_reader_loses_no_item() -> None:
    inbox, _ = new()
    reader = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    inbox.put(1, 0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await inbox.take() == 1
