"""How many connections one user may have (protocol §3, §13: 3504)."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.configs import STANDARD
from tests.support.server import Server, run_server
from tests.support.tokens import connection_token
from tests.support.wire_client import Close, WireClient, connect_wire, open_wire

Name = Callable[[str], str]
CONNECTION_LIMIT = Close(3504, "connection limit")


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two connections for each user."""
    config = {**STANDARD, "client": {**STANDARD["client"], "user_connection_limit": 2}}
    with run_server(config, tmp_path_factory.mktemp("limited")) as running:
        yield running


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The newest connection of a user is the only one."""
    options = {"personal_channel": True, "personal_channel_single_connection": True}
    config = {**STANDARD, "client": {**STANDARD["client"], **options}}
    with run_server(config, tmp_path_factory.mktemp("single")) as running:
        yield running


async def is_alive(wire: WireClient) -> bool:
    return await wire.call("publish", channel="plain:1", data=1) == {}


async def test_one_connection_too_many_is_refused(limited: Server, channel: Name) -> None:
    """The third of a user is closed; the two there were, other users and the nameless are not concerned."""
    token = connection_token(channel("user"))
    async with connect_wire(limited, token=token) as one, connect_wire(limited, token=token) as two:
        async with open_wire(limited) as third:
            await third.send({"id": 1, "connect": {"token": token}})
            assert await third.closed() == CONNECTION_LIMIT
        async with connect_wire(limited, token=connection_token(channel("user"))) as other:
            assert [await is_alive(wire) for wire in (one, two, other)] == [True] * 3
        async with connect_wire(limited), connect_wire(limited), connect_wire(limited) as nameless:
            assert await is_alive(nameless)


async def test_a_connection_that_went_makes_room(limited: Server, channel: Name) -> None:
    """The limit counts connections that are there."""
    token = connection_token(channel("user"))
    for _ in range(5):
        async with connect_wire(limited, token=token) as wire:
            assert await is_alive(wire)


async def test_a_new_connection_can_close_the_others(single: Server, channel: Name) -> None:
    """With single connections, who connects again is served, and the older connection told why it ends."""
    token = connection_token(channel("user"))
    async with connect_wire(single, token=token) as old, connect_wire(single, token=token) as new:
        assert await old.closed() == CONNECTION_LIMIT
        assert await is_alive(new)
