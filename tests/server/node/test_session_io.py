"""What fails while an event is handled affects one connection, and a lost connection leaves no state."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.server.node.fake_connection import (
    FakeConnection,
    connected,
    drop_and_check,
    running,
    until_settled,
)
from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import new_channel, present_in, publish, subscribed_channels, token_of, until
from tests.support.timing import SOON
from tocsin_server import errors
from tocsin_server.core.events import Effect, Event, Received, SubscriptionsOpened, Timestamp
from tocsin_server.core.session import Session
from tocsin_server.errors import EngineError
from tocsin_server.node.node import Node

UNREACHABLE = EngineError("the engine is out of reach")


class FailingSession(Session):
    """A session with a defect."""

    __slots__ = ()
    on: type[Event] = Received

    def handle(self, event: Event, now: Timestamp) -> list[Effect]:
        if isinstance(event, self.on) and not self.is_closed:
            raise RuntimeError("a fault")
        return super().handle(event, now)


class FailingWhenOpened(FailingSession):
    """A session with a defect in the handling of `SubscriptionsOpened`."""

    __slots__ = ()
    on = SubscriptionsOpened


async def test_a_session_that_raises_closes_only_its_connection(node: Node) -> None:
    """With 3004, so the client reconnects, and a traceback in the log. Other subscribers are not affected."""
    news = new_channel("open")
    broken, other = await connected(node, news), await connected(node, news)
    broken.session.__class__ = FailingSession
    with capture_logs() as log_lines:
        broken.send_command("presence", channel=news)
    assert broken.closed_with == errors.SERVER_ERROR
    (log_line,) = (log_line for log_line in log_lines if log_line["event"] == "session_failed")
    assert (log_line["log_level"], log_line["client"], log_line["exc_info"]) == (
        "error",
        broken.session.client,
        True,
    )
    await publish(node, news, b"1")
    await until(lambda: other.data == [1])
    assert broken.data == []
    assert (await other.call("presence_stats", channel=news))["presence_stats"]["num_clients"] == 1
    await drop_and_check(node, other)


async def test_a_session_that_raises_during_set_up_leaves_no_state(node: Node) -> None:
    """The subscription that was being set up is closed too."""
    connection = await connected(node)
    connection.session.__class__ = FailingWhenOpened
    connection.send_command("subscribe", channel=new_channel("open"))
    await until(lambda: connection.closed_with)
    assert connection.closed_with == errors.SERVER_ERROR
    await drop_and_check(node)


async def rpc_that_fails(_user: str, _params: Any) -> Any:
    raise RuntimeError("a fault of the application's")


async def test_an_rpc_method_that_raises_is_answered_and_logged() -> None:
    """With error 100. The connection stays open, since its state is not affected."""
    async with running(rpc={"broken": rpc_that_fails}) as node:
        connection = await connected(node)
        with capture_logs() as log_lines:
            answer = await connection.call("rpc", method="broken", data={})
        assert answer["error"]["code"] == 100
        assert [log_line["log_level"] for log_line in log_lines] == ["error"]
        assert "rpc" not in await connection.call("rpc", method="broken", data={})
        assert connection.closed_with is None


@pytest.mark.parametrize(
    "call", ["subscribe", "add", "read_history", "remove", "publish_join_leave", "unsubscribe"]
)
async def test_a_defect_of_the_engine_affects_only_one_connection(
    node: Node, engine: FaultyEngine, call: str
) -> None:
    """An exception that is not an EngineError is logged; other connections continue."""
    news, other_news = new_channel("open"), new_channel("open")
    other = await connected(node, other_news)
    engine.failures[call] = RuntimeError("a fault")
    connection = await connected(node)
    with capture_logs() as log_lines:
        answer = await connection.call("subscribe", channel=news)
        connection.drop()
        await until_settled(node)
    assert ("error" in answer) == (call in ("subscribe", "add", "read_history"))
    assert any(log_line["log_level"] == "error" and log_line.get("exc_info") for log_line in log_lines)
    engine.failures.clear()
    await publish(node, other_news, b"1")
    await until(lambda: other.data == [1])
    assert news not in node.hub.channels
    assert not node.state.connections - {other}


@pytest.mark.parametrize("call", ["subscribe", "add", "read_history"])
async def test_an_engine_failure_refuses_a_subscription(node: Node, engine: FaultyEngine, call: str) -> None:
    """With error 100, temporary. No state is left, and the client may subscribe again."""
    news = new_channel("open")
    connection = await connected(node)
    engine.failures[call] = UNREACHABLE
    error = (await connection.call("subscribe", channel=news))["error"]
    assert (error["code"], error["temporary"]) == (100, True)
    await until_settled(node)
    assert not node.hub.channels
    assert not subscribed_channels(node)
    assert not present_in(node)
    assert sum(node.metrics.engine_errors.counts.values()) == 1
    engine.failures.clear()
    assert "subscribe" in await connection.call("subscribe", channel=news)
    await publish(node, news, b"1")
    await until(lambda: connection.data == [1])
    await drop_and_check(node, connection)


async def test_a_failed_subscription_does_not_affect_other_subscribers(
    node: Node, engine: FaultyEngine
) -> None:
    """The node stays subscribed to the channel, and the client has no presence entry."""
    news = new_channel("open")
    other, connection = await connected(node, news), await connected(node)
    engine.failures["read_history"] = UNREACHABLE
    assert "error" in await connection.call("subscribe", channel=news)
    await until_settled(node)
    assert subscribed_channels(node) == {news}
    assert present_in(node) == {news: {other.session.client}}
    await publish(node, news, b"1")
    await until(lambda: other.data == [1])
    assert connection.data == []
    engine.failures.clear()
    await drop_and_check(node, connection, other)


async def test_an_engine_failure_during_connect_closes_the_connection(
    node: Node, engine: FaultyEngine
) -> None:
    """With 3004, since the connect reply has no room for it. No subscription is left."""
    engine.failures["read_history"] = UNREACHABLE
    connection = FakeConnection(node)
    connection.send_command(
        "connect", token=token_of("ann", channels=[new_channel("open"), new_channel("open")])
    )
    await until(lambda: connection.closed_with)
    assert connection.closed_with == errors.SERVER_ERROR
    await drop_and_check(node)


async def test_a_failed_publish_is_refused(node: Node, engine: FaultyEngine) -> None:
    """With error 100, and no subscriber receives the publication."""
    news = new_channel("open")
    connection = await connected(node, news)
    engine.failures["publish"] = UNREACHABLE
    error = (await connection.call("publish", channel=news, data=1))["error"]
    assert (error["code"], error["temporary"]) == (100, True)
    with pytest.raises(EngineError):
        await publish(node, news, b"2")
    engine.failures.clear()
    assert await connection.call("publish", channel=news, data=3)
    await until(lambda: connection.data == [3])
    assert node.metrics.publications.count == 1


@pytest.mark.parametrize("method", ["presence", "presence_stats", "history"])
async def test_an_engine_failure_refuses_a_read(node: Node, engine: FaultyEngine, method: str) -> None:
    news = new_channel("open")
    connection = await connected(node, news)
    engine.failures |= dict.fromkeys(["members", "stats", "read_history"], UNREACHABLE)
    assert (await connection.call(method, channel=news))["error"]["code"] == 100
    engine.failures.clear()
    assert method in await connection.call(method, channel=news)


class BrokenConnection(FakeConnection):
    """A connection whose transport raises when it is written to."""

    def write(self, payload: bytes) -> None:
        raise RuntimeError("broken")


async def test_a_connection_whose_write_raises_is_closed_alone(node: Node) -> None:
    """With 3004: the client reconnects and recovers, and so misses no publication silently."""
    news = new_channel("open")
    first = await connected(node, news)
    broken = BrokenConnection(node)
    await broken.call("connect")
    with capture_logs() as log_lines:
        await broken.call("subscribe", channel=news)
        last = await connected(node, news)
        await publish(node, news, b"1", b"2")
        await until_settled(node)
    await publish(node, news, b"3")
    await until_settled(node)
    assert broken.closed_with == errors.SERVER_ERROR
    assert [log_line["event"] for log_line in log_lines if log_line["log_level"] == "error"] == [
        "write_failed"
    ]
    assert first.data == last.data == [1, 2, 3]
    await drop_and_check(node, first, last)


async def test_reading_is_paused_while_commands_wait(node: Node, engine: FaultyEngine) -> None:
    """Until every command is answered."""
    connection = await connected(node)
    gate = engine.block("publish")
    for number in range(3):
        connection.send_command("publish", channel="open:held", data=number)
    assert connection.pauses.pop() is True
    gate.set()
    await until(lambda: connection.reply(4))
    assert connection.pauses.pop() is False
    assert [connection.reply(number) for number in (2, 3, 4)] == [{"id": n, "publish": {}} for n in (2, 3, 4)]


async def test_an_rpc_method_whose_own_await_is_cancelled_is_answered_with_an_error() -> None:
    """The client is not left without an answer, and its next command runs."""

    async def fail(_user: str, _params: Any) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with asyncio.timeout(SOON), running(rpc={"fail": fail}) as node:
        connection = await connected(node, "open:1")
        assert (await connection.call("rpc", method="fail", data={}))["error"]["code"] == 100
        assert (await connection.call("rpc", method="fail", data={}))["error"]["code"] == 100
