"""Publishes that wait for their engine are answered in the call that ends the wait, without a task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from tests.server.served_node import ServedNode, settings_of, until
from tocsin_server.app import create_app
from tocsin_server.config.options import ServerOptions
from tocsin_server.eager_future import EagerFuture
from tocsin_server.errors import EngineError, EngineFull
from tocsin_server.protocol.messages import Position
from tocsin_server.serving.server import serving

PUBLISH = b'{"channel":"log:1","data":1}'
MANY = b'{"commands":[%b],"parallel":true}' % b",".join([b'{"publish":%b}' % PUBLISH] * 3)
BROADCAST = b'{"channels":["log:1","log:2"],"data":1}'


def call(method: bytes, body: bytes) -> bytes:
    """A request to the API."""
    head = b"POST /api/%b HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n"
    return head % (method, len(body)) + body


class Waiting:
    """A served node, and the publishes that wait for its engine."""

    def __init__(self, node: ServedNode) -> None:
        self.node = node
        self.publishes: list[EagerFuture[Position]] = []

    def begin_publish(self, *_: object) -> EagerFuture[Position]:
        """Let a publish wait."""
        self.publishes.append(EagerFuture())
        return self.publishes[-1]

    async def until_begun(self, count: int) -> None:
        """Wait until so many publishes have begun."""
        await until(lambda: len(self.publishes) == count)


@pytest.fixture
async def waiting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Waiting]:
    """A node whose publishes wait until the test ends them."""
    app = create_app(settings_of({}))
    async with serving(app, ServerOptions(port=0)) as server:
        served = Waiting(ServedNode(app.state.node, server))
        broker = app.state.node.engine.broker
        monkeypatch.setattr(broker, "begin_publish", served.begin_publish)
        yield served


def position(offset: int) -> Position:
    return Position(offset, "e")


async def test_a_waiting_publish_has_no_task(waiting: Waiting) -> None:
    """What follows from the reply runs in the call that reads it, up to the response."""
    async with waiting.node.tcp() as (connection, _):
        before = asyncio.all_tasks()
        await connection.send(call(b"publish", PUBLISH))
        await waiting.until_begun(1)
        assert asyncio.all_tasks() <= before
        assert waiting.node.node.metrics.publications.count == 0
        waiting.publishes[0].set_result(position(7))
        assert waiting.node.node.metrics.publications.count == 1
        assert await connection.response() == 200


async def test_a_response_waits_for_those_before_it(waiting: Waiting) -> None:
    """Requests of one connection are answered in their order. Those of others do not wait."""
    async with waiting.node.tcp() as (one, _), waiting.node.tcp() as (other, _):
        await one.send(call(b"publish", PUBLISH) + call(b"nothing", PUBLISH))
        await waiting.until_begun(1)
        await other.send(call(b"nothing", PUBLISH))
        assert await other.response() == 404
        waiting.publishes[0].set_result(position(1))
        assert await one.read_until_responses(2) == [200, 404]


async def test_a_client_may_be_gone_before_the_reply(waiting: Waiting) -> None:
    """The publication counts, and no response is written."""
    async with waiting.node.tcp() as (connection, _):
        await connection.send(call(b"publish", PUBLISH))
        await waiting.until_begun(1)
    tasks = waiting.node.server.server_state.tasks
    connections = waiting.node.server.server_state.connections
    await until(lambda: not connections)
    assert len(tasks) == 1, "a server that stops waits for it"
    waiting.publishes[0].set_result(position(1))
    assert waiting.node.node.metrics.publications.count == 1
    assert not tasks


@pytest.mark.parametrize(
    ("error", "answer", "logged"),
    [
        (EngineError("the secret place"), b'"error":{"code":100,', ["api_call_failed"]),
        (EngineFull(), b'"error":{"code":', []),
        (RuntimeError("a bug"), b'"error":{"code":100,', ["api_call_crashed"]),
    ],
)
async def test_a_failure_is_answered_as_one_that_does_not_wait(
    waiting: Waiting, error: Exception, answer: bytes, logged: list[str]
) -> None:
    """In single calls, batches and broadcasts."""
    begun = 0
    for method, body, count in ((b"publish", PUBLISH, 1), (b"batch", MANY, 3), (b"broadcast", BROADCAST, 2)):
        begun += count
        with capture_logs() as logs:
            async with waiting.node.tcp() as (connection, _):
                await connection.send(call(method, body).replace(b"here", b"here\r\nConnection: close"))
                await waiting.until_begun(begun)
                for publish in waiting.publishes[-count:]:
                    publish.set_exception(error)
                assert (await connection.read_to_end()).count(answer) == count
        names = [entry["event"] for entry in logs if entry["event"].startswith("api_call")]
        assert names == logged * count
    counted = waiting.node.node.metrics.engine_errors.counts["publish",]
    assert counted == (0 if isinstance(error, RuntimeError) else begun)
    assert waiting.node.node.metrics.publications.count == 0


async def test_calls_of_a_batch_wait_together(waiting: Waiting) -> None:
    """All have begun before the first ends, in one task. Their replies keep the order of the commands."""
    async with waiting.node.tcp() as (connection, _):
        before = asyncio.all_tasks()
        await connection.send(call(b"batch", MANY).replace(b"here", b"here\r\nConnection: close"))
        await waiting.until_begun(3)
        assert len(asyncio.all_tasks() - before) == 1
        for number in (2, 0, 1):
            waiting.publishes[number].set_result(position(number + 1))
        answer = await connection.read_to_end()
    places = [answer.index(b'"offset":%d' % offset) for offset in (1, 2, 3)]
    assert places == sorted(places)
