"""Who does not read is let go, so that nobody else waits for it (protocol §8: 3008)."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.api import Api
from tests.support.configs import STANDARD
from tests.support.event_stream import open_event_stream
from tests.support.raw_connection import commands, open_raw_websocket
from tests.support.server import Server, run_server
from tests.support.timing import SOON
from tests.support.wire_client import Close, connect_wire

PAYLOAD = "x" * 60_000
PUBLICATIONS = 300
"""Together far more than the kernel's buffers and the server's limit hold."""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that lets little wait for a peer."""
    config = {**STANDARD, "client": {**STANDARD["client"], "queue_limit_bytes": 131_072}}
    with run_server(config, tmp_path_factory.mktemp("strict")) as running:
        yield running


async def flood(server: Server, channel: str) -> None:
    """Publish until the slow one is gone, while a quick subscriber hears everything in order.

    Its goodbye waits behind what it has not read, for five seconds: whoever reads now finds it.
    """
    async with Api(server) as api, connect_wire(server) as quick:
        await quick.call("subscribe", channel=channel)
        async with asyncio.timeout(SOON):
            while (await api.call("presence_stats", channel=channel))["num_clients"] < 2:
                await quick.is_quiet()
        for number in range(1, PUBLICATIONS + 1):
            await api.publish(channel, PAYLOAD)
            assert await quick.offsets(channel, 1) == [number]
            if (await api.call("presence_stats", channel=channel))["num_clients"] < 2:
                break
        await quick.push("leave", channel)
        presence = (await api.call("presence", channel=channel))["presence"]
        assert list(presence) == [quick.client]


async def test_a_websocket_that_is_not_read_is_closed(strict: Server) -> None:
    """The slow one is gone from presence and is told why; the quick one never waited."""
    async with open_raw_websocket(strict) as slow:
        await slow.send(commands({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "open:slow"}}))
        await flood(strict, "open:slow")
        assert await slow.closed() == Close(3008, "slow")


async def test_a_stream_that_is_not_read_is_ended(strict: Server) -> None:
    """The same for an event stream, which does not even know that it is slow."""
    async with open_event_stream(strict, "/events?channel=open:stream") as slow:
        await flood(strict, "open:stream")
        async with asyncio.timeout(SOON):
            while (event := await slow.next()).kind != "disconnect":
                pass
        assert event.data == {"code": 3008, "reason": "slow"}
        with pytest.raises(ConnectionError):
            await slow.next()
