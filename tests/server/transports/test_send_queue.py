"""The bytes queued for one client: in order, bounded, and ended in time."""

import asyncio
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.timing import SOON
from tocsin_server.transports.send_queue import SEND_BYTES, SendQueue


def is_overfull(send_queue: SendQueue) -> bool:
    return send_queue.is_overfull


async def all_of(send_queue: SendQueue) -> list[bytes]:
    return [taken async for taken in send_queue]


@given(st.lists(st.binary(max_size=SEND_BYTES), max_size=8))
async def test_chunks_come_out_complete_in_order_and_in_bounded_pieces(chunks: list[bytes]) -> None:
    """Small chunks are joined, and none is cut."""
    send_queue = SendQueue(limit=1)
    for chunk in chunks:
        send_queue.put(chunk)
    send_queue.end(within_seconds=SOON)
    taken = await all_of(send_queue)
    assert b"".join(taken) == b"".join(chunks)
    assert all(len(part) < 2 * SEND_BYTES for part in taken)


async def test_joined_chunks_are_separated() -> None:
    """Messages that are sent together are lines of one."""
    send_queue = SendQueue(limit=100, separator=b"\n")
    for chunk in (b"one", b"two", b"three"):
        send_queue.put(chunk)
    send_queue.end(within_seconds=SOON)
    assert await all_of(send_queue) == [b"one\ntwo\nthree"]


async def test_a_waiting_writer_is_woken() -> None:
    """By each chunk, and by the end."""
    send_queue = SendQueue(limit=100)
    reading = asyncio.create_task(all_of(send_queue))
    for chunk in (b"one", b"two"):
        await asyncio.sleep(0)
        send_queue.put(chunk)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    send_queue.end(within_seconds=SOON)
    assert await reading == [b"one", b"two"]


async def test_bytes_that_are_being_sent_still_count() -> None:
    """The last piece for a client that reads nothing is with the server, and takes as much memory there."""
    send_queue = SendQueue(limit=5)
    for chunk in (b"12", b"34", b"5"):
        send_queue.put(chunk)
    taken = aiter(send_queue)
    await anext(taken)
    assert not is_overfull(send_queue)
    send_queue.put(b"6")
    assert is_overfull(send_queue)
    assert await anext(taken) == b"6"
    assert not is_overfull(send_queue)


async def test_exempt_bytes_do_not_count_until_they_are_sent() -> None:
    """A recovery larger than the limit may be written, and does not raise the limit for later chunks."""
    send_queue = SendQueue(limit=5)
    send_queue.put(b"0" * 100, exempt=True)
    send_queue.put(b"12345")
    assert not is_overfull(send_queue)
    send_queue.put(b"6")
    assert is_overfull(send_queue)
    taken = aiter(send_queue)
    assert len(await anext(taken)) == 106
    following = asyncio.ensure_future(anext(taken))
    await asyncio.sleep(0)
    for chunk in (b"12", b"34", b"56"):
        send_queue.put(chunk)
    assert is_overfull(send_queue)
    await following


async def test_one_large_chunk_is_exempt_and_the_next_is_not() -> None:
    """One publication alone makes no client slow, even if a small one is queued as well."""
    send_queue = SendQueue(limit=10)
    for chunk in (b"1", b"2" * 100, b"3"):
        send_queue.put(chunk)
    assert not is_overfull(send_queue)
    send_queue.put(b"4" * 10)
    assert is_overfull(send_queue)


async def test_chunks_after_the_end_are_dropped() -> None:
    """They do not count either."""
    send_queue = SendQueue(limit=3)
    send_queue.put(b"one")
    send_queue.end(within_seconds=SOON)
    send_queue.put(b"two")
    assert not is_overfull(send_queue)
    assert await all_of(send_queue) == [b"one"]


@pytest.mark.parametrize("ends_first", [False, True])
async def test_a_writer_is_interrupted_at_the_deadline(ends_first: bool) -> None:
    """A client that does not read cannot keep its connection from ending."""
    send_queue = SendQueue(limit=100)
    interrupted = []

    async def write_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            interrupted.append(True)

    if ends_first:
        send_queue.end(within_seconds=0.01)
    else:
        asyncio.get_running_loop().call_soon(send_queue.end, 0.01)
    async with asyncio.timeout(SOON):
        await send_queue.run_writer(write_for_ever())
    assert interrupted


async def test_a_writer_that_ends_before_the_deadline_is_not_interrupted() -> None:
    send_queue = SendQueue(limit=100)
    send_queue.put(b"one")
    taken: list[bytes] = []

    async def write() -> None:
        taken.extend(await all_of(send_queue))

    send_queue.end(within_seconds=SOON)
    await send_queue.run_writer(write())
    assert taken == [b"one"]


async def test_a_lost_connection_ends_its_writer() -> None:
    """Servers raise OSError from `send` once the connection is closed."""

    async def write() -> None:
        raise ConnectionResetError

    await SendQueue(limit=100).run_writer(write())


async def test_an_end_while_the_writer_is_being_interrupted_is_no_error() -> None:
    """A drain reaches every client, also one whose last flush has just run out of time."""
    send_queue = SendQueue(limit=10)

    async def hang() -> None:
        await asyncio.Event().wait()

    writer = asyncio.create_task(send_queue.run_writer(hang()))
    await asyncio.sleep(0)
    send_queue.end(within_seconds=0)
    timeout = send_queue._timeout
    assert timeout is not None
    while not timeout.expired():  # noqa: ASYNC110 - no event signals it
        await asyncio.sleep(0)
    send_queue.end(within_seconds=SOON)
    await writer


async def test_a_chunk_that_is_taken_in_part_is_not_cut() -> None:
    """What follows would otherwise be read as a part of it."""
    queue = SendQueue(10**6)
    pieces = aiter(queue)
    queue.put(b"a" * (SEND_BYTES + 5))
    queue.put(b"b")
    taken = await anext(pieces)
    queue.drop_unbegun()
    queue.put(b"end")
    queue.end(within_seconds=5)
    assert taken + b"".join([piece async for piece in pieces]) == b"a" * (SEND_BYTES + 5) + b"end"


async def test_a_body_writer_takes_chunks_while_nothing_is_queued() -> None:
    """What comes while it is paused is queued, and so is what follows, so the order stays."""
    written: list[bytes] = []
    writer = Mock(is_paused=False, write=written.append)

    async def run() -> None:
        async for piece in queue:
            written.append(piece)  # noqa: PERF401 - one after the other

    queue = SendQueue(10**6)
    queue.set_body_writer(writer)
    queue.put(b"1")  # the queue's own writer has not begun
    writing = asyncio.create_task(run())
    await asyncio.sleep(0)
    queue.put(b"2")
    assert written == [b"1", b"1\r\n2\r\n"]
    writer.is_paused = True
    queue.put(b"3")
    writer.is_paused = False
    queue.put(b"4")
    assert queue.queued_bytes == 2
    queue.end(within_seconds=5)
    await writing
    assert written[2:] == [b"34"]
