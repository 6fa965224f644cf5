"""The synchronous half of a node: the I/O that each change of its state makes necessary, in order."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.server.core.playbook import EPOCH, OPEN, START, context, history_at, opened, opening_failed
from tests.server.core.recording_connection import RecordingConnection, deliver_all
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.channel import Channel
from tocsin_server.core.events import (
    ConnectionLost,
    Event,
    HistoryRead,
    Identify,
    OpenSubscriptions,
    Received,
    SubscriptionPlan,
    SubscriptionsOpened,
)
from tocsin_server.core.node_state import (
    Backfilled,
    IoRequest,
    Merged,
    NodeState,
    PublishJoinLeave,
    RemovePresence,
    UnsubscribeChannel,
    Write,
)
from tocsin_server.core.positions import History
from tocsin_server.core.session import Session
from tocsin_server.core.session_context import SessionContext
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import ClientInfo, Position, PresenceChange, Push

ANNOUNCED = OPEN.model_copy(update={"presence": True, "join_leave": True})
"""A channel with presence, joins and leaves."""

CONNECT: dict[str, Any] = {"id": 1, "connect": {}}
SUBSCRIBE: dict[str, Any] = {"id": 2, "subscribe": {"channel": "news"}}
UNSUBSCRIBE: dict[str, Any] = {"id": 3, "unsubscribe": {"channel": "news"}}
CONNECTED = "connect"
SUBSCRIBED = "subscribe"
UNSUBSCRIBED = "unsubscribe"


class Connection(RecordingConnection):
    """A connection of an anonymous user, with a real session."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session


class Node:
    """The state of a node whose channels all have the same options."""

    def __init__(self, channels: ChannelOptions = OPEN) -> None:
        self.state: NodeState[Connection] = NodeState()
        self._context: SessionContext = context(channels, allow_anonymous=True)

    def attach(self) -> Connection:
        connection = Connection(Session(self._context, f"c{len(self.state.connections) + 1}", START))
        self.state.attach(connection)
        return connection

    def apply(self, connection: Connection, event: Event | Sequence[dict[str, Any]]) -> list[Any]:
        """Return the requests, each `Write` as the methods that it answers."""
        if isinstance(event, Sequence):
            lines = b"\n".join(json.dumps(command).encode() for command in event)
            event = Received(JSON.decode_commands(lines))
        return [_readable(request) for request in self.state.apply(connection, event, START)]

    def subscribed(self) -> Connection:
        """Return a connection with a live subscription to `news`."""
        connection = self.attach()
        self.apply(connection, [CONNECT, SUBSCRIBE])
        self.apply(connection, opened("news"))
        assert connection.session.live_channels == ["news"]
        return connection


def _readable(request: IoRequest) -> Any:
    if not isinstance(request, Write):
        return request
    replies = [json.loads(JSON.encode(message)) for message in request.messages]
    return [next(key for key in reply if key != "id") for reply in replies]


def info(client: str = "c1") -> ClientInfo:
    return ClientInfo("", client)


def plan(channel: str, read: HistoryRead | None = None) -> SubscriptionPlan:
    return SubscriptionPlan(channel, OPEN, info(), read)


# ------------------------------------------------------------------------------------------------------ apply


def test_messages_are_written_before_the_io_that_follows_them() -> None:
    """The connect reply is not delayed by the subscription behind it."""
    node = Node()
    connection = node.attach()
    requests = node.apply(connection, [CONNECT, SUBSCRIBE])
    assert requests == [Identify(""), [CONNECTED], OpenSubscriptions([plan("news")])]


def test_consecutive_messages_are_one_write() -> None:
    node = Node()
    connection = node.attach()
    requests = node.apply(connection, [CONNECT, UNSUBSCRIBE, UNSUBSCRIBE])
    assert requests == [Identify(""), [CONNECTED, UNSUBSCRIBED, UNSUBSCRIBED]]


def test_io_comes_in_the_order_of_the_effects() -> None:
    """Here between two messages: the reply, the join, and the next command's reply."""
    node = Node(ANNOUNCED)
    connection = node.attach()
    node.apply(connection, [CONNECT, SUBSCRIBE, {"id": 4, "unsubscribe": {"channel": "other"}}])
    join = PublishJoinLeave("news", Push("news", join=PresenceChange(info())))
    assert node.apply(connection, opened("news")) == [[SUBSCRIBED], join, [UNSUBSCRIBED]]


def test_going_live_does_not_divide_a_write() -> None:
    """It needs no I/O; the connection is a subscriber at once."""
    node = Node()
    connection = node.attach()
    node.apply(connection, [CONNECT, SUBSCRIBE, {"id": 4, "unsubscribe": {"channel": "other"}}])
    assert node.apply(connection, opened("news")) == [[SUBSCRIBED, UNSUBSCRIBED]]
    assert node.state.hub.channels["news"].connections == [connection]


def test_only_the_last_unsubscribe_of_a_channel_unsubscribes_the_node() -> None:
    node = Node()
    first, second = node.subscribed(), node.subscribed()
    assert node.apply(first, [UNSUBSCRIBE]) == [[UNSUBSCRIBED]]
    assert node.apply(second, [UNSUBSCRIBE]) == [UnsubscribeChannel("news"), [UNSUBSCRIBED]]
    assert node.state.hub.channels == {}


def test_a_subscription_being_set_up_keeps_the_node_subscribed() -> None:
    node = Node()
    live, opening = node.subscribed(), node.attach()
    node.apply(opening, [CONNECT, SUBSCRIBE])
    assert node.apply(live, [UNSUBSCRIBE]) == [[UNSUBSCRIBED]]
    assert node.apply(opening, opening_failed("news")) == [UnsubscribeChannel("news"), ["error"]]


def test_an_unsubscribe_removes_the_presence_entry_and_publishes_the_leave() -> None:
    node = Node(ANNOUNCED)
    connection = node.subscribed()
    assert node.apply(connection, [UNSUBSCRIBE]) == [
        UnsubscribeChannel("news"),
        RemovePresence("news", "c1"),
        PublishJoinLeave("news", Push("news", leave=PresenceChange(info()))),
        [UNSUBSCRIBED],
    ]


def test_a_subscription_that_never_went_live_publishes_no_leave() -> None:
    """Its presence entry may have been added before the failure, so it is removed."""
    node = Node(ANNOUNCED)
    connection = node.attach()
    node.apply(connection, [CONNECT, SUBSCRIBE])
    requests = node.apply(connection, opening_failed("news"))
    assert requests == [UnsubscribeChannel("news"), RemovePresence("news", "c1"), ["error"]]


def test_a_connection_is_removed_when_its_session_is_closed() -> None:
    """From the connections and from the hub; other connections stay."""
    node = Node()
    connection, other = node.subscribed(), node.subscribed()
    assert node.apply(connection, ConnectionLost()) == []
    assert (node.state.connections, list(node.state.hub)) == ({other}, [other])
    assert node.apply(connection, ConnectionLost()) == []


def test_a_subscription_of_a_closed_session_is_cleaned_up_after_its_set_up() -> None:
    """The connection is removed before that."""
    node = Node(ANNOUNCED)
    connection = node.attach()
    node.apply(connection, [CONNECT, SUBSCRIBE])
    assert node.apply(connection, ConnectionLost()) == []
    assert node.state.connections == set()
    requests = node.apply(connection, opened("news"))
    assert requests == [UnsubscribeChannel("news"), RemovePresence("news", "c1")]


# ------------------------------------------------------------------------------------------------------ merge


def at(offset: int, epoch: str = EPOCH) -> tuple[NodeState[Connection], Channel[Connection], Connection]:
    """Return a state, its channel `news` that has received everything up to `offset`, and a subscriber."""
    node = Node()
    connection = node.subscribed()
    channel = node.state.hub.channels["news"]
    channel.tracker.set(Position(offset, epoch))
    return node.state, channel, connection


def merge(state: NodeState[Connection], **read: History) -> Merged[Connection]:
    """Merge the histories read for new subscriptions to these channels, and to one without history."""
    names = [*read, "plain"]
    for name in names:
        if name not in state.hub.channels or name == "news":
            state.hub.begin_subscribe(name)
    plans = [plan(name, HistoryRead() if name in read else None) for name in names]
    return state.merge(plans, read)


def test_a_merged_history_is_continued_by_the_publications_received_meanwhile() -> None:
    """A channel for which no history was read has none."""
    state, channel, _ = at(2)
    channel.begin_subscribe()
    channel.receive(history_at(3, 3).publications[0], EPOCH)
    expected = SubscriptionsOpened({"news": history_at(3, 1, 2, 3), "plain": None}, [])
    assert merge(state, news=history_at(2, 1, 2)) == (expected, [])


def test_a_merge_with_another_epoch_resets_the_subscribers() -> None:
    """The channel continues in the history that was read."""
    state, channel, connection = at(5)
    replaced = History(Position(2, "replaced"), [])
    expected = SubscriptionsOpened({"news": replaced, "plain": None}, [])
    assert merge(state, news=replaced) == (expected, [(connection, "news")])
    assert channel.tracker.position == Position(2, "replaced")


def test_a_merge_sets_the_position_of_a_channel_without_one() -> None:
    """Its subscribers have none either, so they are not reset."""
    node = Node()
    node.subscribed()
    assert merge(node.state, news=history_at(5)).resets == []
    assert node.state.hub.channels["news"].tracker.position == Position(5, EPOCH)


@pytest.mark.parametrize("names", [("news", "more"), ("more", "news")])
def test_a_merge_is_incomplete_if_one_history_ends_before_the_received_publications(
    names: tuple[str, str],
) -> None:
    """News was read at 2, is at 9, and has held no publication. All of them must be read again."""
    state, _, _ = at(9)
    read = {name: history_at(2) for name in names}
    assert merge(state, **read) == (None, [])


def first_pages(read: Mapping[str, History], room_bytes: float, limit: int = 300) -> Any:
    """The offsets in the first pages of recoveries from offset 0, by channel, and which continue."""
    state: NodeState[Connection] = NodeState()
    for name in read:
        state.hub.begin_subscribe(name)
    plans = [plan(name, HistoryRead(Position(0, EPOCH), limit)) for name in read]
    opened = state.merge(plans, read, room_bytes).opened
    assert opened is not None
    pages = {name: offsets(history) for name, history in opened.histories.items()}
    return pages, opened.continued


def offsets(history: History | None) -> list[int]:
    return [publication.offset for publication in history.publications] if history else []


SIZE = history_at(1, 1).publications[0].size


def test_recoveries_are_cut_to_the_room_that_a_client_has() -> None:
    """One that fits exactly is whole. Of the next there is room for nothing, so all of it follows."""
    read = {"a": history_at(2, 1, 2), "b": history_at(3, 1, 2, 3)}
    assert first_pages(read, 5 * SIZE) == ({"a": [1, 2], "b": [1, 2, 3]}, [])
    assert first_pages(read, 5 * SIZE - 1) == ({"a": [1, 2], "b": [1, 2]}, ["b"])
    assert first_pages(read, 2 * SIZE) == ({"a": [1, 2], "b": []}, ["b"])
    assert first_pages(read, -1) == ({"a": [], "b": []}, ["a", "b"])


def test_a_page_that_the_engine_cut_continues() -> None:
    """If the whole recovery has at most `history_limit` publications; otherwise there is none."""
    read = {"a": history_at(4, 1, 2)}
    assert first_pages(read, math.inf, limit=4) == ({"a": [1, 2]}, ["a"])
    assert first_pages(read, math.inf, limit=3) == ({"a": [1, 2]}, [])


# --------------------------------------------------------------------------------------------------- backfill


def delivered(channel: Channel[Connection], connection: Connection) -> list[int | bytes]:
    deliver_all(channel)
    return connection.received


def test_a_page_that_continues_the_channel_is_delivered() -> None:
    state, channel, connection = at(2)
    assert state.backfill(channel, history_at(5, 3, 4, 5)) == Backfilled(3, None, [], is_complete=True)
    assert delivered(channel, connection) == [3, 4, 5]


def test_a_page_that_ends_before_the_top_is_incomplete() -> None:
    state, channel, _ = at(2)
    assert state.backfill(channel, history_at(9, 3, 4, 5)) == Backfilled(3, None, [], is_complete=False)
    assert channel.tracker.position == Position(5, EPOCH)


def test_publications_that_the_channel_has_received_meanwhile_are_left_out() -> None:
    """It may be beyond the top that was read."""
    state, channel, connection = at(4)
    assert state.backfill(channel, history_at(5, 3, 4, 5)) == Backfilled(1, None, [], is_complete=True)
    assert delivered(channel, connection) == [5]
    state, channel, connection = at(7)
    assert state.backfill(channel, history_at(5, 3, 4, 5)) == Backfilled(0, None, [], is_complete=True)
    assert (delivered(channel, connection), channel.tracker.position) == ([], Position(7, EPOCH))


@pytest.mark.parametrize(
    ("history", "end", "count"),
    [(history_at(9, 8, 9), 7, 2), (history_at(9), 9, 0)],
    ids=["trimmed", "empty"],
)
def test_a_gap_resets_the_subscribers(history: History, end: int, count: int) -> None:
    """The channel continues after it."""
    state, channel, connection = at(2)
    gap = (Position(2, EPOCH), Position(end, EPOCH))
    assert state.backfill(channel, history) == Backfilled(count, gap, [connection], is_complete=True)
    assert channel.tracker.position == Position(9, EPOCH)


@pytest.mark.parametrize("epoch", ["replaced", EPOCH])
def test_a_replaced_history_resets_the_subscribers_and_is_delivered_from_its_beginning(epoch: str) -> None:
    """It has another epoch, or the same epoch and a top before the channel's position."""
    state, channel, connection = at(5)
    history = History(Position(2, epoch), history_at(2, 1, 2).publications)
    backfilled = state.backfill(channel, history, replaced=Position(5, EPOCH))
    gap = (Position(5, EPOCH), Position(0, epoch))
    assert backfilled == Backfilled(2, gap, [connection], is_complete=True)
    assert (delivered(channel, connection), channel.tracker.position) == ([1, 2], Position(2, epoch))


def test_a_channel_that_moved_to_the_new_history_meanwhile_is_not_reset() -> None:
    """It has received publication 1 of the new history while that was read."""
    state, channel, connection = at(1, "replaced")
    history = History(Position(2, "replaced"), history_at(2, 1, 2).publications)
    backfilled = state.backfill(channel, history, replaced=Position(5, EPOCH))
    assert backfilled == Backfilled(1, None, [], is_complete=True)
    assert delivered(channel, connection) == [2]


@pytest.mark.parametrize("offset", [0, 2, 4])
def test_a_page_of_a_history_that_the_channel_has_left_is_incomplete(offset: int) -> None:
    """The channel moved to another history during the read, so its new history must be read."""
    state, channel, connection = at(offset, "replaced")
    backfilled = state.backfill(channel, history_at(4, 3, 4))
    assert backfilled.is_complete is False
    assert (delivered(channel, connection), channel.tracker.position) == ([], Position(offset, "replaced"))
