"""A connection: replies in their order, and an end that is told, whatever comes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager

import pytest
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import ResponseError

from tests.server.engine.redis.redis_server import RedisServer
from tests.support.proxies import accepting, connecting, copy
from tests.support.timing import SOON
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.connections.connection import CONNECTION_ERRORS, RedisConnection, pack_command
from tocsin_server.engine.redis.connections.connector import Connector

NAME = "test-connection"


def dialler(port: int) -> Connector:
    return Connector(parse_address(f"redis://127.0.0.1:{port}"), NAME)


@pytest.fixture
async def connection(redis_server: RedisServer) -> AsyncIterator[RedisConnection]:
    """To the Redis that tests share."""
    async with dialler(redis_server.port).connected() as connection:
        yield connection


async def test_replies_come_in_the_order_of_the_commands(connection: RedisConnection) -> None:
    """One for each."""
    assert await connection.execute(
        pack_command("ECHO", "1"), pack_command("ECHO", 2), pack_command("ECHO", b"3")
    ) == [b"1", b"2", b"3"]


def altered(target: int, alter: Callable[[bytes], Iterable[bytes]]) -> AbstractAsyncContextManager[int]:
    """A way to a Redis on which what it says is altered: bytes into pieces."""

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with connecting(target) as (redis_reader, redis_writer), asyncio.TaskGroup() as tasks:
            tasks.create_task(copy(reader, redis_writer))
            while data := await redis_reader.read(65536):
                for piece in alter(data):
                    writer.write(piece)
                    await asyncio.sleep(0)

    return accepting(lead)


async def test_replies_may_come_in_pieces(redis_server: RedisServer) -> None:
    """Byte by byte, and what belongs to the greeting is not taken for one."""
    way = altered(redis_server.port, lambda data: (bytes((byte,)) for byte in data))
    async with way as port, dialler(port).connected() as connection:
        assert await connection.execute(pack_command("ECHO", "piece"), pack_command("PING")) == [
            b"piece",
            b"PONG",
        ]


async def test_whoever_takes_replies_is_given_errors_too(connection: RedisConnection) -> None:
    """And what was asked before and after the one that Redis refuses."""
    replies: asyncio.Queue[object] = asyncio.Queue()
    connection.on_reply = replies.put_nowait
    connection.send(pack_command("ECHO", "1") + pack_command("NONSENSE") + pack_command("ECHO", "2"))
    async with asyncio.timeout(SOON):
        first, refusal, second = [await replies.get() for _ in range(3)]
    assert (first, second) == (b"1", b"2")
    assert isinstance(refusal, ResponseError)


async def test_a_refusal_of_what_is_asked_is_raised(connection: RedisConnection) -> None:
    """As one of the failures that end a connection."""
    with pytest.raises(ResponseError, match="NONSENSE"):
        await connection.execute(pack_command("NONSENSE"))


async def test_the_other_side_closing_it_is_told(
    connection: RedisConnection, redis_server: RedisServer
) -> None:
    """To whoever waits for an answer, and to whoever holds it."""
    (number,) = await connection.execute(pack_command("CLIENT", "ID"))
    asked = asyncio.create_task(connection.execute(pack_command("BLPOP", "nothing", 0)))
    await asyncio.sleep(0)
    redis_server.command("CLIENT", "KILL", "ID", number)
    async with asyncio.timeout(SOON):
        with pytest.raises(CONNECTION_ERRORS):
            await asked
        with pytest.raises(CONNECTION_ERRORS):
            await connection.wait_for_failure(SOON)


async def test_what_nobody_asked_for_ends_it(connection: RedisConnection) -> None:
    """Else the next answer would be given to the wrong one."""
    connection.send(pack_command("PING"))
    with pytest.raises(ConnectionFailed, match="without a command"):
        await connection.wait_for_failure(SOON)


async def test_a_mistake_of_whoever_takes_ends_it(connection: RedisConnection) -> None:
    """It is told what, and is given nothing any more."""
    taken: list[object] = []

    def stumble(reply: object) -> None:
        taken.append(reply)
        raise KeyError(reply)

    connection.on_reply = stumble
    connection.send(pack_command("ECHO", "1") + pack_command("ECHO", "2"))
    with pytest.raises(KeyError):
        await connection.wait_for_failure(SOON)
    connection.send(pack_command("ECHO", "3"))
    await asyncio.sleep(0.05)
    assert taken == [b"1"]


async def test_a_reply_that_is_none_ends_it(redis_server: RedisServer) -> None:
    """As a failure, like any other."""
    way = altered(redis_server.port, lambda data: [data.replace(b"+PONG", b"?PONG")])
    async with way as port, dialler(port).connected() as connection:
        with pytest.raises(CONNECTION_ERRORS):
            await connection.execute(pack_command("PING"))


async def test_hanging_up_leaves_nothing(redis_server: RedisServer) -> None:
    """On either side, however often."""
    connection = await dialler(redis_server.port).connect()
    await connection.close()
    await connection.close()
    async with asyncio.timeout(SOON):
        while NAME in str(redis_server.command("CLIENT", "LIST")):  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.01)
