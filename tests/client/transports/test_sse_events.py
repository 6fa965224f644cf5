"""The events of an event stream, without a connection."""

import json
from typing import Any

import pytest

from tocsin.errors import BadProtocol
from tocsin.models import ClientInfo, Joined, Left, Position, Publication, Subscribed, Unsubscribed
from tocsin.transports.sse_events import PublicationMissing, SseEvents


def message(offset: int, channel: str = "a") -> str:
    return json.dumps({"channel": channel, "pub": {"data": offset, "offset": offset}})


def handle(stream: SseEvents, data: str, last_id: str, name: str = "") -> list[Any]:
    return list(stream.handle(name, data, last_id))


def test_a_stream_begins_with_the_positions_of_all_its_channels() -> None:
    stream = SseEvents(["a", "b", "c"])
    stream.on_connected()
    assert stream.last_event_id == ""
    assert handle(stream, "", "3@E,,0@F") == [
        Subscribed("a", None, Position(3, "E")),
        Subscribed("b", None, None),
        Subscribed("c", None, Position(0, "F")),
    ]
    assert stream.last_event_id == "3@E,,0@F"


def test_a_publication_moves_only_the_position_of_its_channel() -> None:
    stream = SseEvents(["a", "b"])
    handle(stream, "", "3@E,7@F")
    assert handle(stream, message(4), "4@E,7@F") == [Publication("a", 4, 4, "E")]
    assert handle(stream, message(4), "4@E,7@F") == []
    assert handle(stream, message(8, "b"), "4@E,8@F") == [Publication("b", 8, 8, "F")]
    assert stream.last_event_id == "4@E,8@F"


def test_a_recovery_is_reported_with_its_first_publication() -> None:
    """Only that publication shows it. A channel without history is reported as not recovered."""
    stream = SseEvents(["a", "b"])
    handle(stream, "", "3@E,")
    stream.on_connected()
    assert handle(stream, "", "3@E,") == [Subscribed("b", False, None)]
    assert handle(stream, message(4), "4@E,") == [
        Subscribed("a", True, Position(3, "E")),
        Publication("a", 4, 4, "E"),
    ]
    assert handle(stream, message(5), "5@E,") == [Publication("a", 5, 5, "E")]


def test_after_a_gap_the_channel_continues_from_its_end() -> None:
    stream = SseEvents(["a"], since="3@E")
    stream.on_connected()
    assert handle(stream, "", "3@E") == []
    gap = json.dumps({"channel": "a", "from": {"offset": 3, "epoch": "E"}, "to": {"offset": 9, "epoch": "F"}})
    assert handle(stream, gap, "9@F", "gap") == [Subscribed("a", False, Position(9, "F"))]
    assert handle(stream, message(10), "10@F") == [Publication("a", 10, 10, "F")]


def test_a_missing_publication_without_a_gap_event_is_noticed() -> None:
    stream = SseEvents(["a"])
    handle(stream, "", "3@E")
    with pytest.raises(PublicationMissing):
        handle(stream, message(5), "5@E")
    assert stream.last_event_id == "3@E"


def test_another_epoch_without_a_gap_event_is_reported_as_not_recovered() -> None:
    stream = SseEvents(["a"])
    handle(stream, "", "3@E")
    assert handle(stream, message(2), "2@F") == [
        Subscribed("a", False, Position(1, "F")),
        Publication("a", 2, 2, "F"),
    ]


def test_publications_without_a_position_are_passed_on() -> None:
    """Their channel has no history, or is a server-side subscription of the token."""
    stream = SseEvents(["a"])
    handle(stream, "", "")
    assert handle(stream, message(5), "") == [Publication("a", 5, 5)]
    assert handle(stream, message(7), "") == [Publication("a", 7, 7)]
    assert handle(stream, message(1, "#u"), "") == [Publication("#u", 1, 1)]
    assert stream.last_event_id == ""


def test_joins_leaves_and_unsubscribes_are_reported_and_other_events_ignored() -> None:
    stream = SseEvents(["a"])
    handle(stream, "", "3@E")
    info = {"info": {"user": "u", "client": "c"}}
    assert handle(stream, json.dumps({"channel": "a", "join": info}), "3@E") == [
        Joined("a", ClientInfo("u", "c"))
    ]
    assert handle(stream, json.dumps({"channel": "a", "leave": info}), "3@E") == [
        Left("a", ClientInfo("u", "c"))
    ]
    over = json.dumps({"channel": "a", "code": 2000, "reason": "server unsubscribe"})
    assert handle(stream, over, "3@E", "unsubscribe") == [Unsubscribed("a", 2000, "server unsubscribe")]
    assert handle(stream, "?", "3@E", "strange") == []


@pytest.mark.parametrize(("data", "last_id"), [("{", "3@E"), ("{}", "3@E"), ("", "3@E,4@F"), ("", "x")])
def test_an_unreadable_event_is_bad_protocol(data: str, last_id: str) -> None:
    with pytest.raises(BadProtocol):
        handle(SseEvents(["a"]), data, last_id)
