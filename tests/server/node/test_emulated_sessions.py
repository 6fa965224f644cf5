"""Connections whose commands come in requests of their own: found by a secret, in order, and bounded."""

from __future__ import annotations

import json

from tests.server.node.fake_connection import FakeConnection, connected, running
from tests.server.served_node import until
from tocsin_server.node.emulated_sessions import SESSION_ID_BYTES, session_digest
from tocsin_server.node.node import Node

COMMAND = b'{"id":9,"rpc":{"method":"none"}}'


async def emulated(node: Node) -> tuple[FakeConnection, bytes]:
    """Return a connection with a session id, and the digest of that."""
    connection = await connected(node)
    address = node.emulated_sessions.new_address()
    node.emulated_sessions.add(address.session, connection)
    assert address.node == node.uid
    return connection, session_digest(address.session)


def rpc_commands(first: int, count: int) -> bytes:
    """Commands that are refused at once, with consecutive ids."""
    commands = [{"id": first + n, "rpc": {"method": "none"}} for n in range(count)]
    return "\n".join(map(json.dumps, commands)).encode()


async def test_commands_of_many_requests_run_in_the_order_of_the_requests() -> None:
    """Also those that wait, because the first request has more than a turn may run."""
    async with running() as node:
        connection, digest = await emulated(node)
        sizes = [300, 1, 50, 2]
        first = 100
        for size in sizes:
            assert node.emulated_sessions.receive(digest, rpc_commands(first, size))
            first += size
        assert len(connection.received) < 300
        await until(lambda: len(connection.received) == 1 + sum(sizes))
        assert [reply["id"] for reply in connection.received[1:]] == list(range(100, first))


async def test_a_session_is_found_by_its_own_digest_until_it_is_removed_or_closed() -> None:
    """Another digest finds nothing; removing twice is harmless."""
    async with running() as node:
        sessions = node.emulated_sessions
        address = sessions.new_address()
        first, second = await connected(node), await emulated(node)
        sessions.add(address.session, first)
        digest = session_digest(address.session)
        assert sessions.receive(digest, COMMAND)
        assert not sessions.receive(session_digest(address.session + "x"), COMMAND)
        sessions.remove(address.session)
        sessions.remove(address.session)
        assert not sessions.receive(digest, COMMAND)
        assert sessions.receive(second[1], COMMAND)
        second[0].drop()
        assert not sessions.receive(second[1], COMMAND)
        assert len(sessions) == 1


async def test_more_waiting_bytes_than_the_limit_end_the_connection() -> None:
    """As many as the limit are taken; once none waits, there is room for as many again."""
    size = len(rpc_commands(1000, 600))
    limits = {"message_limit_bytes": size, "command_burst": 5000, "error_limit": 10_000}
    async with running(client=limits) as node:
        connection, digest = await emulated(node)
        for _ in range(2):
            received = len(connection.received)
            assert node.emulated_sessions.receive(digest, rpc_commands(1000, 600))
            await until(lambda received=received: len(connection.received) == received + 600)  # type: ignore[misc]
        assert node.emulated_sessions.receive(digest, rpc_commands(1000, 600))
        assert not node.emulated_sessions.receive(digest, COMMAND)
        assert connection.closed_with is not None
        assert connection.closed_with.code == 3013
        assert node.metrics.limits_reached.counts == {("client.message_limit_bytes",): 1}


async def test_session_ids_are_long_random_and_different() -> None:
    """A client that guesses finds no session of another."""
    async with running() as node:
        ids = {node.emulated_sessions.new_address().session for _ in range(1000)}
        assert len(ids) == 1000
        assert min(map(len, ids)) >= SESSION_ID_BYTES * 4 // 3
        assert SESSION_ID_BYTES * 8 >= 128
