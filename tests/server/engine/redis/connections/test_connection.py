"""The connection: replies arrive in order, and its end is reported."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager

import hiredis
import pytest
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import ResponseError

from tests.server.engine.redis.redis_server import RedisServer
from tests.support.tcp import forward, tcp_connection, tcp_server
from tests.support.timing import SOON
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.connections.connection import (
    CONNECTION_ERRORS,
    LARGE_WORD_BYTES,
    RedisConnection,
    pack_command,
)
from tocsin_server.engine.redis.connections.connector import Connector

NAME = "test-connection"


@pytest.mark.parametrize("size", [0, LARGE_WORD_BYTES, LARGE_WORD_BYTES + 1])
def test_commands_of_any_size_are_packed_as_hiredis_packs_them(size: int) -> None:
    command = ("EVALSHA", "é", 12, b"", b"\r\n" * (size // 2) + b"x" * (size % 2))
    packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub allows one word only
    assert pack_command(*command) == packed


def connector(port: int) -> Connector:
    return Connector(parse_address(f"redis://127.0.0.1:{port}"), NAME)


@pytest.fixture
async def connection(redis_server: RedisServer) -> AsyncIterator[RedisConnection]:
    """A connection to the Redis that tests share."""
    async with connector(redis_server.port).connected() as connection:
        yield connection


async def test_replies_come_in_the_order_of_the_commands(connection: RedisConnection) -> None:
    """One reply for each command."""
    assert await connection.execute(
        pack_command("ECHO", "1"), pack_command("ECHO", 2), pack_command("ECHO", b"3")
    ) == [b"1", b"2", b"3"]


def altered(target: int, alter: Callable[[bytes], Iterable[bytes]]) -> AbstractAsyncContextManager[int]:
    """A proxy in front of a Redis that alters what Redis sends, and splits it into pieces."""

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with tcp_connection(target) as (redis_reader, redis_writer), asyncio.TaskGroup() as tasks:
            tasks.create_task(forward(reader, redis_writer))
            while data := await redis_reader.read(65536):
                for piece in alter(data):
                    writer.write(piece)
                    await asyncio.sleep(0)

    return tcp_server(lead)


async def test_replies_may_arrive_in_pieces(redis_server: RedisServer) -> None:
    """Byte by byte. No reply to the handshake is taken for a reply to a command."""
    proxy = altered(redis_server.port, lambda data: (bytes((byte,)) for byte in data))
    async with proxy as port, connector(port).connected() as connection:
        assert await connection.execute(pack_command("ECHO", "piece"), pack_command("PING")) == [
            b"piece",
            b"PONG",
        ]


async def test_error_replies_are_passed_on(connection: RedisConnection) -> None:
    """The replies before and after the error as well."""
    replies: asyncio.Queue[object] = asyncio.Queue()
    connection.on_reply = replies.put_nowait
    connection.send(pack_command("ECHO", "1") + pack_command("NONSENSE") + pack_command("ECHO", "2"))
    async with asyncio.timeout(SOON):
        first, refusal, second = [await replies.get() for _ in range(3)]
    assert (first, second) == (b"1", b"2")
    assert isinstance(refusal, ResponseError)


async def test_execute_raises_an_error_reply(connection: RedisConnection) -> None:
    """As one of CONNECTION_ERRORS."""
    with pytest.raises(ResponseError, match="NONSENSE"):
        await connection.execute(pack_command("NONSENSE"))


async def test_a_close_by_redis_is_reported(connection: RedisConnection, redis_server: RedisServer) -> None:
    """By `execute` and by `wait_for_failure`."""
    (number,) = await connection.execute(pack_command("CLIENT", "ID"))
    reply = asyncio.create_task(connection.execute(pack_command("BLPOP", "nothing", 0)))
    await asyncio.sleep(0)
    redis_server.command("CLIENT", "KILL", "ID", number)
    async with asyncio.timeout(SOON):
        with pytest.raises(CONNECTION_ERRORS):
            await reply
        with pytest.raises(CONNECTION_ERRORS):
            await connection.wait_for_failure(SOON)


async def test_a_reply_without_a_command_ends_the_connection(connection: RedisConnection) -> None:
    """Otherwise the next reply would be given to the wrong command."""
    connection.send(pack_command("PING"))
    with pytest.raises(ConnectionFailed, match="without a command"):
        await connection.wait_for_failure(SOON)


async def test_an_exception_in_on_reply_ends_the_connection(connection: RedisConnection) -> None:
    """`wait_for_failure` raises it, and no further reply is passed on."""
    taken: list[object] = []

    def fail(reply: object) -> None:
        taken.append(reply)
        raise KeyError(reply)

    connection.on_reply = fail
    connection.send(pack_command("ECHO", "1") + pack_command("ECHO", "2"))
    with pytest.raises(KeyError):
        await connection.wait_for_failure(SOON)
    connection.send(pack_command("ECHO", "3"))
    await asyncio.sleep(0.05)
    assert taken == [b"1"]


async def test_a_malformed_reply_ends_the_connection(redis_server: RedisServer) -> None:
    """With one of CONNECTION_ERRORS."""
    proxy = altered(redis_server.port, lambda data: [data.replace(b"+PONG", b"?PONG")])
    async with proxy as port, connector(port).connected() as connection:
        with pytest.raises(CONNECTION_ERRORS):
            await connection.execute(pack_command("PING"))


async def test_closing_leaves_nothing_open(redis_server: RedisServer) -> None:
    """On neither side. A second close does nothing."""
    connection = await connector(redis_server.port).connect()
    await connection.close()
    await connection.close()
    async with asyncio.timeout(SOON):
        while NAME in str(redis_server.command("CLIENT", "LIST")):  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(0.01)
