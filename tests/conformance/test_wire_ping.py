"""Pings and pongs at the level of messages (protocol §6)."""

import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosedError

from tests.support.api import Api
from tests.support.server import Server
from tests.support.wire_client import Close, WireClient, connect_wire, open_wire

INTERVAL = 1.0
"""Seconds between pings of `short_timeouts_server`."""


@pytest.fixture
async def silent(short_timeouts_server: Server) -> AsyncIterator[WireClient]:
    """A connection that does not answer pings."""
    async with connect_wire(short_timeouts_server) as wire:
        wire.answers_pings = False
        yield wire


async def next_ping(wire: WireClient) -> None:
    """Wait for the next ping."""
    await wire.wait_for_pings(wire.pings + 1)


async def test_the_connect_reply_announces_pings(short_timeouts_server: Server) -> None:
    async with open_wire(short_timeouts_server) as wire:
        result = await wire.connect()
    assert (result["ping"], result["pong"]) == (1, True)


async def test_pings_come_regularly(short_timeouts_server: Server) -> None:
    """The first comes early, at a random time, to spread the load. The others keep the interval."""
    start = time.monotonic()
    async with connect_wire(short_timeouts_server) as wire:
        await wire.wait_for_pings(3)
    first, _, third = (at - start for at in wire.pinged_at)
    assert first > 0.4 * INTERVAL
    assert third > 2.4 * INTERVAL


async def test_a_busy_connection_is_pinged_too(short_timeouts_server: Server) -> None:
    """Python's SDK accepts only pings as a sign of life.

    On a slow machine a pong may be too late. Then the client connects again.
    """
    pings = 0
    async with Api(short_timeouts_server) as api:
        while pings < 2:
            with suppress(ConnectionClosedError):
                async with connect_wire(short_timeouts_server) as wire:
                    await wire.call("subscribe", channel="open:busy")
                    while (pings := wire.pings) < 2:
                        await api.publish("open:busy", {})
                        await wire.push("pub")


async def test_a_client_without_pongs_is_disconnected(silent: WireClient) -> None:
    """The code is 3012, after which SDKs reconnect."""
    assert await silent.closed() == Close(3012, "no pong")


async def test_an_unsolicited_pong_closes_the_connection(server: Server) -> None:
    """An empty command is a pong. Without a ping before it, it closes with 3501."""
    async with connect_wire(server) as wire:
        await wire.send({})
        assert await wire.closed() == Close(3501, "bad request")


async def test_one_ping_has_one_pong(silent: WireClient) -> None:
    await next_ping(silent)
    await silent.send({})
    await silent.send({})
    assert await silent.closed() == Close(3501, "bad request")


async def test_a_command_without_an_id_is_a_pong(silent: WireClient) -> None:
    """Its other content is ignored."""
    await next_ping(silent)
    await silent.send({"subscribe": {"channel": "open:pong"}})
    assert (await silent.call("subscribe", channel="open:pong"))["recoverable"] is True


async def test_other_commands_are_no_pong(silent: WireClient) -> None:
    """A client that sends commands and no pong is disconnected too."""
    await next_ping(silent)
    await silent.call("publish", channel="open:1", data={})
    assert (await silent.closed()).code == 3012


async def test_a_client_can_request_ping_frames_instead(short_timeouts_server: Server) -> None:
    """For tools that know only RFC 6455: native pings on request, and none of the protocol's."""
    url = short_timeouts_server.websocket_url + "?cf_ws_frame_ping_pong=true"
    async with open_wire(short_timeouts_server, url) as wire:
        result = await wire.connect()
        assert "ping" not in result
        assert "pong" not in result
        async with connect_wire(short_timeouts_server) as other:
            for _ in range(3):
                await next_ping(other)
        await wire.call("publish", channel="open:1", data={})
        assert wire.pings == 0
