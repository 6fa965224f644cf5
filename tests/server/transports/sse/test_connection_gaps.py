"""A gap is an event of its own, which comes before any later publication of its channel."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import asdict

from tests.server.transports.sse.stream_server import Event, StreamServer
from tocsin_server.core.events import ChannelReset
from tocsin_server.core.positions import History
from tocsin_server.errors import ALREADY_SUBSCRIBED, EngineError
from tocsin_server.node.connection import Connection
from tocsin_server.protocol.messages import ConnectResult, ErrorBody, Position, Reply, SubscribeResult
from tocsin_server.transports.sse.connection import SseConnection
from tocsin_server.transports.sse.request import EventRequest

Name = Callable[[str], str]


def gap(channel: str, since: Position, to: Position, position: str) -> Event:
    data: dict[str, Any] = {"channel": channel, "from": asdict(since), "to": asdict(to)}
    return Event("gap", data, position)


async def test_a_position_that_history_no_longer_reaches_is_a_gap(
    server: StreamServer, channel: Name
) -> None:
    """History keeps ten publications; the stream continues from the top."""
    news = channel("history")
    first = await server.publish(news, 1)
    top = await server.publish(news, *range(2, 20))
    position = f"1@{first.epoch}"
    async with server.stream(news, headers={"Last-Event-ID": position}, begins=False) as stream:
        assert await stream.next() == Event(id=position)
        assert await stream.next() == gap(news, first, top, f"19@{top.epoch}")
        await server.publish(news, 20)
        assert await stream.numbers(1) == [20]


async def test_a_gap_in_one_channel_does_not_affect_the_others(server: StreamServer, channel: Name) -> None:
    """Gaps come first. The ids of recovered publications in other channels are those after the gap."""
    news, other = channel("history"), channel("history")
    await server.publish(news, 1)
    await server.publish(other, 1, 2)
    news_top, other_top = await server.top(news), await server.top(other)
    other_epoch = Position(7, "other")
    query = f"1@{other_top.epoch},7@other"
    async with server.stream(other, news, last_event_id=query) as stream:
        expected = gap(news, other_epoch, news_top, f"1@{other_top.epoch},1@{news_top.epoch}")
        assert await stream.next() == expected
        assert (await stream.next()).id == f"2@{other_top.epoch},1@{news_top.epoch}"


async def test_a_position_in_a_channel_without_history_is_a_gap(server: StreamServer) -> None:
    """Nothing can be recovered from it, and the channel has no position from then on."""
    async with server.stream("lobby", last_event_id="3@abc") as stream:
        assert await stream.next() == gap("lobby", Position(3, "abc"), Position(0, ""), "")


def connection_of(server: StreamServer) -> Connection:
    (connection,) = server.node.hub
    return connection


async def test_a_stream_recovers_by_itself_from_a_reset(server: StreamServer, channel: Name) -> None:
    """The missed publications come from history, in order, and the client gets no other event."""
    one, two = channel("history"), channel("history")
    async with server.stream(one, two) as stream:
        await server.publish(one, 1)
        assert await stream.numbers(1) == [1]
        server.node.handle_event(connection_of(server), ChannelReset(one))
        top = await server.publish(one, 2, 3)
        await server.publish(two, 9)
        received = [await stream.message() for _ in range(3)]
        assert [m["pub"]["data"] for m in received if m["channel"] == one] == [2, 3]
        await server.publish(one, 4)
        assert (await stream.next()).id == f"4@{top.epoch},1@{(await server.top(two)).epoch}"


async def test_a_reset_that_history_cannot_bridge_is_a_gap(server: StreamServer, channel: Name) -> None:
    """The channel's history is lost while the client is subscribed, and continues in another epoch."""
    news = channel("history")
    async with server.stream(news) as stream:
        before = await server.publish(news, 1)
        assert await stream.numbers(1) == [1]
        histories = server.node.engine.broker._histories  # type: ignore[attr-defined]
        del histories._histories[news]
        histories._initial_epochs.clear()
        after = await server.publish(news, 2)
        assert after.epoch != before.epoch
        assert await stream.next() == gap(news, before, Position(1, after.epoch), f"1@{after.epoch}")
        await server.publish(news, 3)
        assert (await stream.next()).data["pub"]["data"] == 3


async def test_a_stream_ends_if_its_channel_cannot_be_subscribed_after_a_reset(
    server: StreamServer, channel: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client reconnects with all its positions, and its request is judged as a whole."""

    async def fail(*_: object) -> History:
        raise EngineError("gone")

    news = channel("history")
    async with server.stream(news) as stream:
        await server.publish(news, 1)
        assert await stream.numbers(1) == [1]
        monkeypatch.setattr(server.node.engine.broker, "read_history", fail)
        monkeypatch.setattr(server.node.engine.broker, "read_history_now", lambda *_: None)
        server.node.handle_event(connection_of(server), ChannelReset(news))
        (last,) = await stream.rest()
    assert (last.kind, last.data["code"]) == ("disconnect", 3010)


@pytest.mark.parametrize(("offset", "has_gap"), [(4, False), (9, True)])
async def test_a_channel_that_is_subscribed_without_recovery_has_a_gap_below_its_top(
    server: StreamServer, offset: int, has_gap: bool
) -> None:
    """An authorizer may subscribe it, which is not known when the session's commands are made."""
    since, top = Position(4, "abc"), Position(offset, "abc")
    connection = SseConnection(server.node, server.node.new_session(), EventRequest(("news",), (since,)))
    result = SubscribeResult(positioned=True, offset=top.offset, epoch=top.epoch)
    error = ErrorBody(ALREADY_SUBSCRIBED.code, ALREADY_SUBSCRIBED.message)
    connection.send([Reply(1, connect=ConnectResult("client", "1", subs={"news": result}))])
    connection.send([Reply(2, error=error)])
    await connection.opened()
    written = await anext(aiter(connection.send_queue))
    assert (b"event: gap\nid: 9@abc\n" in written) is has_gap
