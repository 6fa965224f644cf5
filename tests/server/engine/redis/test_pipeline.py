"""The pipeline: commands are sent in batches, keep their order, and fail in time."""

import asyncio
import select
import socket
import sys
import time
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import HISTORY, NO_HISTORY, Node, publication
from tests.server.engine.redis.blackhole_proxy import BlackholeProxy
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.readiness import RecordingConnector, until_ready
from tests.server.engine.redis.redis_server import RedisServer, free_ports
from tests.support.timing import SOON, STARTED, TICK
from tocsin_server.eager_future import EagerFuture
from tocsin_server.engine.broker import HistoryQuery, NewPublication
from tocsin_server.engine.redis import pipeline as module
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.connections.connection import pack_command
from tocsin_server.engine.redis.connections.connector import (
    Backoff,
    Connector,
)
from tocsin_server.engine.redis.interfaces import PendingReply
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.pipeline import Pipeline, RedisCommand
from tocsin_server.errors import EngineError
from tocsin_server.protocol.messages import Position

ALL = HistoryQuery(limit=-1)


@pytest.fixture
async def unreachable() -> AsyncIterator[Pipeline]:
    """A pipeline to an address without a Redis."""
    connector = Connector(parse_address(f"redis://127.0.0.1:{free_ports(1)[0]}"), "test")
    pipeline = Pipeline(connector, Backoff(Random(1)))
    task = asyncio.create_task(pipeline.run())
    await asyncio.sleep(0)
    yield pipeline
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_concurrent_commands_are_sent_in_one_batch(
    running: Running, proxy: BlackholeProxy, prefix: str
) -> None:
    """A hundred publishes in one turn of the event loop take few segments."""
    async with running(proxy.url) as node:
        proxy.counted = Keys(prefix).history("a").encode()
        before = proxy.segments
        await asyncio.gather(*(node.broker.publish("a", publication(n), HISTORY) for n in range(100)))
        assert 0 < proxy.segments - before <= 5


async def test_a_command_is_sent_at_once_if_none_is_in_flight(redis_server: RedisServer) -> None:
    """The next ones wait for its reply, and are then sent together."""
    connector = RecordingConnector(parse_address(redis_server.url), "test")
    pipeline = Pipeline(connector, Backoff(Random(1)))
    task = asyncio.create_task(pipeline.run())
    await asyncio.sleep(0)
    await pipeline.execute("PING")
    first, *others = [pipeline.execute("PING") for _ in range(3)]
    assert [command.reply for command in pipeline.in_flight] == [first]
    await first
    assert [command.reply for command in pipeline.in_flight] == others
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_reply_that_is_kept_keeps_no_bytes_of_its_command(redis_server: RedisServer) -> None:
    """A broadcast of a megabyte into a thousand channels would keep a gigabyte."""
    pipeline = Pipeline(Connector(parse_address(redis_server.url), "test"), Backoff(Random(1)))
    packed = [pack_command(name, "word") for name in ("ECHO", "ECHO", "UNKNOWN")]
    references = [sys.getrefcount(one) for one in packed]
    failed = pipeline.send(packed[0], "")  # it does not run
    task = asyncio.create_task(pipeline.run())
    await asyncio.sleep(0)
    answered, rejected = pipeline.send(packed[1], ""), pipeline.send(packed[2], "")
    assert await answered == b"word"
    for reply in (failed, rejected):
        with pytest.raises(EngineError):
            await reply
    assert [sys.getrefcount(one) for one in packed] == references
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_follows_from_a_late_command_does_not_overtake_queued_ones(
    redis_server: RedisServer, prefix: str
) -> None:
    """It may make a command in the call that fails the late one, while the others are being sent."""
    pipeline = Pipeline(Connector(parse_address(redis_server.url), "test"), Backoff(Random(1)))
    task = asyncio.create_task(pipeline.run())
    await asyncio.sleep(0)
    late: EagerFuture[Any] = EagerFuture()
    made: list[asyncio.Future[Any]] = []
    late.add_done_callback(lambda _: made.append(pipeline.execute("RPUSH", prefix, "third")))
    first = pipeline.execute("RPUSH", prefix, "first")
    pipeline.enqueue(RedisCommand(pack_command("PING"), 0, late))
    second = pipeline.execute("RPUSH", prefix, "second")
    assert (await first, await second) == (1, 2)
    assert await made[0] == 3
    assert isinstance(late.exception(), EngineError)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_scripts_are_loaded_again_after_a_flush(node: Node, redis_server: RedisServer) -> None:
    """No command fails, and the order is kept."""
    await node.broker.subscribe("a")
    publishing = [asyncio.create_task(node.broker.publish("a", publication(n), HISTORY)) for n in range(3)]
    redis_server.command("SCRIPT", "FLUSH")
    publishing += [
        asyncio.create_task(node.broker.publish("a", publication(n), HISTORY)) for n in range(3, 50)
    ]
    await asyncio.gather(*publishing)
    await node.handler.until_received(50)
    assert node.handler.payloads("a") == [b"%d" % number for number in range(50)]


async def test_a_rejected_command_changes_nothing(running: Running, volatile_redis: RedisServer) -> None:
    """As when Redis is out of memory: nothing is stored or published, and the connection stays."""
    async with running(volatile_redis.url) as node:
        await node.broker.subscribe("a")
        top = await node.broker.publish("a", publication(1), HISTORY)
        volatile_redis.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(EngineError, match=r"rejected|is full"):
            await node.broker.publish("a", NewPublication(Raw(b"2"), version=9, idempotency_key="k"), HISTORY)
        with pytest.raises(EngineError, match=r"rejected|is full"):
            await node.broker.publish("a", NewPublication(Raw(b"3"), idempotency_key="k"), NO_HISTORY)
        with pytest.raises(EngineError, match=r"rejected|is full"):
            await node.broker.publish("b", publication(1), HISTORY)
        volatile_redis.command("CONFIG", "SET", "maxmemory", "0")
        assert (await node.broker.read_history("a", ALL, HISTORY)).top == top
        repeated = NewPublication(Raw(b"2"), version=9, idempotency_key="k")
        assert await node.broker.publish("a", repeated, HISTORY) == Position(2, top.epoch)
        await node.catch_up()
        assert node.handler.payloads("a") == [b"1", b"2"]
        assert not node.engine.unready_reason


async def test_a_command_without_a_redis_fails_in_time(unreachable: Pipeline) -> None:
    """It is queued, because Redis may return, but not for longer than its limit."""
    began_at = time.monotonic()
    async with asyncio.timeout(SOON):
        with pytest.raises(EngineError, match="in time"):
            await unreachable.execute("PING", seconds=0.3)
    assert time.monotonic() - began_at > 0.2
    assert "127.0.0.1" in unreachable.unready_reason


async def test_a_command_on_a_lost_connection_waits_for_the_next(
    redis_server: RedisServer,
) -> None:
    """Even if the pipeline has not learned of the loss yet."""
    connector = RecordingConnector(parse_address(redis_server.url), "test")
    pipeline = Pipeline(connector, Backoff(Random(1)))
    task = asyncio.create_task(pipeline.run())
    await asyncio.sleep(0)
    await pipeline.execute("PING")
    connector.connection._transport.abort()
    packed = pipeline.send(pack_command("ECHO", "packed"), "key")
    assert await pipeline.execute("ECHO", "here") == b"here"
    assert await packed == b"packed"
    assert pipeline.connection_count == 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_reply_that_came_while_the_event_loop_was_blocked_is_read(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the socket when the time for it is over. The connection and the command do not fail."""
    monkeypatch.setattr(module, "EXPIRY_CHECK_SECONDS", TICK / 10)
    connector = RecordingConnector(parse_address(redis_server.url), "test")
    pipeline = Pipeline(connector, Backoff(Random(1)))
    task = asyncio.create_task(pipeline.run())
    await asyncio.sleep(0)
    await pipeline.execute("PING")
    monkeypatch.setattr(module, "REPLY_SECONDS", 0)
    loop = asyncio.get_running_loop()
    made: asyncio.Future[PendingReply] = loop.create_future()

    def block() -> None:
        loop.remove_reader(reading)
        made.set_result(pipeline.execute("PING"))
        select.select([connector.connection._transport.get_extra_info("socket")], [], [], STARTED)
        time.sleep(TICK)  # the next check is due

    reading, writing = socket.socketpair()
    with reading, writing:
        writing.send(b"x")
        loop.add_reader(reading, block)  # after it, the loop of a node looks at timers before it reads
        assert await (await made) == b"PONG"
    assert pipeline.connection_count == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class FailingCommand(RedisCommand):
    """A command whose caller raises when it gets the reply."""

    def resolve(self, answer: Any) -> None:
        raise RuntimeError(answer)


async def test_a_command_whose_reply_raises_fails(redis_server: RedisServer) -> None:
    """Its caller does not wait for ever, and `run` raises the error."""
    pipeline = Pipeline(Connector(parse_address(redis_server.url), "test"), Backoff(Random(1)))
    task = asyncio.create_task(pipeline.run())
    await asyncio.sleep(0)
    async with asyncio.timeout(SOON):
        with pytest.raises(EngineError, match="unknown"):
            await pipeline.enqueue(FailingCommand(pack_command("PING"), SOON))
        with pytest.raises(RuntimeError):
            await task


async def test_a_pipeline_that_failed_is_not_ready(redis_server: RedisServer) -> None:
    """It has no connection until the supervisor has restarted it and Redis is reached."""
    pipeline = Pipeline(Connector(parse_address(redis_server.url), "test"), Backoff(Random(1)))
    task = asyncio.create_task(pipeline.run())
    await asyncio.sleep(0)
    await pipeline.execute("PING")
    assert not pipeline.unready_reason
    failing = pipeline.enqueue(FailingCommand(pack_command("PING"), SOON))
    await asyncio.gather(failing, task, return_exceptions=True)
    assert f"{redis_server.port} cannot be used" in pipeline.unready_reason


async def test_a_reply_without_a_command_ends_only_the_connection(redis_server: RedisServer) -> None:
    """A proxy may send one before it disconnects."""
    connector = RecordingConnector(parse_address(redis_server.url), "test")
    pipeline = Pipeline(connector, Backoff(Random(1)))
    task = asyncio.create_task(pipeline.run())
    await asyncio.sleep(0)
    await pipeline.execute("PING")
    connector.connection.data_received(b"-ERR idle timeout\r\n")
    assert await pipeline.execute("ECHO", "here") == b"here"
    assert pipeline.connection_count == 2
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_queue_is_bounded_in_bytes(unreachable: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further commands fail at once, and queued commands stay queued."""
    monkeypatch.setattr(module, "MAX_QUEUED_BYTES", 1000)
    queued = unreachable.execute("ECHO", b"x" * 600)
    with pytest.raises(EngineError, match="too many"):
        await unreachable.execute("ECHO", b"x" * 600)
    assert not queued.done()
    queued.cancel()


async def test_a_cancelled_command_is_not_sent(running: Running, volatile_redis: RedisServer) -> None:
    """If it was cancelled while it was queued."""
    async with running(volatile_redis.url) as node:
        volatile_redis.freeze()
        in_flight = asyncio.create_task(node.broker.publish("a", publication(1), HISTORY))
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(node.broker.publish("a", publication(2), HISTORY))
        await asyncio.sleep(0)
        waiting.cancel()
        volatile_redis.thaw()
        await in_flight
        kept = (await node.broker.read_history("a", ALL, HISTORY)).publications
        assert [bytes(publication.data) for publication in kept] == [b"1"]


async def test_queued_commands_are_sent_when_redis_returns(
    running: Running, volatile_redis: RedisServer
) -> None:
    """In their order."""
    async with running(volatile_redis.url) as node:
        volatile_redis.stop()
        publishing = [
            asyncio.create_task(node.broker.publish("a", publication(n), HISTORY)) for n in range(10)
        ]
        outcome = asyncio.gather(*publishing, return_exceptions=True)
        await asyncio.sleep(0)
        volatile_redis.start()
        done = [position for position in await outcome if not isinstance(position, BaseException)]
        await until_ready(node)
        assert [position.offset for position in done] == list(range(1, len(done) + 1))
