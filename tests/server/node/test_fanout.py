"""Fan-out: in order, batched under load, in slices, so that no channel delays another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest

from tests.server.core.recording_connection import OffsetFraming, RecordingConnection, StoredHistory
from tests.server.served_node import until
from tests.support.timing import SOON
from tocsin_server.core import channel_message
from tocsin_server.core.batch import COMPARISONS_PER_WRITE, DELTA_SLICE_BYTES
from tocsin_server.core.channel import Channel, SubscriberConnection
from tocsin_server.core.form import WITH_DELTA, Form
from tocsin_server.core.tags_filter import TagsFilter
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.fanout import QUEUED_BYTES, SLICE_BYTES, SLICE_CLOSES, SLICE_WRITES, FanOut
from tocsin_server.protocol.messages import Position
from tocsin_server.protocol.payloads import Binary
from tocsin_server.transports.websocket.framing import RAW_FRAMING


class FanOutCase:
    """A channel with history, its subscribers, and the fan-out that delivers to them."""

    def __init__(self, name: str = "news", fan_out: FanOut[Any] | None = None) -> None:
        self.failed: list[SubscriberConnection] = []
        self.unreadable: list[SubscriberConnection] = []
        self.metrics = Metrics()
        self.fan_out = fan_out or FanOut(self.metrics, self.failed.append, self.unreadable.append)
        self.channel: Channel[Any] = Channel(name)
        self.history = StoredHistory()

    def subscribe(self, *connections: Any) -> None:
        """Make connections live subscribers that have everything up to the top."""
        for connection in connections:
            self.channel.begin_subscribe()
            self.channel.merge(self.history.read(self.history.top))
            self.channel.go_live(connection, self.history.top, receives_joins=False)

    def add_subscribers(self, count: int) -> list[RecordingConnection]:
        connections = [RecordingConnection() for _ in range(count)]
        self.subscribe(*connections)
        return connections

    def publish(self, count: int = 1, data: bytes = b"") -> None:
        for _ in range(count):
            self.channel.receive(self.history.append(data), self.history.epoch)
            self.fan_out.wake(self.channel)

    async def until_idle(self) -> None:
        await until(lambda: self.fan_out.is_idle)
        assert not self.fan_out._busy
        assert not self.channel.has_queued
        assert self.channel.queued_bytes == 0


async def test_every_subscriber_is_delivered_everything_in_order() -> None:
    """In every division into batches."""
    case = FanOutCase()
    connections = case.add_subscribers(3 * SLICE_WRITES)
    for count in (1, 5, 2, 30):
        case.publish(count)
        await asyncio.sleep(0)
    await case.until_idle()
    assert all(connection.received == list(range(1, 39)) for connection in connections)
    assert case.metrics.deliveries.count == 38 * 3 * SLICE_WRITES


async def test_publications_of_one_turn_are_delivered_in_one_write() -> None:
    """None of them is written inside the call that publishes."""
    case = FanOutCase()
    (connection,) = case.add_subscribers(1)
    case.publish(10)
    assert connection.writes == 0
    await case.until_idle()
    assert (connection.received, connection.writes) == (list(range(1, 11)), 1)


async def test_a_batch_that_fits_into_a_slice_takes_one_turn() -> None:
    """No further turn of the loop is needed to find out that it is written."""
    case = FanOutCase()
    case.add_subscribers(3)
    case.publish()
    await asyncio.sleep(0)
    assert case.fan_out.is_idle


async def test_publications_received_during_a_batch_are_delivered_in_the_next() -> None:
    """So a burst costs each subscriber two writes, not one for each publication."""
    case = FanOutCase()
    connections = case.add_subscribers(3 * SLICE_WRITES)
    case.publish()
    await asyncio.sleep(0)
    assert (connections[0].writes, connections[-1].writes) == (1, 0), "the batch is in progress"
    for _ in range(5):
        case.publish(20)
    await case.until_idle()
    assert {connection.writes for connection in connections} == {2}
    assert all(connection.received == list(range(1, 102)) for connection in connections)


class WriteMeter:
    """Counts the writes between two turns of the event loop; `most` is the largest count."""

    def __init__(self, connections: Sequence[RecordingConnection]) -> None:
        self._ears = connections
        self._seen = 0
        self._handle = asyncio.get_running_loop().call_soon(self._count)
        self.most = 0

    def _count(self) -> None:
        written = sum(connection.writes for connection in self._ears)
        self.most = max(self.most, written - self._seen)
        self._seen = written
        self._handle = asyncio.get_running_loop().call_soon(self._count)

    def stop(self) -> None:
        self._handle.cancel()


async def test_other_callbacks_wait_for_one_slice_at_most() -> None:
    """Ten thousand subscribers are written to in slices; pings and handshakes run after each."""
    case = FanOutCase()
    connections = case.add_subscribers(10_000)
    meter = WriteMeter(connections)
    case.publish()
    await case.until_idle()
    meter.stop()
    assert meter.most == SLICE_WRITES
    assert all(connection.received == [1] for connection in connections)


async def test_many_channels_together_take_less_than_two_slices_per_turn() -> None:
    """A turn ends when it has written a slice, in however many channels."""
    fan_out: FanOut[Any] = FanOut(Metrics(), lambda _: None, lambda _: None)
    cases = [FanOutCase(f"news{number}", fan_out) for number in range(20)]
    connections = [connection for case in cases for connection in case.add_subscribers(SLICE_WRITES - 1)]
    meter = WriteMeter(connections)
    for case in cases:
        case.publish()
    await cases[0].until_idle()
    meter.stop()
    assert SLICE_WRITES <= meter.most < 2 * SLICE_WRITES
    assert all(connection.received == [1] for connection in connections)


async def test_many_filters_are_compared_in_slices() -> None:
    """A thousand subscribers with a filter each, and a burst: other callbacks run in between."""
    case = FanOutCase()
    counts, most = [0], 0

    def matches(_tags: Mapping[str, str]) -> bool:
        counts[-1] += 1
        return counts[-1] % 2 == 0

    connections = [RecordingConnection() for _ in range(1000)]
    for connection in connections:
        case.channel.begin_subscribe()
        case.channel.go_live(connection, 0, False, form=Form(tags_filter=TagsFilter(matches)))
    case.channel.tracker.set(Position(0, case.history.epoch))
    case.publish(40)
    while not case.fan_out.is_idle:
        counts.append(0)
        await asyncio.sleep(0)
        most = max(most, counts[-1])
    assert sum(counts) == 40 * 1000
    assert most <= 2 * SLICE_WRITES * COMPARISONS_PER_WRITE
    assert sum(len(connection.received) for connection in connections) == 20 * 1000


async def test_the_deltas_of_a_burst_are_made_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for all subscribers, and other callbacks run in between."""
    made = [0]

    def count_bytes(_base: bytes, result: bytes) -> None:
        made[-1] += len(result)

    monkeypatch.setattr(channel_message, "encode_delta", count_bytes)
    case = FanOutCase()
    connections = [CountingConnection() for _ in range(3)]
    for connection in connections:
        case.channel.begin_subscribe()
        case.channel.go_live(connection, 0, False, form=WITH_DELTA)
    case.channel.tracker.set(Position(0, case.history.epoch))
    for _ in range(60):
        case.channel.receive(case.history.append(b'"' + b"x" * 998 + b'"'), "abcdefgh", may_be_delta=True)
    case.fan_out.wake(case.channel)
    while not case.fan_out.is_idle:
        made.append(0)
        await asyncio.sleep(0)
    assert sum(made) == 59 * 1000
    assert max(made) <= DELTA_SLICE_BYTES + 1000
    assert [connection.writes for connection in connections] == [1, 1, 1]


async def test_a_filter_is_compared_once_for_all_its_subscribers() -> None:
    """Also where their transports pack messages differently, and those who have just subscribed."""
    case = FanOutCase()
    compared: list[str] = []

    def matches(tags: Mapping[str, str]) -> bool:
        compared.append(str(tags))
        return True

    form = Form(tags_filter=TagsFilter(matches))
    connections = [RecordingConnection(OffsetFraming()) for _ in range(3)]
    for connection in connections:
        case.publish()
        case.channel.begin_subscribe()
        case.channel.go_live(connection, case.history.top, False, form=form)
    case.publish()
    await case.until_idle()
    assert [connection.received for connection in connections] == [[2, 3, 4], [3, 4], [4]]
    assert len(compared) == 3


class CountingConnection(RecordingConnection):
    """A connection that counts writes of frames, and keeps none."""

    def __init__(self) -> None:
        super().__init__()
        self.framing = RAW_FRAMING  # type: ignore[assignment]

    @property
    def write(self) -> Callable[[Any], object]:
        """What a channel calls to write."""
        return self._count

    def _count(self, _payload: bytes) -> None:
        self.writes += 1


async def test_a_large_payload_is_written_to_fewer_subscribers_in_a_turn() -> None:
    """A slice is bounded in bytes, too. Another channel waits for one of them at most."""
    big = FanOutCase("big")
    small = FanOutCase("small", big.fan_out)
    connections, (other,) = [CountingConnection() for _ in range(100)], small.add_subscribers(1)
    big.subscribe(*connections)
    meter = WriteMeter(connections)
    big.publish(data=b"1" * (SLICE_BYTES // 10))
    small.publish()
    await until(lambda: other.writes)
    assert sum(connection.writes for connection in connections) <= 2 * 9
    await big.until_idle()
    meter.stop()
    assert meter.most == 9
    assert all(connection.writes == 1 for connection in connections)


async def test_channels_take_turns() -> None:
    """A channel with one subscriber does not wait for another channel's ten thousand."""
    big = FanOutCase("big")
    small = FanOutCase("small", big.fan_out)
    many_connections, (connection,) = big.add_subscribers(10 * SLICE_WRITES), small.add_subscribers(1)
    big.publish()
    small.publish()
    await until(lambda: connection.writes)
    assert sum(other.writes for other in many_connections) <= 2 * SLICE_WRITES
    small.publish()
    await until(lambda: connection.writes == 2)
    assert sum(other.writes for other in many_connections) <= 4 * SLICE_WRITES
    await big.until_idle()
    assert all(other.received == [1] for other in many_connections)


class BrokenConnection(RecordingConnection):
    """A connection whose transport raises."""

    def _record(self, payload: list[int | bytes]) -> None:
        self.writes += 1
        raise RuntimeError("broken")


async def test_a_connection_whose_write_raises_is_reported_once() -> None:
    """It is delivered nothing more, since it must not miss a publication silently."""
    case = FanOutCase()
    before, broken = case.add_subscribers(3), BrokenConnection()
    case.subscribe(broken)
    others = [*before, *case.add_subscribers(SLICE_WRITES)]
    case.publish()
    await case.until_idle()
    case.publish()
    await case.until_idle()
    assert case.failed == [broken]
    assert broken.writes == 1
    assert all(connection.received == [1, 2] for connection in others)


async def test_a_connection_that_unsubscribes_during_a_batch_is_delivered_nothing_more() -> None:
    """Also before its turn has come."""
    case = FanOutCase()
    connections = case.add_subscribers(3 * SLICE_WRITES)
    case.publish()
    await asyncio.sleep(0)
    written, unwritten = connections[0], connections[-1]
    for connection in (written, unwritten):
        case.channel.unsubscribe(connection)
    case.publish()
    await case.until_idle()
    assert (written.received, unwritten.received) == ([1], [])
    assert all(connection.received == [1, 2] for connection in connections[1:-1])


async def test_an_unsubscribe_inside_a_write_does_not_affect_other_subscribers() -> None:
    """A write may unsubscribe its own connection, or another one of the same slice."""
    case = FanOutCase()

    class UnsubscribingConnection(RecordingConnection):
        def _record(self, payload: list[int | bytes]) -> None:
            super()._record(payload)
            case.channel.unsubscribe(self)
            case.channel.unsubscribe(neighbour)

    leaving, neighbour = UnsubscribingConnection(), RecordingConnection()
    first = case.add_subscribers(1)
    case.subscribe(leaving, neighbour)
    last = case.add_subscribers(1)
    case.publish()
    case.publish()
    await case.until_idle()
    assert (leaving.received, neighbour.received) == ([1, 2], []), "two publications, one write"
    assert all(connection.received == [1, 2] for connection in first + last)


async def test_a_connection_that_subscribes_during_a_batch_is_delivered_what_follows_its_reply() -> None:
    """Neither the batch in progress nor the messages queued before."""
    case = FanOutCase()
    connections = case.add_subscribers(3 * SLICE_WRITES)
    case.publish()
    await asyncio.sleep(0)
    case.publish()
    (new_connection,) = case.add_subscribers(1)
    assert case.history.top == 2, "the position in its reply"
    case.publish(3)
    await case.until_idle()
    assert new_connection.received == [3, 4, 5]
    assert all(connection.received == [1, 2, 3, 4, 5] for connection in connections)


class PayloadRecorder(RecordingConnection):
    """A connection that records the payload objects."""

    def __init__(self) -> None:
        super().__init__()
        self.framing = RAW_FRAMING  # type: ignore[assignment]
        self.payloads: list[bytes] = []

    def _record(self, payload: Any) -> None:
        self.payloads.append(payload)


async def test_every_websocket_is_written_the_same_object() -> None:
    """The frame is built once for all connections of a framing."""
    case = FanOutCase()
    recorders = [PayloadRecorder() for _ in range(2 * SLICE_WRITES)]
    connections = case.add_subscribers(1)
    case.subscribe(*recorders)
    case.publish(2)
    await case.until_idle()
    assert {len(recorder.payloads) for recorder in recorders} == {1}
    assert len({id(recorder.payloads[0]) for recorder in recorders}) == 1
    frame = recorders[0].payloads[0]
    assert (frame[0], frame[1]) == (0x81, len(frame) - 2 if len(frame) < 128 else 126)
    assert frame.count(b"\n") == 1
    assert connections[0].received == [1, 2], "other framings have their own payload"


async def test_a_channel_without_subscribers_queues_nothing() -> None:
    case = FanOutCase()
    (connection,) = case.add_subscribers(1)
    case.channel.unsubscribe(connection)
    case.publish()
    assert case.fan_out.is_idle
    assert case.channel.queued_bytes == 0


LARGE = b"1" * 10_000
"""Data of publications of which a few hundred fill a queue."""


def fill(case: FanOutCase) -> int:
    """Publish until the queue of the channel is full, and return the number of publications."""
    count = 0
    while case.channel.queued_bytes <= QUEUED_BYTES:
        case.publish(100, LARGE)
        count += 100
    return count


async def test_publishers_wait_while_the_queue_is_full() -> None:
    """They continue when there is room. Publishers of other channels do not wait."""
    case = FanOutCase()
    (connection,) = case.add_subscribers(1)
    async with asyncio.timeout(SOON):
        await case.fan_out.wait_for_room(case.channel)
    count = fill(case)
    publisher = asyncio.create_task(case.fan_out.wait_for_room(case.channel))
    other = FanOutCase("other", case.fan_out)
    async with asyncio.timeout(SOON):
        await other.fan_out.wait_for_room(other.channel)
    assert not publisher.done()
    async with asyncio.timeout(SOON):
        await publisher
    assert case.channel.queued_bytes <= QUEUED_BYTES
    await case.until_idle()
    assert connection.received == list(range(1, count + 1))


async def test_publishers_wait_for_room_over_many_turns() -> None:
    """With many subscribers one turn delivers little of the queue. One publisher is cancelled meanwhile."""
    case = FanOutCase()
    connections = case.add_subscribers(3 * SLICE_WRITES)
    fill(case)
    case.publish(100, LARGE)
    publisher, cancelled = (asyncio.create_task(case.fan_out.wait_for_room(case.channel)) for _ in range(2))
    for _ in range(5):
        await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert connections[0].writes < 5, "a batch takes several turns"
    assert case.channel.queued_bytes > QUEUED_BYTES
    assert not publisher.done()
    async with asyncio.timeout(SOON):
        await publisher
    assert case.channel.queued_bytes <= QUEUED_BYTES
    await case.until_idle()
    assert all(connection.received == list(range(1, case.history.top + 1)) for connection in connections)


async def test_messages_before_one_that_cannot_be_encoded_are_delivered() -> None:
    """Then a few connections in each slice are to be closed, but for one that has left meanwhile."""
    case = FanOutCase()
    connections = [PayloadRecorder() for _ in range(3 * SLICE_CLOSES)]
    case.subscribe(*connections)
    case.publish()
    publication = case.history.append()
    publication.data = Binary(b"\xff")
    case.channel.receive(publication, case.history.epoch)
    case.publish()
    counts = [0]
    while not case.fan_out.is_idle:
        await asyncio.sleep(0)
        if not counts[-1] and case.unreadable:
            case.channel.unsubscribe(connections[-1])
        counts.append(len(case.unreadable))
    readable = [RAW_FRAMING.frame([b'{"push":{"channel":"news","pub":{"data":1,"offset":1}}}'])]
    assert all(connection.payloads == readable for connection in connections)
    assert case.unreadable == connections[:-1]
    assert max(after - before for before, after in pairwise(counts)) == SLICE_CLOSES
    assert not case.failed
