"""Limits of clients on a node: what is counted there, and how reaching a limit is reported."""

from __future__ import annotations

from structlog.testing import capture_logs

from tests.server.node.fake_connection import connected, running
from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import token_of

FULL = {"allow_subscribe_for_anonymous": True, "allow_subscribe_for_client": True, "subscriber_limit": 2}
ROOM = {"full": FULL}


async def test_subscriptions_that_are_being_set_up_count_as_subscribers() -> None:
    """Clients that subscribe together get as many places as there are, and not one more."""
    engine = FaultyEngine()
    async with running(engine, namespaces=ROOM) as node:
        gate = engine.block("subscribe")
        connections = [await connected(node) for _ in range(4)]
        numbers = [connection.send_command("subscribe", channel="full:1") for connection in connections]
        refused = [connection.reply(number) for connection, number in zip(connections, numbers, strict=True)]
        assert [reply and reply["error"]["code"] for reply in refused] == [None, None, 106, 106]
        gate.set()
        assert "subscribe" in await connections[2].call("subscribe", channel="full:2")
        await connections[0].call("unsubscribe", channel="full:1")
        assert "subscribe" in await connections[3].call("subscribe", channel="full:1")
        assert "error" in await connections[2].call("subscribe", channel="full:1")


async def test_a_limit_that_is_reached_is_counted_and_logged_by_its_key() -> None:
    """The line names the client, and nothing of what it sent."""
    async with running(client={"command_rate": 0.001, "command_burst": 2}) as node:
        connection = await connected(node)
        await connection.call("presence", channel="news")
        with capture_logs() as lines:
            reply = await connection.call("presence", channel="news")
        assert reply["error"]["code"] == 111
        (line,) = lines
        assert (line["event"], line["limit"]) == ("limit_reached", "client.command_rate")
        assert line["client"] == connection.session.client
        assert node.metrics.limits_reached.counts == {("client.command_rate",): 1}


async def test_a_channel_is_new_as_long_as_it_has_no_subscriber_on_the_node() -> None:
    """Another client's subscription makes it free."""
    async with running(client={"new_channel_rate": 0.001, "new_channel_burst": 1}) as node:
        first, second = await connected(node, "plain:1"), await connected(node, "plain:2")
        assert "subscribe" in await first.call("subscribe", channel="plain:2")
        await first.call("unsubscribe", channel="plain:2")
        await second.call("unsubscribe", channel="plain:2")
        assert (await first.call("subscribe", channel="plain:2"))["error"]["code"] == 111


async def test_a_user_is_limited_across_its_connections_to_the_node() -> None:
    """Closing one and opening another gives nothing back."""
    limits = {"user_command_rate": 0.001, "user_command_burst": 3}
    async with running(client=limits) as node:
        codes = []
        for _ in range(4):
            connection = await connected(node, token=token_of("ada"))
            codes.append((await connection.call("presence", channel="news"))["error"]["code"])
            connection.drop()
        assert codes == [108, 108, 108, 111]
