"""Hooks are asked within a deadline, and so many at once."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from tests.server.hooks.hooked_node import Gate, admitted, calls_of, running
from tests.server.node.fake_connection import FakeConnection
from tests.server.served_node import assert_nothing_is_left, is_settled, new_channel, until
from tests.support.timing import SOON, TICK
from tocsin_server import errors
from tocsin_server.hooks import dispatcher
from tocsin_server.hooks.answers import Connected, Published, RpcAnswer
from tocsin_server.hooks.events import ConnectEvent, PublishEvent, RpcEvent
from tocsin_server.hooks.registry import Hooks


async def test_plain_functions_of_one_kind_hold_up_no_other_kind() -> None:
    opened = threading.Event()

    def block(event: RpcEvent) -> RpcAnswer:
        opened.wait()
        return RpcAnswer()

    def connect(event: ConnectEvent) -> Connected:
        return Connected("ada")

    def add(hooks: Hooks) -> None:
        hooks.rpc(block)
        hooks.connect(connect)

    async with running(add, limits={"hook_threads": 1}) as node:
        first = await admitted(node)
        command = first.send_command("rpc", method="any")
        await admitted(node)
        assert first.reply(command) is None
        opened.set()
        await until(lambda: first.reply(command))


@pytest.mark.parametrize("is_plain", [False, True], ids=["async", "plain"])
async def test_a_hook_that_hangs_refuses_the_request_at_its_deadline_and_the_next_command_runs(
    is_plain: bool,
) -> None:
    release = threading.Event()

    async def hang(event: PublishEvent) -> Published:
        return await asyncio.Future[Published]()

    def block(event: PublishEvent) -> Published:
        release.wait()
        return Published()

    def add(hooks: Hooks) -> None:
        hooks.publish(block if is_plain else hang)

    async with running(add, client={"hook_timeout": TICK}) as node:
        news = new_channel("open")
        connection = await admitted(node, news)
        try:
            reply = await connection.call("publish", channel=news, data=1)
            assert reply["error"]["code"] == errors.INTERNAL_ERROR.code
            assert "unsubscribe" in await connection.call("unsubscribe", channel="other")
        finally:
            release.set()
        name = "block" if is_plain else "hang"
        await until(lambda: is_settled(node))
        assert calls_of(node) == {("publish", name, "timeout"): 1}
        assert connection.data == []


async def test_threads_of_plain_hooks_that_hang_stay_counted() -> None:
    """The number of threads is bounded, however many clients ask."""
    release = threading.Event()
    started = []

    def block(event: PublishEvent) -> Published:
        started.append(event.client)
        release.wait()
        return Published()

    sections = {"client": {"hook_timeout": TICK}, "limits": {"hook_threads": 2}}
    async with running(lambda hooks: hooks.publish(block), **sections) as node:
        news = new_channel("open")
        connections = [await admitted(node) for _ in range(5)]
        try:
            replies = await asyncio.gather(
                *(connection.call("publish", channel=news, data=1) for connection in connections)
            )
            assert {reply["error"]["code"] for reply in replies} == {errors.INTERNAL_ERROR.code}
            await until(lambda: len(started) == 2)
        finally:
            release.set()
        await until(lambda: is_settled(node))


async def test_a_hook_that_goes_on_although_it_is_cancelled_holds_up_no_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatcher, "GRACE_SECONDS", TICK)
    release = asyncio.Event()

    async def suppress(event: PublishEvent) -> Published:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return Published()

    async with running(lambda hooks: hooks.publish(suppress), client={"hook_timeout": TICK}) as node:
        news = new_channel("open")
        connection = await admitted(node, news)
        reply = await connection.call("publish", channel=news, data=1)
        assert reply["error"]["code"] == errors.INTERNAL_ERROR.code
        assert "unsubscribe" in await connection.call("unsubscribe", channel="other")
        release.set()
        await until(lambda: is_settled(node))
        assert connection.data == []


async def test_events_beyond_the_limit_wait_and_too_many_of_them_are_refused() -> None:
    gate = Gate()
    limits = {"hooks_at_once": 2}
    async with running(lambda hooks: hooks.connect(gate), limits=limits) as node:
        connections = [FakeConnection(node) for _ in range(2 * 21 + 3)]
        for connection in connections:
            connection.send_command("connect")
        await until(lambda: sum(connection.closed_with is not None for connection in connections) == 3)
        assert len(gate.asked) == 2
        assert [connection.closed_with for connection in connections[-3:]] == [errors.SERVER_ERROR] * 3
        gate.opened.set()
        await until(lambda: all(connection.reply(1) for connection in connections[:-3]))
        assert calls_of(node) == {("connect", "Gate", "admitted"): 42, ("connect", "Gate", "too_many"): 3}
        assert dict(node.metrics.limits_reached.counts) == {("limits.hooks_at_once",): 3}


async def test_one_client_does_not_hold_up_the_others() -> None:
    """However many of its own commands wait for hooks."""
    gate = Gate()
    async with running(lambda hooks: hooks.subscribe(gate), limits={"hooks_at_once": 8}) as node:
        greedy, other = await admitted(node), await admitted(node)
        greedy.send_commands(
            *({"id": 100 + number, "subscribe": {"channel": f"c{number}"}} for number in range(50))
        )
        other.send_command("subscribe", channel="news")
        await until(lambda: len(gate.asked) == 2)
        assert gate.asked == [greedy.session.client, other.session.client]
        gate.opened.set()
        await until(lambda: other.reply(2) and all(greedy.reply(100 + number) for number in range(50)))


async def test_a_hook_that_hangs_holds_up_no_other() -> None:
    gate = Gate()

    def add(hooks: Hooks) -> None:
        hooks.connect(lambda _event: Connected("ada"))
        hooks.subscribe(gate)

    async with running(add, limits={"hooks_at_once": 1}) as node:
        waiting = [await admitted(node) for _ in range(2)]
        for connection in waiting:
            connection.send_command("subscribe", channel="news")
        await until(lambda: gate.asked)
        await admitted(node)
        gate.opened.set()
        await until(lambda: all(connection.reply(2) for connection in waiting))


async def test_a_hook_that_ignores_its_cancellation_does_not_prevent_a_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is left, and the log names it. Its late answer is ignored."""
    monkeypatch.setattr("tocsin_server.node.node_tasks.STOP_SECONDS", TICK)
    monkeypatch.setattr("tocsin_server.cancellation.CANCEL_SECONDS", TICK)
    released, ended = asyncio.Event(), asyncio.Event()

    async def hang(_: ConnectEvent) -> Connected:
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()
        ended.set()
        return Connected(user="ada")

    with capture_logs() as lines:
        async with asyncio.timeout(SOON), running(lambda hooks: hooks.connect(hang)) as node:
            connection = FakeConnection(node)
            connection.send_command("connect")
            await asyncio.sleep(0)
    assert [line for line in lines if line["event"] == "hook_ignores_cancellation"] == [
        {
            "event": "hook_ignores_cancellation",
            "log_level": "warning",
            "kind": "connect",
            "hook": "hang",
            "calls": 1,
        }
    ]
    released.set()
    await asyncio.wait_for(ended.wait(), SOON)
    await asyncio.sleep(0)
    assert connection.received == []
    assert_nothing_is_left(node)
