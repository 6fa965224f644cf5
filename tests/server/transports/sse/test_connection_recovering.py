"""A property: every offset is delivered once and in order, or lies in a gap event."""

import json
from contextlib import AsyncExitStack
from enum import Enum

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.transports.sse.stream_server import HISTORY, Event, Stream, StreamServer, stream_server
from tocsin_server.core.events import ChannelReset

CHANNELS = ("history:1", "history:2")
KEPT = HISTORY["history_size"]


class Act(Enum):
    """What may happen to a subscriber between two publications."""

    READ = "reads one event"
    CATCH_UP = "reads every event"
    ABORT = "aborts its connection"
    CLOSE = "closes its response"
    RETURN_BY_HEADER = "reconnects, as a browser does"
    RETURN_BY_QUERY = "reconnects, as a script does"
    RESET = "has a channel reset by its node"


publications = st.tuples(st.sampled_from(CHANNELS), st.integers(1, 2 * KEPT))
steps = st.lists(publications | st.sampled_from(Act), max_size=30)


class Subscriber:
    """A client that checks every event against its position; `top` is the last offset of each channel."""

    def __init__(self, server: StreamServer) -> None:
        self._server = server
        self._connection = AsyncExitStack()
        self._stream: Stream | None = None
        self.last_id = ""
        self.position = dict.fromkeys(CHANNELS, 0)
        self.top = dict.fromkeys(CHANNELS, 0)

    async def do(self, act: Act | tuple[str, int]) -> None:
        match act:
            case (channel, count):
                numbers = range(self.top[channel] + 1, self.top[channel] + count + 1)
                await self._server.publish(channel, *numbers)
                self.top[channel] += count
            case Act.READ:
                await self.read(most=1)
            case Act.CATCH_UP:
                await self.read()
            case Act.ABORT | Act.CLOSE:
                await self.close(is_abrupt=act is Act.ABORT)
            case Act.RETURN_BY_HEADER | Act.RETURN_BY_QUERY:
                await self.open(by_header=act is Act.RETURN_BY_HEADER)
            case Act.RESET:
                for connection in self._server.node.hub:
                    self._server.node.handle_event(connection, ChannelReset(CHANNELS[0]))

    async def open(self, *, by_header: bool = True) -> None:
        if self._stream is not None:
            return
        headers = {"Last-Event-ID": self.last_id} if by_header and self.last_id else {}
        query = {} if by_header else {"last_event_id": self.last_id}
        stream = self._server.stream(*CHANNELS, begins=False, headers=headers, query=query)
        self._stream = await self._connection.enter_async_context(stream)
        first = await self._stream.next()
        assert first.data is None
        self._check_id(first)

    async def close(self, *, is_abrupt: bool = False) -> None:
        if self._stream is not None and is_abrupt:
            self._stream.abort()
        self._stream = None
        await self._connection.aclose()

    async def read(self, most: int = 1000) -> None:
        while self._stream is not None and self.position != self.top and most:
            self._take(await self._stream.next())
            most -= 1

    def _take(self, event: Event) -> None:
        channel = event.data["channel"]
        if event.kind == "gap":
            since, to = event.data["from"]["offset"], event.data["to"]["offset"]
            assert since == self.position[channel]
            assert to - since > KEPT, "that could have been recovered"
            self.position[channel] = to
        else:
            self.position[channel] += 1
            offset = self.position[channel]
            assert event.data == {"channel": channel, "pub": {"data": offset, "offset": offset}}
        self._check_id(event)

    def _check_id(self, event: Event) -> None:
        self.last_id = str(event.id)
        assert [int(part.split("@")[0]) for part in self.last_id.split(",")] == [*self.position.values()]


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
async def test_every_offset_is_delivered_once_or_is_in_a_gap(acts: list[Act | tuple[str, int]]) -> None:
    """For any order of publishing, reading, closing, reconnecting and resets, by header or by query."""
    async with stream_server() as server:
        subscriber = Subscriber(server)
        await subscriber.open()
        for act in acts:
            await subscriber.do(act)
        await subscriber.open()
        await subscriber.read()
        assert subscriber.position == subscriber.top, json.dumps([subscriber.position, subscriber.top])
        await subscriber.close()
        await server.until_empty()
