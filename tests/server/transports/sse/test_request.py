"""A request for an event stream: what is read from it, and the commands it is turned into."""

import pytest

from tests.support.tokens import subscription_token
from tocsin_server.protocol.messages import Position, SubscriptionPosition
from tocsin_server.transports.sse.refusal import StreamRefused
from tocsin_server.transports.sse.request import (
    EventRequest,
    newest_last_event_id,
    read_query,
    read_request,
)

HERE = Position(12, "abc")


def test_a_request_names_its_channels_and_positions_in_one_order() -> None:
    request = read_request({"channel": ["news", "scores"]}, "12@abc,", "", channel_limit=2)
    assert request == EventRequest(("news", "scores"), (HERE, None))
    assert request.is_recovering


def test_the_token_of_the_query_is_used_before_that_of_a_header() -> None:
    both = read_request({"channel": ["news"], "token": ["query"]}, "", "header", channel_limit=1)
    header = read_request({"channel": ["news"], "token": [""]}, "", "header", channel_limit=1)
    assert (both.token, header.token) == ("query", "header")
    assert not header.is_recovering


def test_the_newest_last_event_id_counts() -> None:
    """That of a header; else the last one of the query, to which polyfills append theirs."""
    query = read_query("channel=news&last_event_id=1@a&lastEventId=2@a&Last-Event-ID=")
    assert newest_last_event_id([], query) == "2@a"
    assert newest_last_event_id([("last-event-id", "")], query) == "2@a"
    assert newest_last_event_id([("accept", "*/*"), ("last-event-id", "3@a")], query) == "3@a"
    assert newest_last_event_id([], read_query("channel=news")) == ""


def test_subscription_tokens_belong_to_the_channels_that_they_name() -> None:
    """Their order in the query does not matter."""
    tokens = {name: subscription_token("ann", name) for name in ("news", "scores")}
    query = {"channel": ["news", "scores"], "sub_token": [tokens["scores"], tokens["news"]]}
    assert read_request(query, "", "", channel_limit=2).channel_tokens == tokens


@pytest.mark.parametrize(
    ("channels", "last_event_id", "sub_tokens"),
    [
        ([], "", []),
        ([""], "", []),
        (["news", "news"], "", []),
        (["a", "b", "c"], "", []),
        (["news"], "1@a,2@b", []),
        (["news"], "", ["not-a-token"]),
        (["news"], "", [subscription_token("ann", "scores")]),
    ],
)
def test_an_invalid_query_is_refused(channels: list[str], last_event_id: str, sub_tokens: list[str]) -> None:
    """With 400, and a sentence for its author."""
    with pytest.raises(StreamRefused) as refused:
        read_request({"channel": channels, "sub_token": sub_tokens}, last_event_id, "", channel_limit=2)
    assert refused.value.status == 400
    assert refused.value.message.endswith(".")


def test_a_request_becomes_a_connect_and_a_subscribe_command_for_each_channel() -> None:
    """Each subscribe recovers from its channel's position, if there is one."""
    request = EventRequest(("news", "scores"), (HERE, None), "token", {"scores": "channel token"})
    connect, news, scores = request.commands()
    assert connect.connect is not None
    assert (connect.connect.token, connect.connect.subs) == ("token", {})
    assert news.subscribe is not None
    assert (news.id, news.subscribe.channel, news.subscribe.token) == (2, "news", "")
    assert (news.subscribe.recover, news.subscribe.offset, news.subscribe.epoch) == (True, 12, "abc")
    assert scores.subscribe is not None
    assert (scores.id, scores.subscribe.channel, scores.subscribe.token) == (3, "scores", "channel token")
    assert not scores.subscribe.recover


def test_channels_that_the_token_subscribes_recover_with_the_connect_command() -> None:
    request = EventRequest(("news", "scores"), (HERE, Position(7, "xyz")), "token")
    connect, *_ = request.commands(server_side=["news"])
    assert connect.connect is not None
    assert connect.connect.subs == {"news": SubscriptionPosition(recover=True, offset=12, epoch="abc")}
