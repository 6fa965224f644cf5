"""The limit of connections of one user (protocol §3, §13: 3504)."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.configs import STANDARD
from tests.support.server import Server, run_server
from tests.support.tokens import connection_token
from tests.support.wire_client import Close, WireClient, connect_wire, open_wire

Name = Callable[[str], str]
CONNECTION_LIMIT = Close(3504, "connection limit")
TOO_MANY_CONNECTIONS = {
    "code": 106,
    "message": "limit exceeded: the limit of connections of a user is 2",
    "temporary": True,
}


@pytest.fixture(scope="module")
def two_connections_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with at most two connections for each user."""
    config = {**STANDARD, "client": {**STANDARD["client"], "user_connection_limit": 2}}
    with run_server(config, tmp_path_factory.mktemp("two_connections_server")) as running:
        yield running


@pytest.fixture(scope="module")
def one_connection_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that keeps only the newest connection of a user."""
    options = {"personal_channel": True, "personal_channel_single_connection": True}
    config = {**STANDARD, "client": {**STANDARD["client"], **options}}
    with run_server(config, tmp_path_factory.mktemp("one_connection_server")) as running:
        yield running


async def is_alive(wire: WireClient) -> bool:
    return await wire.call("publish", channel="plain:1", data=1) == {}


async def test_one_connection_too_many_is_refused(two_connections_server: Server, channel: Name) -> None:
    """The third connection of a user is refused for now. All other connections are not affected."""
    token = connection_token(channel("user"))
    async with (
        connect_wire(two_connections_server, token=token) as one,
        connect_wire(two_connections_server, token=token) as two,
    ):
        async with open_wire(two_connections_server) as third:
            await third.send({"id": 1, "connect": {"token": token}})
            assert (await third.receive())["error"] == TOO_MANY_CONNECTIONS
        async with connect_wire(two_connections_server, token=connection_token(channel("user"))) as other:
            assert [await is_alive(wire) for wire in (one, two, other)] == [True] * 3
        async with (
            connect_wire(two_connections_server),
            connect_wire(two_connections_server),
            connect_wire(two_connections_server) as anonymous,
        ):
            assert await is_alive(anonymous)


async def test_a_closed_connection_does_not_count(two_connections_server: Server, channel: Name) -> None:
    token = connection_token(channel("user"))
    for _ in range(5):
        async with connect_wire(two_connections_server, token=token) as wire:
            assert await is_alive(wire)


async def test_a_new_connection_can_close_the_others(one_connection_server: Server, channel: Name) -> None:
    """With single connections the older one gets the reason of its close."""
    token = connection_token(channel("user"))
    async with (
        connect_wire(one_connection_server, token=token) as old,
        connect_wire(one_connection_server, token=token) as new,
    ):
        assert await old.closed() == CONNECTION_LIMIT
        assert await is_alive(new)
