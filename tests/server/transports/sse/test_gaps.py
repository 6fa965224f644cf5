"""Loss is told: an event says where the hole is, before anything that lies behind it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.server.transports.sse.streams import Event, Served
from tocsin_server.core.events import ChannelReset
from tocsin_server.core.positions import History
from tocsin_server.errors import EngineError
from tocsin_server.node.connection import Connection
from tocsin_server.protocol.messages import Position

Name = Callable[[str], str]


def gap(channel: str, since: Position, to: Position, position: str) -> Event:
    data: dict[str, Any] = {"channel": channel, "from": since._asdict(), "to": to._asdict()}
    return Event("gap", data, position)


async def test_a_position_too_old_is_a_gap(tocsin: Served, channel: Name) -> None:
    """The log keeps ten; what lay before is lost, and the stream goes on from the top."""
    news = channel("log")
    first = await tocsin.publish(news, 1)
    top = await tocsin.publish(news, *range(2, 20))
    position = f"1@{first.epoch}"
    async with tocsin.stream(news, headers={"Last-Event-ID": position}, begins=False) as stream:
        assert await stream.next() == Event(id=position)
        assert await stream.next() == gap(news, first, top, f"19@{top.epoch}")
        await tocsin.publish(news, 20)
        assert await stream.numbers(1) == [20]


async def test_a_gap_in_one_channel_costs_the_others_nothing(tocsin: Served, channel: Name) -> None:
    """Gaps come first; then what the other channels missed, to ids that pass over the gap."""
    news, other = channel("log"), channel("log")
    await tocsin.publish(news, 1)
    await tocsin.publish(other, 1, 2)
    news_top, other_top = await tocsin.top(news), await tocsin.top(other)
    elsewhen = Position(7, "elsewhen")
    query = f"1@{other_top.epoch},7@elsewhen"
    async with tocsin.stream(other, news, last_event_id=query) as stream:
        expected = gap(news, elsewhen, news_top, f"1@{other_top.epoch},1@{news_top.epoch}")
        assert await stream.next() == expected
        assert (await stream.next()).id == f"2@{other_top.epoch},1@{news_top.epoch}"


async def test_a_position_in_a_channel_without_a_log_is_a_gap(tocsin: Served) -> None:
    """Whatever it was, it cannot be recovered; from there on the channel has no position."""
    async with tocsin.stream("lobby", last_event_id="3@abc") as stream:
        assert await stream.next() == gap("lobby", Position(3, "abc"), Position(0, ""), "")


async def peer_of(tocsin: Served) -> Connection:
    (peer,) = tocsin.node.hub
    return peer


async def test_a_broken_stream_mends_itself_from_the_log(tocsin: Served, channel: Name) -> None:
    """What the client missed in the break comes from the log, in order; it is told nothing of it."""
    one, two = channel("log"), channel("log")
    async with tocsin.stream(one, two) as stream:
        await tocsin.publish(one, 1)
        assert await stream.numbers(1) == [1]
        tocsin.node.handle_event(await peer_of(tocsin), ChannelReset(one))
        top = await tocsin.publish(one, 2, 3)
        await tocsin.publish(two, 9)
        heard = [await stream.message() for _ in range(3)]
        assert [m["pub"]["data"] for m in heard if m["channel"] == one] == [2, 3]
        await tocsin.publish(one, 4)
        assert (await stream.next()).id == f"4@{top.epoch},1@{(await tocsin.top(two)).epoch}"


async def test_a_break_that_the_log_cannot_mend_is_a_gap(tocsin: Served, channel: Name) -> None:
    """A log that was forgotten begins again in another epoch while the client is there."""
    brief = channel("log")
    async with tocsin.stream(brief) as stream:
        before = await tocsin.publish(brief, 1)
        assert await stream.numbers(1) == [1]
        del tocsin.node.engine.broker._logs._logs[brief]  # type: ignore[attr-defined]
        after = await tocsin.publish(brief, 2)
        assert after.epoch != before.epoch
        assert await stream.next() == gap(brief, before, Position(1, after.epoch), f"1@{after.epoch}")
        await tocsin.publish(brief, 3)
        assert (await stream.next()).data["pub"]["data"] == 3


async def test_a_channel_that_cannot_be_entered_again_ends_the_stream(
    tocsin: Served, channel: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client comes back with all its positions, and its request is judged as a whole."""

    async def fail(*_: object) -> History:
        raise EngineError("gone")

    news = channel("log")
    async with tocsin.stream(news) as stream:
        await tocsin.publish(news, 1)
        assert await stream.numbers(1) == [1]
        monkeypatch.setattr(tocsin.node.engine.broker, "read_history", fail)
        tocsin.node.handle_event(await peer_of(tocsin), ChannelReset(news))
        (last,) = await stream.rest()
    assert (last.kind, last.data["code"]) == ("disconnect", 3010)
