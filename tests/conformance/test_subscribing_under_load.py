"""A client that subscribes while much is published starts exactly at its position (protocol §10)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.support.api import Api
from tests.support.event_stream import Event, open_event_stream
from tests.support.server import Server
from tests.support.wire_client import connect_wire

Name = Callable[[str], str]

CHANNELS = 20
ENTRIES = 20
FOLLOWED = 3
"""How many publications each new subscriber checks after its position."""


@asynccontextmanager
async def publishing(api: Api, names: list[str]) -> AsyncIterator[None]:
    """Publish into all channels while the block runs."""

    async def publish() -> None:
        while True:
            await api.call("broadcast", channels=names, data=0)

    publishing = [asyncio.create_task(publish()) for _ in range(4)]
    try:
        yield
    finally:
        for task in publishing:
            task.cancel()
        await asyncio.gather(*publishing, return_exceptions=True)


def assert_consecutive(start: dict[str, int], received: list[tuple[str, int]]) -> None:
    """Check that each channel's offsets follow its start without a hole."""
    for name, offset in start.items():
        offsets = [each for channel, each in received if channel == name]
        assert offsets == list(range(offset + 1, offset + 1 + len(offsets))), name


async def test_a_new_websocket_subscription_has_no_hole(server: Server, api: Api, channel: Name) -> None:
    """The first publication has the offset after that of the subscribe reply."""
    names = [channel("long") for _ in range(CHANNELS)]
    async with publishing(api, names):
        for _ in range(ENTRIES):
            async with connect_wire(server) as wire:
                await wire.send(
                    *[{"id": n, "subscribe": {"channel": name}} for n, name in enumerate(names, 10)]
                )
                replies = [await wire.reply(number) for number in range(10, 10 + CHANNELS)]
                for name in names:
                    await wire.offsets(name, FOLLOWED)
            start = {
                name: reply["subscribe"].get("offset", 0) for name, reply in zip(names, replies, strict=True)
            }
            pushes = [message["push"] for message in wire.received if "push" in message]
            assert_consecutive(start, [(push["channel"], push["pub"]["offset"]) for push in pushes])


async def test_a_new_event_stream_has_no_hole(server: Server, api: Api, channel: Name) -> None:
    """The first publications have the offsets after those of its first event."""
    names = [channel("long") for _ in range(CHANNELS)]
    await api.call("broadcast", channels=names, data=0)
    address = urlsplit(server.events_url(*names))
    async with publishing(api, names):
        for _ in range(ENTRIES):
            async with open_event_stream(server, f"{address.path}?{address.query}") as stream:
                first = await stream.next()
                events: list[Event] = []
                while len(events) < FOLLOWED * CHANNELS:
                    event = await stream.next()
                    events += [event] if event.kind == "message" else []
            positions = str(first.id).split(",")
            start = {name: int(at.split("@")[0]) for name, at in zip(names, positions, strict=True)}
            assert_consecutive(
                start, [(event.data["channel"], event.data["pub"]["offset"]) for event in events]
            )
