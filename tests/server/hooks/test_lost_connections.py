"""A client that leaves while a hook is asked leaves nothing, and a connection is freed at once."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest
from structlog.testing import capture_logs

from tests.server.hooks.hooked_node import FaultError, Gate, admitted, running
from tests.server.node.fake_connection import FakeConnection
from tests.server.served_node import assert_nothing_is_left, is_settled, new_channel, until
from tocsin_server import errors
from tocsin_server.hooks.answers import Connected, Published, Subscribed
from tocsin_server.hooks.events import ConnectEvent, PublishEvent
from tocsin_server.hooks.registry import Hooks


@pytest.mark.parametrize("is_plain", [False, True], ids=["async", "plain"])
async def test_a_client_that_leaves_while_a_hook_is_asked_leaves_nothing(is_plain: bool) -> None:
    gate, plain_gate = Gate(), threading.Event()

    def wait(event: ConnectEvent) -> Connected:
        gate.asked.append(event.client)
        plain_gate.wait()
        return Connected("ada", subscriptions={"news": Subscribed()})

    async with running(lambda hooks: hooks.connect(wait if is_plain else gate)) as node:
        connection = FakeConnection(node)
        connection.send_command("connect")
        await until(lambda: gate.asked)
        connection.drop()
        gate.opened.set()
        plain_gate.set()
        await until(lambda: is_settled(node))
        assert_nothing_is_left(node)


async def test_a_connection_that_hooks_decided_about_is_freed_without_the_garbage_collector() -> None:
    async def connect(event: ConnectEvent) -> Connected:
        await asyncio.sleep(0)
        return Connected("ada")

    async def publish(event: PublishEvent) -> Published:
        raise FaultError

    def add(hooks: Hooks) -> None:
        hooks.connect(connect)
        hooks.publish(publish)

    async with running(add) as node:
        gc.disable()
        try:
            connection = await admitted(node)
            with capture_logs():
                await connection.call("publish", channel="news", data=1)
            freed = weakref.ref(connection)
            connection.drop()
            await until(lambda: is_settled(node))
            del connection
            await asyncio.sleep(0)
            assert freed() is None
        finally:
            gc.enable()


async def test_what_a_plain_function_raises_is_freed_without_the_garbage_collector() -> None:
    raised: list[weakref.ref[errors.Refused]] = []

    def refuse(event: PublishEvent) -> Published:
        error = errors.Refused(errors.Refusal(1000, "not today"))
        raised.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error  # a frame that refers to what it raised is a cycle of the function itself

    async with running(lambda hooks: hooks.publish(refuse)) as node:
        connection = await admitted(node)
        gc.collect()
        gc.disable()
        try:
            reply = await connection.call("publish", channel=new_channel("open"), data=1)
            assert reply["error"]["code"] == 1000
            await until(lambda: raised[0]() is None)
        finally:
            gc.enable()


async def test_a_node_that_drains_closes_a_client_whose_hook_is_asked() -> None:
    gate = Gate()
    async with running(lambda hooks: hooks.connect(gate)) as node:
        connection = FakeConnection(node)
        connection.send_command("connect")
        await until(lambda: gate.asked)
        await node.drain(0, lambda: True)
        assert connection.closed_with is errors.SHUTDOWN
        gate.opened.set()
        await until(lambda: is_settled(node))
        assert_nothing_is_left(node)
