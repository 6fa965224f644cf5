"""The node is subscribed to a channel, and its clients are present, exactly while they are subscribed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from tests.server.node.fake_connection import (
    FakeConnection,
    connected,
    drop_and_check,
    running,
    until_settled,
)
from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import new_channel, present_in, publish, subscribed_channels, token_of
from tocsin_server.node.node import Node


def random_turns(generator: random.Random) -> Callable[[], int]:
    return lambda: generator.randrange(4)


@pytest.mark.parametrize("seed", range(2))
async def test_the_node_is_subscribed_exactly_while_a_channel_has_subscribers(seed: int) -> None:
    """Thirty connections subscribe to one channel and unsubscribe, over an engine with random delays."""
    generator = random.Random(seed)
    news = new_channel("open")
    async with running(FaultyEngine(random_turns(generator))) as node:
        connections = [await connected(node) for _ in range(30)]

        async def churn(connection: FakeConnection) -> None:
            for _ in range(generator.randrange(1, 5)):
                await connection.call("subscribe", channel=news)
                for _ in range(generator.randrange(3)):
                    await asyncio.sleep(0)
                await connection.call("unsubscribe", channel=news)
            if generator.random() < 0.5:
                await connection.call("subscribe", channel=news)

        for round_number in range(2):
            for connection in connections:
                await connection.call("unsubscribe", channel=news)
            await asyncio.gather(*map(churn, connections))
            await until_settled(node)
            subscribed = [
                connection for connection in connections if news in connection.session.live_channels
            ]
            assert subscribed_channels(node) == ({news} if subscribed else set())
            assert present_in(node).get(news, set()) == {
                connection.session.client for connection in subscribed
            }
            before = {connection: len(connection.data) for connection in connections}
            await publish(node, news, b"%d" % round_number)
            await until_settled(node)
            assert [
                connection for connection in connections if len(connection.data) > before[connection]
            ] == subscribed
        await drop_and_check(node, *connections)


@pytest.mark.parametrize("seed", range(2))
async def test_a_connection_lost_at_any_moment_leaves_no_presence_entry(seed: int) -> None:
    """While connecting, subscribing, unsubscribing, or waiting for a reply."""
    generator = random.Random(seed)
    async with running(FaultyEngine(random_turns(generator))) as node:
        subscriber = await connected(node, "open:stay")

        async def connect_and_drop(number: int) -> None:
            connection = FakeConnection(node)
            channels = [f"open:{number % 7}", f"plain:{number % 5}"]
            token = token_of(f"user{number % 9}", channels=channels[: generator.randrange(3)])
            connection.send_commands(
                {"id": 1, "connect": {"token": token}},
                {"id": 2, "subscribe": {"channel": "open:stay"}},
                {"id": 3, "publish": {"channel": "open:stay", "data": number}},
                {"id": 4, "unsubscribe": {"channel": "open:stay"}},
                {"id": 5, "subscribe": {"channel": "open:stay"}},
            )
            for _ in range(generator.randrange(800)):
                await asyncio.sleep(0)
            connection.drop()

        for _ in range(3):
            await asyncio.gather(*(connect_and_drop(number) for number in range(40)))
        await until_settled(node)
        assert set(node.state.connections) == {subscriber}
        assert subscribed_channels(node) == {"open:stay"}
        assert present_in(node) == {"open:stay": {subscriber.session.client}}
        joins, leaves = (
            {push["info"]["client"] for push in subscriber.pushes(kind)} - {subscriber.session.client}
            for kind in ("join", "leave")
        )
        assert joins, "no client got as far as a join"
        assert joins == leaves
        offsets = [publication["offset"] for publication in subscriber.pushes("pub")]
        assert offsets == list(range(1, len(offsets) + 1))
        await drop_and_check(node, subscriber)


async def test_a_client_that_subscribes_again_at_once_is_present(node: Node, engine: FaultyEngine) -> None:
    """The unsubscribe does not overtake the subscribe after it, and costs no call of the engine."""
    news = new_channel("open")
    connection = await connected(node, news)
    for _ in range(10):
        connection.send_command("unsubscribe", channel=news)
        connection.send_command("subscribe", channel=news)
        await until_settled(node)
        assert present_in(node) == {news: {connection.session.client}}
        assert subscribed_channels(node) == {news}
    assert engine.calls["unsubscribe"] == 0
    await drop_and_check(node, connection)


async def test_presence_entries_of_a_channel_are_limited() -> None:
    """The subscription above the limit is refused in its own words. The others go on."""
    async with running(
        limits={"presence_entries": 2},
        channels={"presence": True, "allow_subscribe_for_client": True},
        client={"insecure": True},
    ) as node:
        connections = [await connected(node, "news") for _ in range(2)]
        third = await connected(node)
        refused = await third.call("subscribe", channel="news")
        assert refused["error"] == {
            "code": 106,
            "message": "limit exceeded: the channel has 2 presence entries",
        }
        assert len(await node.engine.presence.members("news")) == 2
        assert b'tocsin_limits_reached_total{limit="limits.presence_entries"} 1' in node.metrics.page()
        connections[0].drop()
        await until_settled(node)
        assert "subscribe" in await third.call("subscribe", channel="news")
