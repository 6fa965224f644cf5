"""The pipeline: calls leave together, keep their order, and fail in time, whatever Redis does."""

import asyncio
import time
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import LOG, NO_LOG, Node, publication
from tests.server.engine.redis.blackhole_proxy import BlackholeProxy
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.redis_server import RedisServer, free_ports
from tests.server.engine.redis.waiting import RecordingConnector, until_ready
from tests.support.timing import SOON
from tocsin_server.engine.broker import HistoryQuery, NewPublication
from tocsin_server.engine.redis import pipeline as module
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.connections.connection import pack_command
from tocsin_server.engine.redis.connections.connector import (
    FIRST_BACKOFF_SECONDS,
    MAX_BACKOFF_SECONDS,
    Backoff,
    Connector,
)
from tocsin_server.engine.redis.pipeline import Pipeline, RedisCommand
from tocsin_server.errors import EngineError

ALL = HistoryQuery(limit=-1)


@pytest.fixture
async def nowhere() -> AsyncIterator[Pipeline]:
    """A pipeline to where no Redis is."""
    dialler = Connector(parse_address(f"redis://127.0.0.1:{free_ports(1)[0]}"), "test")
    pipeline = Pipeline(dialler, Backoff(Random(1)))
    task = asyncio.create_task(pipeline.run())
    await asyncio.sleep(0)
    yield pipeline
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_concurrent_calls_leave_together(running: Running, swallower: BlackholeProxy) -> None:
    """A hundred publications of one tick are a few segments."""
    async with running(swallower.url) as node:
        before = swallower.segments
        await asyncio.gather(*(node.broker.publish("a", publication(n), LOG) for n in range(100)))
        assert swallower.segments - before <= 5


async def test_scripts_that_redis_forgot_are_told_again(node: Node, redis_server: RedisServer) -> None:
    """Without anybody noticing, and nothing overtakes anything."""
    await node.broker.subscribe("a")
    publishing = [asyncio.create_task(node.broker.publish("a", publication(n), LOG)) for n in range(3)]
    redis_server.command("SCRIPT", "FLUSH")
    publishing += [asyncio.create_task(node.broker.publish("a", publication(n), LOG)) for n in range(3, 50)]
    await asyncio.gather(*publishing)
    await node.handler.until_received(50)
    assert node.handler.payloads("a") == [b"%d" % number for number in range(50)]


async def test_what_redis_refuses_was_not_done(running: Running, fleeting_redis: RedisServer) -> None:
    """Out of memory, say: an error, nothing kept, nothing heard; and the connection lives on."""
    async with running(fleeting_redis.url) as node:
        await node.broker.subscribe("a")
        top = await node.broker.publish("a", publication(1), LOG)
        fleeting_redis.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(EngineError, match="rejected"):
            await node.broker.publish("a", NewPublication(Raw(b"2"), version=9, idempotency_key="k"), LOG)
        with pytest.raises(EngineError, match="rejected"):
            await node.broker.publish("a", NewPublication(Raw(b"3"), idempotency_key="k"), NO_LOG)
        with pytest.raises(EngineError, match="rejected"):
            await node.broker.publish("b", publication(1), LOG)
        fleeting_redis.command("CONFIG", "SET", "maxmemory", "0")
        assert (await node.broker.read_history("a", ALL, LOG)).top == top
        repeated = NewPublication(Raw(b"2"), version=9, idempotency_key="k")
        assert await node.broker.publish("a", repeated, LOG) == (2, top.epoch)
        await node.catch_up()
        assert node.handler.payloads("a") == [b"1", b"2"]
        assert not node.engine.unready_reason


async def test_a_call_without_a_redis_fails_in_time(nowhere: Pipeline) -> None:
    """It waits, since Redis may come back, but not longer than it may."""
    began_at = time.monotonic()
    async with asyncio.timeout(SOON):
        with pytest.raises(EngineError, match="in time"):
            await nowhere.execute("PING", seconds=0.3)
    assert time.monotonic() - began_at > 0.2
    assert "127.0.0.1" in nowhere.unready_reason


async def test_a_call_made_just_when_the_connection_is_lost_waits_for_the_next(
    redis_server: RedisServer,
) -> None:
    """Before anybody has been told that it is lost."""
    dialler = RecordingConnector(parse_address(redis_server.url), "test")
    pipeline = Pipeline(dialler, Backoff(Random(1)))
    task = asyncio.create_task(pipeline.run())
    await asyncio.sleep(0)
    await pipeline.execute("PING")
    dialler.connection._transport.abort()
    assert await pipeline.execute("ECHO", "here") == b"here"
    assert pipeline.connection_count == 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Stumbling(RedisCommand):
    """Whoever is told of its answer makes a mistake."""

    def resolve(self, answer: Any) -> None:
        raise RuntimeError(answer)


async def test_a_call_whose_answer_is_a_mistake_fails(redis_server: RedisServer) -> None:
    """Nobody waits for it for ever, and the mistake is told to whoever runs the pipeline."""
    pipeline = Pipeline(Connector(parse_address(redis_server.url), "test"), Backoff(Random(1)))
    task = asyncio.create_task(pipeline.run())
    await asyncio.sleep(0)
    async with asyncio.timeout(SOON):
        with pytest.raises(EngineError, match="unknown"):
            await pipeline.enqueue(Stumbling(pack_command("PING"), SOON))
        with pytest.raises(RuntimeError):
            await task


async def test_an_answer_to_nothing_ends_the_connection_only(redis_server: RedisServer) -> None:
    """Such as a proxy gives before it hangs up."""
    dialler = RecordingConnector(parse_address(redis_server.url), "test")
    pipeline = Pipeline(dialler, Backoff(Random(1)))
    task = asyncio.create_task(pipeline.run())
    await asyncio.sleep(0)
    await pipeline.execute("PING")
    dialler.connection.data_received(b"-ERR idle timeout\r\n")
    assert await pipeline.execute("ECHO", "here") == b"here"
    assert pipeline.connection_count == 2
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_waits_is_bounded(nowhere: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bytes. Past it calls fail at once, and what waits is not lost for it."""
    monkeypatch.setattr(module, "MAX_QUEUED_BYTES", 1000)
    waiting = nowhere.execute("ECHO", b"x" * 600)
    with pytest.raises(EngineError, match="too many"):
        await nowhere.execute("ECHO", b"x" * 600)
    assert not waiting.done()
    waiting.cancel()


async def test_what_nobody_waits_for_any_more_is_not_sent(
    running: Running, fleeting_redis: RedisServer
) -> None:
    """A publication that was given up before it left is not published later."""
    async with running(fleeting_redis.url) as node:
        fleeting_redis.freeze()
        under_way = asyncio.create_task(node.broker.publish("a", publication(1), LOG))
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(node.broker.publish("a", publication(2), LOG))
        await asyncio.sleep(0)
        waiting.cancel()
        fleeting_redis.thaw()
        await under_way
        kept = (await node.broker.read_history("a", ALL, LOG)).publications
        assert [bytes(publication.data) for publication in kept] == [b"1"]


async def test_calls_that_wait_are_sent_when_redis_is_back(
    running: Running, fleeting_redis: RedisServer
) -> None:
    """In the order of the calls."""
    async with running(fleeting_redis.url) as node:
        fleeting_redis.stop()
        publishing = [asyncio.create_task(node.broker.publish("a", publication(n), LOG)) for n in range(10)]
        outcome = asyncio.gather(*publishing, return_exceptions=True)
        await asyncio.sleep(0)
        fleeting_redis.start()
        done = [position for position in await outcome if not isinstance(position, BaseException)]
        await until_ready(node)
        assert [position.offset for position in done] == list(range(1, len(done) + 1))


def test_attempts_are_spread_and_bounded() -> None:
    """Full jitter: from nothing to a bound that doubles, and falls back after a success."""
    backoff = Backoff(Random(1))
    waits = [[backoff.next() for _ in range(20)] for _ in range(200)]
    assert all(0 <= wait <= MAX_BACKOFF_SECONDS for some in waits for wait in some)
    assert max(some[-1] for some in waits) > MAX_BACKOFF_SECONDS * 0.9
    backoff.reset()
    assert backoff.next() <= FIRST_BACKOFF_SECONDS
