"""The proxy between a node and Redis: what it forwards, what it drops, and that it leaves nothing behind."""

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator

import pytest

from tests.support.tcp import tcp_connection, tcp_server
from tests.support.timing import QUIET, SOON
from tocsin_demo.redis_proxy import RedisProxy, redis_proxy

SUBSCRIBE = b"*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n"
PING = b"*1\r\n$4\r\nPING\r\n"

End = tuple[StreamReader, StreamWriter]


class FakeRedis:
    """The server behind the proxy. The test reads and writes its end of each connection."""

    def __init__(self) -> None:
        self._accepted: asyncio.Queue[End] = asyncio.Queue()
        self._is_over = asyncio.Event()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._accepted.put_nowait((reader, writer))
        await self._is_over.wait()

    async def accepted(self) -> End:
        return await asyncio.wait_for(self._accepted.get(), SOON)

    def close(self) -> None:
        self._is_over.set()


@pytest.fixture
async def redis() -> AsyncIterator[tuple[FakeRedis, RedisProxy]]:
    fake = FakeRedis()
    async with tcp_server(fake.serve) as port, redis_proxy(port) as proxy:
        yield fake, proxy
        fake.close()


@contextlib.asynccontextmanager
async def connection(redis: tuple[FakeRedis, RedisProxy]) -> AsyncIterator[tuple[End, End]]:
    """One connection through the proxy: the node's end, and that of Redis."""
    async with tcp_connection(redis[1].port) as node:
        yield node, await redis[0].accepted()


async def arrives(sender: End, receiver: End, data: bytes) -> None:
    sender[1].write(data)
    assert await asyncio.wait_for(receiver[0].readexactly(len(data)), SOON) == data


async def is_dropped(sender: End, receiver: End, data: bytes) -> None:
    """The data does not arrive, and the connection stays open."""
    sender[1].write(data)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(receiver[0].read(1), QUIET)


async def is_closed(end: End) -> None:
    with contextlib.suppress(OSError):
        assert await asyncio.wait_for(end[0].read(), SOON) == b""


async def test_data_arrives_in_both_directions(redis: tuple[FakeRedis, RedisProxy]) -> None:
    async with connection(redis) as (node, server):
        await arrives(node, server, PING)
        await arrives(server, node, b"+PONG\r\n")


async def test_a_slow_reader_receives_everything(redis: tuple[FakeRedis, RedisProxy]) -> None:
    """The proxy does not buffer it meanwhile: the sender has to wait."""
    data = bytes(range(256)) * 100_000
    async with connection(redis) as (node, server):
        server[1].write(data)
        sending = asyncio.create_task(server[1].drain())
        await asyncio.sleep(QUIET)
        assert not sending.done()
        assert await asyncio.wait_for(node[0].readexactly(len(data)), SOON) == data
        await asyncio.wait_for(sending, SOON)


@pytest.mark.parametrize("cut", range(len(SUBSCRIBE)))
async def test_only_data_of_pubsub_connections_is_dropped(
    redis: tuple[FakeRedis, RedisProxy], cut: int
) -> None:
    """However the SUBSCRIBE command is cut into segments."""
    async with connection(redis) as (node, server):
        if cut:
            await arrives(node, server, SUBSCRIBE[:cut])
        await arrives(node, server, SUBSCRIBE[cut:])
        await arrives(server, node, b"published")
        redis[1].drop_pubsub()
        await arrives(node, server, PING)
        if cut % 9 == 0:  # this takes a while
            await is_dropped(server, node, b"published")


async def test_a_connection_made_while_pubsub_data_is_dropped_receives_none(
    redis: tuple[FakeRedis, RedisProxy],
) -> None:
    redis[1].drop_pubsub()
    async with connection(redis) as (node, server), connection(redis) as (other, other_server):
        await arrives(node, server, SUBSCRIBE)
        await is_dropped(server, node, b"subscribed")
        await arrives(other, other_server, PING)
        await arrives(other_server, other, b"+PONG\r\n")


async def test_restore_closes_only_connections_with_a_hole(redis: tuple[FakeRedis, RedisProxy]) -> None:
    async with connection(redis) as (node, server), connection(redis) as (other, other_server):
        await arrives(node, server, SUBSCRIBE)
        await arrives(other, other_server, PING)
        redis[1].drop_pubsub()
        await is_dropped(server, node, b"published")
        redis[1].restore()
        await is_closed(node)
        await is_closed(server)
        await arrives(other_server, other, b"+PONG\r\n")


async def test_a_connection_closed_at_one_end_is_closed_at_the_other(
    redis: tuple[FakeRedis, RedisProxy],
) -> None:
    async with connection(redis) as (node, server):
        node[1].close()
        await is_closed(server)


async def test_a_connection_is_closed_if_redis_does_not_listen() -> None:
    async with tcp_server(FakeRedis().serve) as port:
        pass
    async with redis_proxy(port) as proxy, tcp_connection(proxy.port) as node:
        await is_closed(node)


@pytest.mark.parametrize("is_dropping", [False, True])
async def test_a_proxy_leaves_nothing_behind(is_dropping: bool) -> None:
    """No task, no connection, no port."""
    fake = FakeRedis()
    before = asyncio.all_tasks()
    async with tcp_server(fake.serve) as port:
        async with redis_proxy(port) as proxy, connection((fake, proxy)) as (node, server):
            await arrives(node, server, SUBSCRIBE)
            if is_dropping:
                proxy.drop_pubsub()
            server[1].write(b"published")
            open_until_later = contextlib.AsyncExitStack()
            await open_until_later.enter_async_context(connection((fake, proxy)))
        await is_closed(server)
        with pytest.raises(OSError, match=r"Connect|refused"):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        fake.close()
        await open_until_later.aclose()
    assert asyncio.all_tasks() == before
