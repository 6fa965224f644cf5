"""Subscribing: a node receives the messages of its channels, each once, and no others."""

import asyncio

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import HISTORY, NO_HISTORY, Node, publication
from tocsin_server.protocol.messages import ClientInfo, PresenceChange, Push

JOIN = Push(channel="news", join=PresenceChange(ClientInfo("42", "c1", Raw(b'{"n":1e999}'))))
LEAVE = Push(channel="news", leave=PresenceChange(ClientInfo("42", "c1", chan_info=Raw(b'"\\u00e9"'))))


async def test_a_node_without_a_subscription_receives_nothing(node: Node) -> None:
    """Neither publications nor joins."""
    await node.broker.subscribe("weather")
    await node.broker.publish("news", publication(1), HISTORY)
    await node.broker.publish_join_leave("news", JOIN)
    await node.catch_up()
    assert not node.handler.offsets("news")
    assert not node.handler.pushes


async def test_a_subscribed_node_receives_every_later_publication(node: Node) -> None:
    """It receives no earlier one, and misses none once `subscribe` has returned."""
    await node.broker.publish("news", publication(1), HISTORY)
    await node.broker.subscribe("news")
    await node.broker.publish("news", publication(2), HISTORY)
    await node.catch_up()
    assert node.handler.offsets("news") == [2]


async def test_subscribing_twice_has_the_effect_of_once(node: Node) -> None:
    """Each message is received once, and one `unsubscribe` is enough."""
    await node.broker.subscribe("news")
    await node.broker.subscribe("news")
    await node.broker.publish("news", publication(1), NO_HISTORY)
    await node.broker.publish_join_leave("news", JOIN)
    await node.catch_up()
    assert node.handler.payloads("news") == [b"1"]
    assert len(node.handler.pushes) == 1
    await node.broker.unsubscribe("news")
    await node.broker.publish("news", publication(2), NO_HISTORY)
    await node.catch_up()
    assert node.handler.payloads("news") == [b"1"]


async def test_an_unsubscribed_node_receives_nothing(node: Node) -> None:
    """Neither publications nor joins, until the node subscribes again."""
    await node.broker.subscribe("news")
    await node.broker.unsubscribe("news")
    await node.broker.publish("news", publication(1), HISTORY)
    await node.broker.publish_join_leave("news", JOIN)
    await node.broker.subscribe("news")
    await node.broker.publish("news", publication(2), HISTORY)
    await node.catch_up()
    assert node.handler.offsets("news") == [2]
    assert not node.handler.pushes


async def test_unsubscribing_without_a_subscription_does_nothing(node: Node) -> None:
    """A later subscribe works as usual."""
    await node.broker.unsubscribe("news")
    await node.broker.unsubscribe("news")
    await node.broker.subscribe("news")
    await node.broker.publish("news", publication(1), NO_HISTORY)
    await node.catch_up()
    assert node.handler.payloads("news") == [b"1"]


@pytest.mark.parametrize("is_subscribed", [True, False], ids=["subscribe", "unsubscribe"])
async def test_overlapping_calls_take_effect_in_their_order(node: Node, is_subscribed: bool) -> None:
    """The last call determines the result."""
    calls = [node.broker.subscribe, node.broker.unsubscribe] * 5 + [node.broker.subscribe] * is_subscribed
    await asyncio.gather(*(call("news") for call in calls))
    await node.broker.publish("news", publication(1), NO_HISTORY)
    await node.catch_up()
    assert node.handler.payloads("news") == [b"1"] * is_subscribed


async def test_joins_and_leaves_are_received_in_order(node: Node) -> None:
    """With their complete info."""
    await node.broker.subscribe("news")
    await node.broker.publish_join_leave("news", JOIN)
    await node.broker.publish_join_leave("news", LEAVE)
    await node.catch_up()
    assert node.handler.pushes == [("news", JOIN), ("news", LEAVE)]


@pytest.mark.parametrize(
    "channel",
    [
        "a*",
        "a?",
        "[ab]",
        "chat:room#1,2",
        "$news",
        "{a}b",
        " ",
        "a b",
        "a\\b",
        "a:log",
        "x" * 255,
        "a\nb",
        "a\0b",
        "a:idem:x",
        "}",
        "a}b",
    ],
)
async def test_channel_names_are_literal(node: Node, channel: str) -> None:
    """No character of a name is a pattern, and no name is the key of another channel."""
    await node.broker.subscribe(channel)
    for other in ("ab", "a", "b", "news", ""):
        await node.broker.publish(other, publication(1), HISTORY)
    position = await node.broker.publish(channel, publication(2), HISTORY)
    assert position.offset == 1
    await node.catch_up()
    assert {received.channel for received in node.handler.received if received.channel == channel} == {
        channel
    }
    assert node.handler.payloads(channel) == [b"2"]
    assert not node.handler.payloads("ab")
