"""The contents of an event stream, without the stream."""

import json
from typing import Any

import pytest

from tocsin.errors import BadProtocol
from tocsin.feed import Feed, Hole
from tocsin.values import ClientInfo, Joined, Left, Position, Publication, Subscribed, Unsubscribed


def message(offset: int, channel: str = "a") -> str:
    return json.dumps({"channel": channel, "pub": {"data": offset, "offset": offset}})


def take(feed: Feed, data: str, last_id: str, name: str = "") -> list[Any]:
    return list(feed.take(name, data, last_id))


def test_a_stream_opens_with_the_positions_of_all_its_channels() -> None:
    feed = Feed(["a", "b", "c"])
    feed.opened()
    assert feed.last_event_id == ""
    assert take(feed, "", "3@E,,0@F") == [
        Subscribed("a", None, Position(3, "E")),
        Subscribed("b", None, None),
        Subscribed("c", None, Position(0, "F")),
    ]
    assert feed.last_event_id == "3@E,,0@F"


def test_messages_move_the_position_of_their_channel_only() -> None:
    feed = Feed(["a", "b"])
    take(feed, "", "3@E,7@F")
    assert take(feed, message(4), "4@E,7@F") == [Publication("a", 4, 4, "E")]
    assert take(feed, message(4), "4@E,7@F") == []
    assert take(feed, message(8, "b"), "4@E,8@F") == [Publication("b", 8, 8, "F")]
    assert feed.last_event_id == "4@E,8@F"


def test_a_return_is_told_as_whole_with_its_first_message() -> None:
    """Only that shows it; a channel without a log cannot know."""
    feed = Feed(["a", "b"])
    take(feed, "", "3@E,")
    feed.opened()
    assert take(feed, "", "3@E,") == [Subscribed("b", False, None)]
    assert take(feed, message(4), "4@E,") == [
        Subscribed("a", True, Position(3, "E")),
        Publication("a", 4, 4, "E"),
    ]
    assert take(feed, message(5), "5@E,") == [Publication("a", 5, 5, "E")]


def test_a_gap_is_told_and_the_channel_goes_on_behind_it() -> None:
    feed = Feed(["a"], since="3@E")
    feed.opened()
    assert take(feed, "", "3@E") == []
    gap = json.dumps({"channel": "a", "from": {"offset": 3, "epoch": "E"}, "to": {"offset": 9, "epoch": "F"}})
    assert take(feed, gap, "9@F", "gap") == [Subscribed("a", False, Position(9, "F"))]
    assert take(feed, message(10), "10@F") == [Publication("a", 10, 10, "F")]


def test_a_hole_that_is_not_told_is_noticed() -> None:
    feed = Feed(["a"])
    take(feed, "", "3@E")
    with pytest.raises(Hole):
        take(feed, message(5), "5@E")
    assert feed.last_event_id == "3@E"


def test_another_epoch_without_a_gap_is_told_as_a_loss() -> None:
    feed = Feed(["a"])
    take(feed, "", "3@E")
    assert take(feed, message(2), "2@F") == [
        Subscribed("a", False, Position(1, "F")),
        Publication("a", 2, 2, "F"),
    ]


def test_channels_without_a_position_are_passed_on() -> None:
    """No log, or subscribed by the server through the token."""
    feed = Feed(["a"])
    take(feed, "", "")
    assert take(feed, message(5), "") == [Publication("a", 5, 5)]
    assert take(feed, message(7), "") == [Publication("a", 7, 7)]
    assert take(feed, message(1, "#u"), "") == [Publication("#u", 1, 1)]
    assert feed.last_event_id == ""


def test_joins_leaves_and_ends_are_told_and_other_events_ignored() -> None:
    feed = Feed(["a"])
    take(feed, "", "3@E")
    who = {"info": {"user": "u", "client": "c"}}
    assert take(feed, json.dumps({"channel": "a", "join": who}), "3@E") == [Joined("a", ClientInfo("u", "c"))]
    assert take(feed, json.dumps({"channel": "a", "leave": who}), "3@E") == [Left("a", ClientInfo("u", "c"))]
    over = json.dumps({"channel": "a", "code": 2000, "reason": "server unsubscribe"})
    assert take(feed, over, "3@E", "unsubscribe") == [Unsubscribed("a", 2000, "server unsubscribe")]
    assert take(feed, "?", "3@E", "strange") == []


@pytest.mark.parametrize(("data", "last_id"), [("{", "3@E"), ("{}", "3@E"), ("", "3@E,4@F"), ("", "x")])
def test_what_no_such_server_sends_is_named_so(data: str, last_id: str) -> None:
    with pytest.raises(BadProtocol):
        take(Feed(["a"]), data, last_id)
