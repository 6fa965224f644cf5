"""A node starts, says whether it is ready, and stops."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.server.node.fake_connection import FakeConnection, connected, running
from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import assert_nothing_is_left, publish, settings_of, token_of
from tests.support.timing import SOON, TICK
from tocsin_server import errors
from tocsin_server.core.events import ConnectionLost
from tocsin_server.errors import EngineError
from tocsin_server.node.node import Node


async def test_a_node_that_stops_closes_every_connection() -> None:
    """With 3001, in every phase. Their subscriptions are closed before the engine stops."""
    engine = FaultyEngine()
    async with running(engine) as node:
        live = await connected(node, "open:1", token=token_of("ann"))
        gate = engine.block("read_history")
        opening, without_connect = await connected(node), FakeConnection(node)
        opening.send_command("subscribe", channel="open:2")
        asyncio.get_running_loop().call_later(0.01, gate.set)
        assert node.unready_reason == ""
    assert [connection.closed_with for connection in (live, opening, without_connect)] == [
        errors.SHUTDOWN
    ] * 3
    assert_nothing_is_left(node)
    assert node._session_io._deadlines._timer is None
    assert node.unready_reason == "The node is not running."
    with pytest.raises(EngineError):
        await publish(node, "open:1", b"1")


async def test_a_node_that_does_not_run_closes_new_connections() -> None:
    """With 3001, before it starts as well as after it stops. No state is left."""
    node = Node(settings_of({}), FaultyEngine())
    connections = [FakeConnection(node)]
    async with node.running():
        pass
    connections.append(FakeConnection(node))
    for connection in connections:
        connection.send_command("connect")
        assert connection.received == []
        assert connection.closed_with == errors.SHUTDOWN
        node.handle_event(connection, ConnectionLost())
    assert_nothing_is_left(node)


async def rpc_that_hangs(_user: str, _params: Any) -> Any:
    await asyncio.Event().wait()


async def test_an_rpc_method_without_an_answer_does_not_prevent_a_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is cancelled after a while. Other tasks finish before."""
    monkeypatch.setattr("tocsin_server.node.node_tasks.STOP_SECONDS", TICK)
    with capture_logs() as log_lines:
        async with running(rpc={"hang": rpc_that_hangs}) as node:
            connection = await connected(node, "open:1")
            connection.send_command("rpc", method="hang", data={})
            await asyncio.sleep(0)
    assert connection.closed_with == errors.SHUTDOWN
    assert [log_line["event"] for log_line in log_lines if log_line["log_level"] == "warning"] == [
        "tasks_cancelled_at_stop"
    ]
    assert_nothing_is_left(node)


async def test_an_rpc_method_that_ignores_its_cancellation_does_not_prevent_a_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is left, and the log names it."""
    monkeypatch.setattr("tocsin_server.node.node_tasks.STOP_SECONDS", TICK)
    monkeypatch.setattr("tocsin_server.cancellation.CANCEL_SECONDS", TICK)
    released, ended = asyncio.Event(), asyncio.Event()

    async def hang(_user: str, _params: Any) -> None:
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()
        ended.set()

    with capture_logs() as log_lines:
        async with asyncio.timeout(SOON), running(rpc={"hang": hang}) as node:
            connection = await connected(node, "open:1")
            connection.send_command("rpc", method="hang", data={})
            await asyncio.sleep(0)
    assert {"event": "rpc_method_ignores_cancellation", "log_level": "warning", "method": "hang"} in log_lines
    released.set()
    await asyncio.wait_for(ended.wait(), SOON)


async def test_the_unready_reason_of_a_running_node_is_the_engine_s() -> None:
    """Its own reason before it runs, the engine's while it does."""
    engine = FaultyEngine()
    async with running(engine) as node:
        assert node.unready_reason == ""
        engine.forced_unready_reason = "The pub/sub connection is dead."
        assert node.unready_reason == "The pub/sub connection is dead."


async def test_two_callers_that_prepare_a_node_start_its_engine_once() -> None:
    """A failed start can be repeated."""
    engine = FaultyEngine()
    node = Node(settings_of({}), engine)
    await asyncio.gather(node.prepare(), node.prepare())
    assert engine.starts == 1
    await engine.stop()
