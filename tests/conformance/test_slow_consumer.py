"""A client that does not read is disconnected, and delays no other client (protocol §8: 3008)."""

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
def small_queue_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a small `queue_limit_bytes`."""
    config = {**STANDARD, "client": {**STANDARD["client"], "queue_limit_bytes": 131_072}}
    with run_server(config, tmp_path_factory.mktemp("small_queue_server")) as running:
        yield running


async def flood(server: Server, channel: str) -> None:
    """Publish until the slow subscriber is disconnected. A fast subscriber receives everything in order.

    The last message of the slow one is kept for 5 s behind what it has not read.
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


async def test_a_websocket_that_is_not_read_is_closed(small_queue_server: Server) -> None:
    """The slow client leaves presence and gets the reason. The fast one never waits."""
    async with open_raw_websocket(small_queue_server) as slow:
        await slow.send(commands({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "open:slow"}}))
        await flood(small_queue_server, "open:slow")
        assert await slow.closed() == Close(3008, "slow")


async def test_a_stream_that_is_not_read_is_ended(small_queue_server: Server) -> None:
    """The same for an event stream."""
    async with open_event_stream(small_queue_server, "/events?channel=open:stream") as slow:
        await flood(small_queue_server, "open:stream")
        async with asyncio.timeout(SOON):
            while (event := await slow.next()).kind != "disconnect":
                pass
        assert event.data == {"code": 3008, "reason": "slow"}
        with pytest.raises(ConnectionError):
            await slow.next()
