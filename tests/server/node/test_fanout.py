"""Fan-out: in order, joined under load, a slice at a time, and nobody waits for anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.server.core.recording_connection import RecordingConnection, StoredHistory
from tests.server.served_node import until
from tests.support.timing import SOON
from tocsin_server.core.channel import Channel, SubscriberConnection
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.fanout import QUEUED_BYTES, SLICE, FanOut
from tocsin_server.transports.websocket.raw import RAW_FRAMING


class Round:
    """A channel with a log, its ears, and the fan-out that writes to them."""

    def __init__(self, name: str = "news", fan_out: FanOut[Any] | None = None) -> None:
        self.failed: list[SubscriberConnection] = []
        self.metrics = Metrics()
        self.fan_out = fan_out or FanOut(self.metrics, self.failed.append)
        self.channel: Channel[Any] = Channel(name)
        self.log = StoredHistory()

    def admit(self, *ears: Any) -> None:
        """Let ears hear what comes after the log's top."""
        for ear in ears:
            self.channel.begin_subscribe()
            self.channel.merge(self.log.read(self.log.top))
            self.channel.go_live(ear, self.log.top, receives_joins=False)

    def add(self, count: int) -> list[RecordingConnection]:
        ears = [RecordingConnection() for _ in range(count)]
        self.admit(*ears)
        return ears

    def publish(self, count: int = 1) -> None:
        for _ in range(count):
            self.channel.receive(self.log.append(), self.log.epoch)
            self.fan_out.wake(self.channel)

    async def idle(self) -> None:
        await until(lambda: self.fan_out.is_idle)
        assert not self.fan_out._busy
        assert not self.channel.has_queued
        assert self.channel.queued_bytes == 0


async def test_everybody_hears_everything_in_order() -> None:
    """However the publications fall into batches."""
    round_ = Round()
    ears = round_.add(3 * SLICE)
    for count in (1, 5, 2, 30):
        round_.publish(count)
        await asyncio.sleep(0)
    await round_.idle()
    assert all(ear.received == list(range(1, 39)) for ear in ears)
    assert round_.metrics.deliveries.count == 38 * 3 * SLICE


async def test_nothing_is_written_from_inside_a_publish() -> None:
    """What is published in one turn of the loop leaves in one write."""
    round_ = Round()
    (ear,) = round_.add(1)
    round_.publish(10)
    assert ear.writes == 0
    await round_.idle()
    assert (ear.received, ear.writes) == (list(range(1, 11)), 1)


async def test_what_comes_while_a_round_is_written_joins_the_next() -> None:
    """So a burst costs two writes a peer, not one for each publication."""
    round_ = Round()
    ears = round_.add(3 * SLICE)
    round_.publish()
    await asyncio.sleep(0)
    assert (ears[0].writes, ears[-1].writes) == (1, 0), "the round is under way"
    for _ in range(5):
        round_.publish(20)
    await round_.idle()
    assert {ear.writes for ear in ears} == {2}
    assert all(ear.received == list(range(1, 102)) for ear in ears)


class Meter:
    """A callback that comes back every turn of the loop, and how much was written in between, at most."""

    def __init__(self, ears: Sequence[RecordingConnection]) -> None:
        self._ears = ears
        self._seen = 0
        self._handle = asyncio.get_running_loop().call_soon(self._look)
        self.most = 0

    def _look(self) -> None:
        written = sum(ear.writes for ear in self._ears)
        self.most = max(self.most, written - self._seen)
        self._seen = written
        self._handle = asyncio.get_running_loop().call_soon(self._look)

    def stop(self) -> None:
        self._handle.cancel()


async def test_whatever_waits_meanwhile_waits_for_one_slice() -> None:
    """Ten thousand peers are written to in slices; a ping or a handshake gets its turn after each."""
    round_ = Round()
    ears = round_.add(10_000)
    meter = Meter(ears)
    round_.publish()
    await round_.idle()
    meter.stop()
    assert meter.most == SLICE
    assert all(ear.received == [1] for ear in ears)


async def test_many_channels_together_take_no_more_than_two_slices() -> None:
    """A turn is over once it has written a slice, whichever channels that took."""
    fan_out: FanOut[Any] = FanOut(Metrics(), lambda _: None)
    rounds = [Round(f"news{number}", fan_out) for number in range(20)]
    ears = [ear for round_ in rounds for ear in round_.add(SLICE - 1)]
    meter = Meter(ears)
    for round_ in rounds:
        round_.publish()
    await rounds[0].idle()
    meter.stop()
    assert SLICE <= meter.most < 2 * SLICE
    assert all(ear.received == [1] for ear in ears)


async def test_channels_take_turns() -> None:
    """Who has one subscriber does not wait until another channel's ten thousand are through."""
    big = Round("big")
    small = Round("small", big.fan_out)
    crowd, (ear,) = big.add(10 * SLICE), small.add(1)
    big.publish()
    small.publish()
    await until(lambda: ear.writes)
    assert sum(one.writes for one in crowd) <= 2 * SLICE
    small.publish()
    await until(lambda: ear.writes == 2)
    assert sum(one.writes for one in crowd) <= 4 * SLICE
    await big.idle()
    assert all(one.received == [1] for one in crowd)


class Broken(RecordingConnection):
    """A peer whose transport fails."""

    def _record(self, payload: list[int | bytes]) -> None:
        self.writes += 1
        raise RuntimeError("broken")


async def test_a_peer_that_cannot_be_written_to_is_named_and_the_others_hear_on() -> None:
    """Once: it gets nothing more, since what it has missed it must not miss silently."""
    round_ = Round()
    before, broken = round_.add(3), Broken()
    round_.admit(broken)
    others = [*before, *round_.add(SLICE)]
    round_.publish()
    await round_.idle()
    round_.publish()
    await round_.idle()
    assert round_.failed == [broken]
    assert broken.writes == 1
    assert all(ear.received == [1, 2] for ear in others)


async def test_who_leaves_during_a_round_gets_nothing_more() -> None:
    """Also if its turn had not come yet."""
    round_ = Round()
    ears = round_.add(3 * SLICE)
    round_.publish()
    await asyncio.sleep(0)
    written_to, waiting = ears[0], ears[-1]
    for ear in (written_to, waiting):
        round_.channel.unsubscribe(ear)
    round_.publish()
    await round_.idle()
    assert (written_to.received, waiting.received) == ([1], [])
    assert all(ear.received == [1, 2] for ear in ears[1:-1])


async def test_who_leaves_while_it_is_written_to_stops_the_others_from_nothing() -> None:
    """A write may make its own peer leave, or a neighbour in the same slice."""
    round_ = Round()

    class Leaving(RecordingConnection):
        def _record(self, payload: list[int | bytes]) -> None:
            super()._record(payload)
            round_.channel.unsubscribe(self)
            round_.channel.unsubscribe(neighbour)

    leaving, neighbour = Leaving(), RecordingConnection()
    first = round_.add(1)
    round_.admit(leaving, neighbour)
    last = round_.add(1)
    round_.publish()
    round_.publish()
    await round_.idle()
    assert (leaving.received, neighbour.received) == ([1, 2], []), "two publications, one write"
    assert all(ear.received == [1, 2] for ear in first + last)


async def test_who_subscribes_during_a_round_gets_exactly_what_comes_after_its_reply() -> None:
    """Neither what is being written, nor what already waits for the next round; everything from then on."""
    round_ = Round()
    ears = round_.add(3 * SLICE)
    round_.publish()
    await asyncio.sleep(0)
    round_.publish()
    (late,) = round_.add(1)
    assert round_.log.top == 2, "this is what its reply says"
    round_.publish(3)
    await round_.idle()
    assert late.received == [3, 4, 5]
    assert all(ear.received == [1, 2, 3, 4, 5] for ear in ears)


class Keeping(RecordingConnection):
    """Remembers the very object that was written."""

    def __init__(self) -> None:
        super().__init__()
        self.framing = RAW_FRAMING  # type: ignore[assignment]
        self.payloads: list[bytes] = []

    def _record(self, payload: Any) -> None:
        self.payloads.append(payload)


async def test_all_sockets_are_written_the_same_bytes() -> None:
    """The frame is built once: every peer of a framing gets the same object."""
    round_ = Round()
    peers = [Keeping() for _ in range(2 * SLICE)]
    ears = round_.add(1)
    round_.admit(*peers)
    round_.publish(2)
    await round_.idle()
    assert {len(peer.payloads) for peer in peers} == {1}
    assert len({id(peer.payloads[0]) for peer in peers}) == 1
    frame = peers[0].payloads[0]
    assert (frame[0], frame[1]) == (0x81, len(frame) - 2 if len(frame) < 128 else 126)
    assert frame.count(b"\n") == 1
    assert ears[0].received == [1, 2], "others are written in their own framing"


async def test_a_channel_that_nobody_hears_has_nothing_to_write() -> None:
    round_ = Round()
    (ear,) = round_.add(1)
    round_.channel.unsubscribe(ear)
    round_.publish()
    assert round_.fan_out.is_idle
    assert round_.channel.queued_bytes == 0


def fill(round_: Round) -> int:
    """Publish until the channel has more waiting than may; how many publications that took."""
    count = 0
    while round_.channel.queued_bytes <= QUEUED_BYTES:
        round_.publish(1000)
        count += 1000
    return count


async def test_publishers_wait_while_too_much_waits() -> None:
    """They go on once there is room again; another channel's never wait."""
    round_ = Round()
    (ear,) = round_.add(1)
    async with asyncio.timeout(SOON):
        await round_.fan_out.wait_for_room(round_.channel)
    count = fill(round_)
    waiting = asyncio.create_task(round_.fan_out.wait_for_room(round_.channel))
    other = Round("other", round_.fan_out)
    async with asyncio.timeout(SOON):
        await other.fan_out.wait_for_room(other.channel)
    assert not waiting.done()
    async with asyncio.timeout(SOON):
        await waiting
    assert round_.channel.queued_bytes <= QUEUED_BYTES
    await round_.idle()
    assert ear.received == list(range(1, count + 1))


async def test_publishers_wait_until_there_is_room_not_for_a_turn() -> None:
    """With many subscribers a turn writes little of what waits; who gives up takes nobody along."""
    round_ = Round()
    ears = round_.add(3 * SLICE)
    fill(round_)
    round_.publish(5000)
    waiting, gone = (asyncio.create_task(round_.fan_out.wait_for_room(round_.channel)) for _ in range(2))
    for _ in range(5):
        await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert ears[0].writes < 5, "a batch takes several turns"
    assert round_.channel.queued_bytes > QUEUED_BYTES
    assert not waiting.done()
    async with asyncio.timeout(SOON):
        await waiting
    assert round_.channel.queued_bytes <= QUEUED_BYTES
    await round_.idle()
    assert all(ear.received == list(range(1, round_.log.top + 1)) for ear in ears)
