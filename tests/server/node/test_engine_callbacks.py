"""Control commands reach the connections that they name, and surveys are answered."""

from __future__ import annotations

import asyncio

import pytest

from tests.server.node.fake_connection import FakeConnection, connected, running
from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import new_channel, publish, token_of, until
from tocsin_server import errors
from tocsin_server.core.events import ServerDisconnect, ServerSubscribe
from tocsin_server.engine.nodes import ControlCommand, NodeInfo, SurveyRequest
from tocsin_server.errors import EngineError, EngineLimit
from tocsin_server.node.node import Node


async def test_a_control_command_affects_only_the_connections_it_names(node: Node) -> None:
    """The connections of one user, or one of them, without the excluded ones."""
    ann = [await connected(node, token=token_of("ann")) for _ in range(3)]
    bob = await connected(node, token=token_of("bob"))
    disconnect = ServerDisconnect(errors.FORCE_DISCONNECT)
    node.engine_callbacks.on_control(ControlCommand("ann", disconnect, client=ann[0].session.client))
    assert [connection.closed_with for connection in (*ann, bob)] == [
        errors.FORCE_DISCONNECT,
        None,
        None,
        None,
    ]
    node.engine_callbacks.on_control(ControlCommand("bob", disconnect, client=ann[1].session.client))
    node.engine_callbacks.on_control(
        ControlCommand("ann", disconnect, exclude_clients=(ann[1].session.client,))
    )
    assert [connection.closed_with is None for connection in (*ann, bob)] == [False, True, False, True]


async def subscribe(node: Node, user: str, channel: str) -> None:
    await node.operations.control(ControlCommand(user, ServerSubscribe(channel)))


async def test_subscribing_a_user_counts_as_applied_once_the_subscriptions_are_live() -> None:
    """The next publication of a channel without history reaches every connection of the user."""
    engine, news = FaultyEngine(), new_channel("plain")
    async with running(engine) as node:
        clients = [await connected(node, token=token_of("ann")) for _ in range(2)]
        go_on = engine.block("subscribe")
        subscribing = asyncio.create_task(subscribe(node, "ann", news))
        await until(lambda: engine.calls["subscribe"])
        assert not subscribing.done()
        go_on.set()
        await subscribing
        await publish(node, news, b"1")
        await until(lambda: all(client.data == [1] for client in clients))
        assert not node._session_io._subscription_setup.awaited.by_connection


@pytest.mark.parametrize("is_refused", [False, True], ids=["admitted", "refused"])
async def test_subscribing_a_user_waits_for_a_connection_that_has_no_connect_reply_yet(
    is_refused: bool,
) -> None:
    engine, news = FaultyEngine(), new_channel("plain")
    async with running(engine, client={"user_connection_limit": 1}) as node:
        go_on = engine.block("add")
        client = FakeConnection(node)
        number = client.send_command("connect", token=token_of("ann"))
        await until(lambda: engine.calls["add"])
        subscribing = asyncio.create_task(subscribe(node, "ann", news))
        await asyncio.sleep(0)
        assert not subscribing.done()
        if is_refused:
            limit = "client.user_connection_limit"
            engine.failures["add"] = EngineLimit(limit, errors.too_many_connections(1))
        go_on.set()
        await subscribing
        assert client.reply(number) is not None
        assert client.session.live_channels == ([] if is_refused else [news])
        assert not node._session_io._subscription_setup.awaited.by_connection


@pytest.mark.parametrize("ends_by", ["close", "failure"])
async def test_subscribing_a_user_does_not_wait_for_a_set_up_that_ended(ends_by: str) -> None:
    """Nor for a connection that has gone."""
    engine, news = FaultyEngine(), new_channel("plain")
    async with running(engine) as node:
        client = await connected(node, token=token_of("ann"))
        go_on = engine.block("subscribe")
        subscribing = asyncio.create_task(subscribe(node, "ann", news))
        await until(lambda: engine.calls["subscribe"])
        if ends_by == "close":
            client.drop()
        else:
            engine.failures["subscribe"] = EngineError("gone")
            go_on.set()
        await subscribing
        assert not node._session_io._subscription_setup.awaited.by_connection
        go_on.set()


async def test_node_info_counts_connections_and_channels(node: Node) -> None:
    """Connections without a connect reply and channels without a live subscriber do not count."""
    news, others = new_channel("open"), new_channel("plain")
    await connected(node, news, others, token=token_of("ann"))
    await connected(node, news, token=token_of("ann"))
    await connected(node)
    FakeConnection(node)
    report = await node.node_info(SurveyRequest())
    assert report == NodeInfo(
        uid=node.uid,
        name=node.name,
        version=report.version,
        num_clients=3,
        num_users=2,
        num_channels=2,
        num_subs=3,
        uptime=report.uptime,
        state="ready",
        memory_bytes=report.memory_bytes,
    )
    assert report.memory_bytes > 10_000_000, "no Python process is smaller"
    assert (await node.node_info(SurveyRequest(wants_channels=True))).channels == {news: 2, others: 1}
    assert (await node.node_info(SurveyRequest(wants_channels=True, pattern="pl*:*"))).channels == {others: 1}


async def test_node_info_leaves_out_channels_that_are_being_set_up(node: Node, engine: FaultyEngine) -> None:
    gate = engine.block("subscribe")
    connection = await connected(node)
    connection.send_command("subscribe", channel=new_channel("open"))
    assert (await node.node_info(SurveyRequest(wants_channels=True))).channels == {}
    gate.set()
    await until(lambda: connection.reply(2))
    assert (await node.node_info(SurveyRequest())).num_channels == 1
