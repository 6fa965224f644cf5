"""Pings and pongs of the protocol, as the frames say it (protocol §6)."""

import time
from collections.abc import AsyncIterator

import pytest

from tests.support.api import Api
from tests.support.server import Server
from tests.support.wire_client import Close, WireClient, connect_wire, open_wire

INTERVAL = 1.0
"""Seconds between pings of the impatient server."""


@pytest.fixture
async def silent(impatient: Server) -> AsyncIterator[WireClient]:
    """A connection that does not answer pings."""
    async with connect_wire(impatient) as wire:
        wire.answers_pings = False
        yield wire


async def ping(wire: WireClient) -> None:
    """Wait for the next ping."""
    await wire.wait_for_pings(wire.pings + 1)


async def test_the_connect_reply_announces_pings(impatient: Server) -> None:
    async with open_wire(impatient) as wire:
        result = await wire.connect()
    assert (result["ping"], result["pong"]) == (1, True)


async def test_pings_come_regularly(impatient: Server) -> None:
    """The first comes early, at random, so that a crowd is not pinged at once; the others on the interval."""
    start = time.monotonic()
    async with connect_wire(impatient) as wire:
        await wire.wait_for_pings(3)
    first, _, third = (at - start for at in wire.pinged_at)
    assert first > 0.4 * INTERVAL
    assert third > 2.4 * INTERVAL


async def test_a_busy_connection_is_pinged_too(impatient: Server) -> None:
    """Python's SDK counts nothing but pings as a sign of life."""
    async with Api(impatient) as api, connect_wire(impatient) as wire:
        await wire.call("subscribe", channel="open:busy")
        while wire.pings < 2:
            await api.publish("open:busy", {})
            await wire.push("pub")


async def test_a_peer_that_does_not_answer_is_told_to_come_back(silent: WireClient) -> None:
    """No pong in time: 3012."""
    assert await silent.closed() == Close(3012, "no pong")


async def test_a_pong_nobody_asked_for_is_a_mistake(server: Server) -> None:
    """An empty command is a pong, and without a ping before it closes with 3501."""
    async with connect_wire(server) as wire:
        await wire.send({})
        assert await wire.closed() == Close(3501, "bad request")


async def test_one_ping_has_one_pong(silent: WireClient) -> None:
    await ping(silent)
    await silent.send({})
    await silent.send({})
    assert await silent.closed() == Close(3501, "bad request")


async def test_a_command_without_an_id_is_a_pong(silent: WireClient) -> None:
    """Whatever else it carries, it answers the ping, and does nothing else."""
    await ping(silent)
    await silent.send({"subscribe": {"channel": "open:pong"}})
    assert (await silent.call("subscribe", channel="open:pong"))["recoverable"] is True


async def test_other_commands_are_no_pong(silent: WireClient) -> None:
    """A peer that talks and does not answer is closed all the same."""
    await ping(silent)
    await silent.call("publish", channel="open:1", data={})
    assert (await silent.closed()).code == 3012


async def test_frames_can_be_pinged_instead(impatient: Server) -> None:
    """For tools that know only RFC 6455: native pings on request, and none of the protocol's."""
    url = impatient.websocket_url + "?cf_ws_frame_ping_pong=true"
    async with open_wire(impatient, url) as wire:
        result = await wire.connect()
        assert "ping" not in result
        assert "pong" not in result
        async with connect_wire(impatient) as clock:
            for _ in range(3):
                await ping(clock)
        await wire.call("publish", channel="open:1", data={})
        assert wire.pings == 0
