"""A user has one connection, or so many as the configuration allows."""

from __future__ import annotations

import asyncio

from tests.server.node.fake_connection import FakeConnection, connected, running, until_settled
from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import token_of, until
from tocsin_server import errors
from tocsin_server.errors import EngineError

SINGLE = {"personal_channel": True, "personal_channel_single_connection": True}


async def test_a_new_connection_of_a_user_closes_the_others() -> None:
    """With 3504, if so configured. Other users and anonymous connections are not affected."""
    async with running(client=SINGLE) as node:
        others = [await connected(node, token=token_of("bob")), await connected(node), await connected(node)]
        old = await connected(node, token=token_of("ann"))
        new = await connected(node, token=token_of("ann"))
        await until(lambda: old.closed_with)
        assert old.closed_with == errors.CONNECTION_LIMIT
        assert [connection.closed_with for connection in (*others, new)] == [None] * 4


async def test_of_simultaneous_connections_of_a_user_one_stays() -> None:
    """If each closed the others, none would be left, and 3504 forbids to reconnect."""
    async with running(client=SINGLE) as node:
        connections = [FakeConnection(node) for _ in range(5)]
        for connection in connections:
            connection.send_command("connect", token=token_of("ann"))
        await until(lambda: sum(connection.closed_with is not None for connection in connections) >= 4)
        await until_settled(node)
        assert len(node.hub.connections_of("ann")) == 1
        (stayed,) = (connection for connection in connections if connection.closed_with is None)
        assert stayed.reply(1)


async def test_the_number_of_connections_of_a_user_is_limited() -> None:
    """A connect above the limit is refused for now, also if all are made at once."""
    async with running(client={"user_connection_limit": 2}) as node:
        connections = [FakeConnection(node) for _ in range(4)]
        replies = await asyncio.gather(
            *(connection.call("connect", token=token_of("ann")) for connection in connections)
        )
        refused = {
            "code": 106,
            "message": "limit exceeded: the limit of connections of a user is 2",
            "temporary": True,
        }
        assert [reply.get("error") for reply in replies] == [None, None, refused, refused]
        assert len(node.hub.connections_of("ann")) == 2
        await connected(node, token=token_of("bob"))
        connections[0].drop()
        await connected(node, token=token_of("ann"))
        assert "error" in await FakeConnection(node).call("connect", token=token_of("ann"))


async def test_a_connection_that_ends_while_it_is_counted_is_not_counted_further() -> None:
    """Nor does one whose count failed. That one is closed, and may reconnect."""
    engine = FaultyEngine()
    async with running(engine, client={"user_connection_limit": 1}) as node:
        go_on = engine.block("add")
        connection = FakeConnection(node)
        connection.send_command("connect", token=token_of("ann"))
        await until(lambda: engine.calls["add"] == 1)
        connection.drop()
        del engine.blocked["add"]
        go_on.set()
        engine.failures["add"] = EngineError("gone")
        failed = FakeConnection(node)
        failed.send_command("connect", token=token_of("ann"))
        await until(lambda: failed.closed_with)
        assert failed.closed_with == errors.SERVER_ERROR
        del engine.failures["add"]
        await until(lambda: not engine._users._clients)
        await connected(node, token=token_of("ann"))
