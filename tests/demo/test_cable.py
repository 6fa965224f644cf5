"""The cable between a node and Redis: what comes through, what is swallowed, that nothing is left of it."""

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator

import pytest

from tests.support.tcp import tcp_connection, tcp_server
from tests.support.timing import QUIET, SOON
from tocsin_demo.cable import Cable, Silence, laid

SUBSCRIBE = b"*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n"
PING = b"*1\r\n$4\r\nPING\r\n"

Ends = tuple[StreamReader, StreamWriter]


class Redis:
    """What is at the other end: it shows what it was sent, and says what the test wants."""

    def __init__(self) -> None:
        self._accepted: asyncio.Queue[Ends] = asyncio.Queue()
        self._is_over = asyncio.Event()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._accepted.put_nowait((reader, writer))
        await self._is_over.wait()

    async def accepted(self) -> Ends:
        return await asyncio.wait_for(self._accepted.get(), SOON)

    def ends(self) -> None:
        self._is_over.set()


@pytest.fixture
async def redis() -> AsyncIterator[tuple[Redis, Cable]]:
    made = Redis()
    async with tcp_server(made.serve) as port, laid(port) as cable:
        yield made, cable
        made.ends()


@contextlib.asynccontextmanager
async def strand(redis: tuple[Redis, Cable]) -> AsyncIterator[tuple[Ends, Ends]]:
    """One connection through the cable: the node's end, and Redis'."""
    async with tcp_connection(redis[1].port) as node:
        yield node, await redis[0].accepted()


async def arrives(sender: Ends, receiver: Ends, data: bytes) -> None:
    sender[1].write(data)
    assert await asyncio.wait_for(receiver[0].readexactly(len(data)), SOON) == data


async def is_swallowed(sender: Ends, receiver: Ends, data: bytes) -> None:
    """Nothing comes, and the connection stays open."""
    sender[1].write(data)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(receiver[0].read(1), QUIET)


async def is_hung_up(end: Ends) -> None:
    with contextlib.suppress(OSError):
        assert await asyncio.wait_for(end[0].read(), SOON) == b""


async def test_what_is_sent_arrives_both_ways(redis: tuple[Redis, Cable]) -> None:
    async with strand(redis) as (node, far):
        await arrives(node, far, PING)
        await arrives(far, node, b"+PONG\r\n")


async def test_whoever_reads_slowly_gets_everything(redis: tuple[Redis, Cable]) -> None:
    """And the cable does not hoard it meanwhile: whoever sends has to wait."""
    much = bytes(range(256)) * 100_000
    async with strand(redis) as (node, far):
        far[1].write(much)
        sending = asyncio.create_task(far[1].drain())
        await asyncio.sleep(QUIET)
        assert not sending.done()
        assert await asyncio.wait_for(node[0].readexactly(len(much)), SOON) == much
        await asyncio.wait_for(sending, SOON)


@pytest.mark.parametrize("cut", range(len(SUBSCRIBE)))
async def test_only_what_is_announced_is_swallowed(redis: tuple[Redis, Cable], cut: int) -> None:
    """However the command that subscribes is cut into segments."""
    async with strand(redis) as (node, far):
        if cut:
            await arrives(node, far, SUBSCRIBE[:cut])
        await arrives(node, far, SUBSCRIBE[cut:])
        await arrives(far, node, b"announced")
        redis[1].fall_silent("hearing")
        await arrives(node, far, PING)
        if cut % 9 == 0:  # silence has to be waited for
            await is_swallowed(far, node, b"announced")


async def test_a_link_made_while_nothing_is_heard_hears_nothing(redis: tuple[Redis, Cable]) -> None:
    redis[1].fall_silent("hearing")
    async with strand(redis) as (node, far), strand(redis) as (other, far_other):
        await arrives(node, far, SUBSCRIBE)
        await is_swallowed(far, node, b"subscribed")
        await arrives(other, far_other, PING)
        await arrives(far_other, other, b"+PONG\r\n")


async def test_everything_can_be_swallowed(redis: tuple[Redis, Cable]) -> None:
    async with strand(redis) as (node, far):
        redis[1].fall_silent("all")
        await is_swallowed(node, far, PING)
        await is_swallowed(far, node, b"+PONG\r\n")


async def test_who_heals_hangs_up_what_has_a_hole_and_nothing_else(redis: tuple[Redis, Cable]) -> None:
    async with strand(redis) as (node, far), strand(redis) as (other, far_other):
        await arrives(node, far, SUBSCRIBE)
        await arrives(other, far_other, PING)
        redis[1].fall_silent("hearing")
        await is_swallowed(far, node, b"announced")
        redis[1].heal()
        await is_hung_up(node)
        await is_hung_up(far)
        await arrives(far_other, other, b"+PONG\r\n")


async def test_who_hangs_up_on_one_side_is_missed_on_the_other(redis: tuple[Redis, Cable]) -> None:
    async with strand(redis) as (node, far):
        node[1].close()
        await is_hung_up(far)


async def test_where_nobody_listens_the_node_is_hung_up_on() -> None:
    async with tcp_server(Redis().serve) as port:
        pass
    async with laid(port) as cable, tcp_connection(cable.port) as node:
        await is_hung_up(node)


@pytest.mark.parametrize("silence", ["", "hearing", "all"])
async def test_nothing_is_left_of_a_cable(silence: Silence) -> None:
    """No task, no connection, no port, whatever it swallows."""
    redis = Redis()
    before = asyncio.all_tasks()
    async with tcp_server(redis.serve) as port:
        async with laid(port) as cable, strand((redis, cable)) as (node, far):
            await arrives(node, far, SUBSCRIBE)
            cable.fall_silent(silence)
            far[1].write(b"announced")
            until_left = contextlib.AsyncExitStack()
            await until_left.enter_async_context(strand((redis, cable)))
        await is_hung_up(far)
        with pytest.raises(OSError, match=r"Connect|refused"):
            await asyncio.open_connection("127.0.0.1", cable.port)
        redis.ends()
        await until_left.aclose()
    assert asyncio.all_tasks() == before
