"""Listening: a node hears the channels it listens to, each publication once, and no other."""

import asyncio

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import LOG, NO_LOG, Node, publication
from tocsin_server.protocol.messages import ClientInfo, PresenceChange, Push

JOIN = Push(channel="news", join=PresenceChange(ClientInfo("42", "c1", Raw(b'{"n":1e999}'))))
LEAVE = Push(channel="news", leave=PresenceChange(ClientInfo("42", "c1", chan_info=Raw(b'"\\u00e9"'))))


async def test_without_listening_nothing_is_heard(node: Node) -> None:
    """Publications and presence of other channels are none of a node's business."""
    await node.broker.subscribe("weather")
    await node.broker.publish("news", publication(1), LOG)
    await node.broker.publish_join_leave("news", JOIN)
    await node.catch_up()
    assert not node.handler.offsets("news")
    assert not node.handler.pushes


async def test_from_listening_on_everything_is_heard(node: Node) -> None:
    """Nothing of before, and nothing is missing once `listen` has returned."""
    await node.broker.publish("news", publication(1), LOG)
    await node.broker.subscribe("news")
    await node.broker.publish("news", publication(2), LOG)
    await node.catch_up()
    assert node.handler.offsets("news") == [2]


async def test_listening_twice_is_listening_once(node: Node) -> None:
    """Each publication is heard once, and one `forget` ends it."""
    await node.broker.subscribe("news")
    await node.broker.subscribe("news")
    await node.broker.publish("news", publication(1), NO_LOG)
    await node.broker.publish_join_leave("news", JOIN)
    await node.catch_up()
    assert node.handler.payloads("news") == [b"1"]
    assert len(node.handler.pushes) == 1
    await node.broker.unsubscribe("news")
    await node.broker.publish("news", publication(2), NO_LOG)
    await node.catch_up()
    assert node.handler.payloads("news") == [b"1"]


async def test_what_is_forgotten_is_heard_no_more(node: Node) -> None:
    """Neither publications nor presence, until the node listens again."""
    await node.broker.subscribe("news")
    await node.broker.unsubscribe("news")
    await node.broker.publish("news", publication(1), LOG)
    await node.broker.publish_join_leave("news", JOIN)
    await node.broker.subscribe("news")
    await node.broker.publish("news", publication(2), LOG)
    await node.catch_up()
    assert node.handler.offsets("news") == [2]
    assert not node.handler.pushes


async def test_forgetting_what_was_never_heard_is_no_mistake(node: Node) -> None:
    """Twice neither."""
    await node.broker.unsubscribe("news")
    await node.broker.unsubscribe("news")
    await node.broker.subscribe("news")
    await node.broker.publish("news", publication(1), NO_LOG)
    await node.catch_up()
    assert node.handler.payloads("news") == [b"1"]


@pytest.mark.parametrize("is_heard", [True, False], ids=["listen", "forget"])
async def test_the_last_call_counts(node: Node, is_heard: bool) -> None:
    """Calls that overlap take effect in the order in which they were made."""
    calls = [node.broker.subscribe, node.broker.unsubscribe] * 5 + [node.broker.subscribe] * is_heard
    await asyncio.gather(*(call("news") for call in calls))
    await node.broker.publish("news", publication(1), NO_LOG)
    await node.catch_up()
    assert node.handler.payloads("news") == [b"1"] * is_heard


async def test_joins_and_leaves_are_heard_in_order(node: Node) -> None:
    """With everything they say, between the publications they were announced between."""
    await node.broker.subscribe("news")
    await node.broker.publish_join_leave("news", JOIN)
    await node.broker.publish_join_leave("news", LEAVE)
    await node.catch_up()
    assert node.handler.pushes == [("news", JOIN), ("news", LEAVE)]


@pytest.mark.parametrize(
    "channel", ["a*", "a?", "[ab]", "chat:room#1,2", "$news", "{a}b", " ", "a b", "a\\b", "a:log", "x" * 255]
)
async def test_names_are_taken_literally(node: Node, channel: str) -> None:
    """No character of a name is a pattern, and no name is another one's key."""
    await node.broker.subscribe(channel)
    for other in ("ab", "a", "b", "news", ""):
        await node.broker.publish(other, publication(1), LOG)
    position = await node.broker.publish(channel, publication(2), LOG)
    assert position.offset == 1
    await node.catch_up()
    assert {heard.channel for heard in node.handler.received if heard.channel == channel} == {channel}
    assert node.handler.payloads(channel) == [b"2"]
    assert not node.handler.payloads("ab")
