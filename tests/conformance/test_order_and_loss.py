"""Fifty subscribers connect, disconnect and reconnect while much is published. None misses a publication."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import websockets

from tests.support.api import Api
from tests.support.event_stream import open_event_stream
from tests.support.protobuf_client import protobuf_client, sdk
from tests.support.server import Server
from tests.support.timing import SOON, progress_timeout
from tests.support.wire_client import connect_wire

Name = Callable[[str], str]

SUBSCRIBERS = 50
CHANNELS = 5
PUBLICATIONS = 1000
"""In each channel."""
MOST_RECOVERED = 300
"""The most publications of one recovery. The channel keeps more."""
VISITS = [1, 20, 200, 1000]
"""Numbers of messages after which a subscriber disconnects."""
ABSENCES = [0, 0, 10, 100, 250, 450]
"""Numbers of publications, in each channel, for which it then stays away."""


@dataclass
class Position:
    """The position of a subscriber in one channel. Every message is checked against it."""

    offset: int = 0
    epoch: str = ""
    start: int = 0
    received: int = 0
    gaps: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.offset}@{self.epoch}"

    def receive(self, publication: dict[str, Any]) -> None:
        offset = self.offset + 1
        assert publication["offset"] == offset, (
            f"{publication} after {self}: lost, duplicated or out of order"
        )
        assert publication["data"] == {"n": offset}, f"not what was published at {offset}: {publication}"
        self.offset = offset
        self.received += 1

    def gap(self, top: int) -> None:
        """Record an announced gap up to `top`, and check that it could not be recovered."""
        missed = top - self.offset
        assert missed > MOST_RECOVERED, f"{missed} missed since {self} could have been recovered"
        self.gaps.append(missed)
        self.offset = top


class Progress:
    """How many publications each channel has, and a way to wait for further ones."""

    def __init__(self) -> None:
        self.published = 0
        self._changed = asyncio.Condition()

    async def advance(self, published: int) -> None:
        async with self._changed:
            self.published = published
            self._changed.notify_all()

    async def reach(self, count: int) -> None:
        wanted = min(count, PUBLICATIONS)
        async with self._changed:
            await self._changed.wait_for(lambda: self.published >= wanted)


@dataclass
class Subscriber:
    """Receives some messages, disconnects, stays away, and reconnects, until it has everything."""

    server: Server
    visit: "Callable[[Subscriber], Awaitable[None]]"
    positions: dict[str, Position]
    chance: random.Random
    visits: int = 0
    remaining: int = 0
    last_event_id: str | None = None

    @property
    def has_everything(self) -> bool:
        return all(position.offset == PUBLICATIONS for position in self.positions.values())

    @property
    def received(self) -> int:
        return sum(position.received for position in self.positions.values())

    def receive(self, push: dict[str, Any]) -> None:
        """Take a publication. Raises ConnectionAbortedError at the end of the visit."""
        self.positions[push["channel"]].receive(push["pub"])
        self.remaining -= 1
        if self.remaining == 0 or self.has_everything:
            raise ConnectionAbortedError

    async def run(self, progress: Progress) -> None:
        while not self.has_everything:
            self.visits += 1
            self.remaining = self.chance.choice(VISITS)
            try:
                await self.visit(self)
            except (ConnectionError, websockets.ConnectionClosed):
                await progress.reach(progress.published + self.chance.choice(ABSENCES))


async def over_websocket(subscriber: Subscriber) -> None:
    """One visit: subscribe to all channels from the last positions, and receive."""
    names = list(subscriber.positions)
    async with connect_wire(subscriber.server) as wire:
        await wire.send(*[_subscribe(number, name, subscriber) for number, name in enumerate(names, 10)])
        try:
            while not subscriber.has_everything:
                message = await wire.receive()
                if "id" in message:
                    _subscribed(subscriber, names[message["id"] - 10], message["subscribe"])
                else:
                    subscriber.receive(message["push"])
        finally:
            if subscriber.chance.random() < 0.5:
                wire.connection.transport.abort()


async def over_protobuf(subscriber: Subscriber) -> None:
    """The same visit in protobuf."""
    names = list(subscriber.positions)
    async with protobuf_client(subscriber.server.websocket_url) as client:
        await client.call("connect")
        await client.send(
            *[sdk.Command(**_subscribe(number, name, subscriber)) for number, name in enumerate(names, 10)]
        )
        try:
            while not subscriber.has_everything:
                reply = await client.receive()
                if reply.id:
                    _subscribed(subscriber, names[reply.id - 10], _result(reply.subscribe))
                else:
                    subscriber.receive({"channel": reply.push.channel, "pub": _publication(reply.push.pub)})
        finally:
            if subscriber.chance.random() < 0.5:
                client.connection.transport.abort()


def _result(result: Any) -> dict[str, Any]:
    return {
        "epoch": result.epoch,
        "recovered": result.recovered,
        "offset": result.offset,
        "publications": [*map(_publication, result.publications)],
    }


def _publication(publication: Any) -> dict[str, Any]:
    return {"offset": publication.offset, "data": json.loads(publication.data)}


def _subscribe(number: int, name: str, subscriber: Subscriber) -> dict[str, Any]:
    at = subscriber.positions[name]
    position = {"recover": True, "offset": at.offset, "epoch": at.epoch}
    return {"id": number, "subscribe": {"channel": name, **position}}


def _subscribed(subscriber: Subscriber, name: str, result: dict[str, Any]) -> None:
    position = subscriber.positions[name]
    position.epoch = result["epoch"]
    if not result.get("recovered"):
        position.gap(result["offset"])
    for publication in result.get("publications", []):
        subscriber.receive({"channel": name, "pub": publication})


async def over_event_stream(subscriber: Subscriber) -> None:
    """One visit: one stream for all channels, from the last id on. Every id is the subscriber's position."""
    names = list(subscriber.positions)
    address = urlsplit(subscriber.server.events_url(*names))
    path = f"{address.path}?{address.query}"
    async with open_event_stream(subscriber.server, path, subscriber.last_event_id) as stream:
        while not subscriber.has_everything:
            async with asyncio.timeout(SOON):
                event = await stream.next()
            if subscriber.last_event_id is None:
                _begin(subscriber, str(event.id))
            try:
                if event.kind == "gap":
                    subscriber.positions[event.data["channel"]].gap(event.data["to"]["offset"])
                elif event.kind == "message" and event.data:
                    subscriber.receive(event.data)
            finally:
                if event.id is not None:
                    subscriber.last_event_id = event.id
                assert subscriber.last_event_id == ",".join(map(str, subscriber.positions.values()))


def _begin(subscriber: Subscriber, positions: str) -> None:
    """Take the positions of the first event of the first stream."""
    for position, text in zip(subscriber.positions.values(), positions.split(","), strict=True):
        offset, position.epoch = text.split("@")
        position.offset = position.start = int(offset)


KINDS = (over_websocket, over_protobuf, over_event_stream)


async def publish(api: Api, names: list[str], progress: Progress) -> None:
    """Publish into all channels at once, one publication after the other."""
    for number in range(1, PUBLICATIONS + 1):
        answer = await api.call("broadcast", channels=names, data={"n": number})
        assert [each["result"]["offset"] for each in answer["responses"]] == [number] * CHANNELS
        await progress.advance(number)


async def test_every_offset_is_received_once_and_in_order_or_is_in_a_gap(
    server: Server, api: Api, channel: Name
) -> None:
    """5,000 publications, and 50 subscribers, on WebSockets in both formats and on event streams."""
    names = [channel("long") for _ in range(CHANNELS)]
    subscribers = [
        Subscriber(
            server,
            KINDS[number % len(KINDS)],
            {name: Position() for name in names},
            random.Random(number),
        )
        for number in range(SUBSCRIBERS)
    ]
    progress = Progress()

    def advance() -> tuple[int, int]:
        return progress.published, sum(subscriber.received for subscriber in subscribers)

    async with progress_timeout(advance), asyncio.TaskGroup() as tasks:
        for subscriber in subscribers:
            tasks.create_task(subscriber.run(progress))
        tasks.create_task(publish(api, names, progress))
    for kind in KINDS:
        of_kind = [subscriber for subscriber in subscribers if subscriber.visit is kind]
        positions = [position for subscriber in of_kind for position in subscriber.positions.values()]
        for position in positions:
            assert position.start + position.received + sum(position.gaps) == PUBLICATIONS
        assert sum(subscriber.visits for subscriber in of_kind) > 4 * len(of_kind), (
            "no subscriber ever reconnected"
        )
        assert any(position.gaps for position in positions), "no subscriber ever had a gap"
