"""The subscriptions of a session, as playbooks."""

import pytest

from tests.client.session.playbook import HISTORY, Playbook, publication, push, subscribed
from tocsin.models import (
    ClientInfo,
    Joined,
    Left,
    Position,
    Publication,
    State,
    StateChanged,
    Subscribed,
    Unsubscribed,
)
from tocsin.session import effects, events


def test_channels_subscribed_before_the_connection_are_sent_after_the_connect_reply() -> None:
    """All subscribe commands are sent in one message."""
    playbook = Playbook().handle(events.Start()).subscribe("a").subscribe("b")
    assert playbook.effects == []
    playbook.handle(events.TransportOpened()).receive({"id": 1, "connect": {"client": "C"}})
    options = {"positioned": True, "recoverable": True}
    assert playbook.sent == [
        {"id": 2, "subscribe": {"channel": "a", **options}},
        {"id": 3, "subscribe": {"channel": "b", **options}},
    ]
    assert len([effect for effect in playbook.effects if isinstance(effect, effects.Send)]) == 1


def test_a_first_subscription_recovers_nothing_and_publications_follow() -> None:
    """`recovered` is None for the first subscription."""
    playbook = (
        Playbook()
        .connect()
        .subscribe()
        .receive({"id": 2, "subscribe": {**HISTORY, "offset": 3, "data": "hi"}})
    )
    assert playbook.notified == [Subscribed("news", None, Position(3, "E"), "hi")]
    info = {"user": "u", "client": "c"}
    playbook.receive(push(4, info=info, tags={"k": "v"}, time=5))
    assert playbook.notified == [Publication("news", 4, 4, "E", ClientInfo("u", "c"), {"k": "v"}, 5)]


def test_a_resubscription_sends_its_position_and_recovers() -> None:
    """`Subscribed` first, then the missed publications in order, then live ones. The position moves on."""
    playbook = (
        Playbook()
        .connect()
        .go_live()
        .receive(push(1))
        .handle(events.TransportLost(3001, "shutdown"))
        .reconnect()
    )
    [sent] = playbook.sent
    assert sent["subscribe"]["recover"] is True
    assert (sent["subscribe"]["offset"], sent["subscribe"]["epoch"]) == (1, "E")
    missed = [{"data": 2, "offset": 2}, {"data": 3, "offset": 3}]
    result = {**HISTORY, "offset": 1, "was_recovering": True, "recovered": True, "publications": missed}
    playbook.receive({"id": sent["id"], "subscribe": result}, push(3), push(4))
    assert playbook.notified == [subscribed(True, 1), publication(2), publication(3), publication(4)]
    assert playbook.handle(events.TransportLost(1006, "")).reconnect().sent[0]["subscribe"]["offset"] == 4


def test_a_gap_is_reported_and_the_channel_continues_from_its_top() -> None:
    """A gap is reported by `recovered=False`."""
    playbook = (
        Playbook()
        .connect()
        .go_live()
        .receive(push(1))
        .handle(events.TransportLost(3001, "shutdown"))
        .reconnect()
    )
    result = {"recoverable": True, "positioned": True, "epoch": "F", "offset": 9, "was_recovering": True}
    playbook.receive({"id": playbook.sent[0]["id"], "subscribe": result}, push(10))
    assert playbook.notified == [Subscribed("news", False, Position(9, "F")), publication(10, epoch="F")]


def test_a_duplicate_is_dropped() -> None:
    """The caller gets each offset of an epoch once."""
    playbook = Playbook().connect().go_live().receive(push(1), push(2), push(2), push(1), push(3))
    assert playbook.notified == [publication(1), publication(2), publication(3)]


def test_a_missing_publication_is_recovered_on_the_same_connection() -> None:
    """The publication after the missing one is dropped: history returns both in order."""
    playbook = Playbook().connect().go_live().receive(push(1)).receive(push(3))
    assert playbook.notified == []
    unsubscribe, subscribe = playbook.sent
    assert unsubscribe == {"id": 3, "unsubscribe": {"channel": "news"}}
    assert subscribe["subscribe"]["offset"] == 1
    assert subscribe["subscribe"]["recover"] is True
    playbook.receive(push(4))
    assert playbook.notified == []
    missed = [{"data": n, "offset": n} for n in (2, 3, 4)]
    playbook.receive(
        {"id": 3, "unsubscribe": {}},
        {"id": 4, "subscribe": {**HISTORY, "offset": 1, "recovered": True, "publications": missed}},
        push(5),
    )
    assert playbook.notified == [
        subscribed(True, 1),
        publication(2),
        publication(3),
        publication(4),
        publication(5),
    ]


def test_frequent_missing_publications_are_recovered_with_backoff() -> None:
    """A server whose offsets never fit does not cause a tight loop."""
    playbook = Playbook().connect().go_live().receive(push(2))
    playbook.receive({"id": playbook.sent[1]["id"], "subscribe": {**HISTORY, "offset": 5}}).receive(push(7))
    assert [list(sent)[1] for sent in playbook.sent] == ["unsubscribe"]
    assert playbook.session.deadline == playbook.now + 0.5
    assert playbook.wait(0.5).sent[0]["subscribe"]["offset"] == 5


def test_a_gap_inside_the_recovered_publications_is_reported() -> None:
    """A channel that keeps only its newest publication is "recovered" with missing offsets (protocol §10)."""
    playbook = (
        Playbook().connect().go_live().receive(push(1)).handle(events.TransportLost(1006, "")).reconnect()
    )
    result = {**HISTORY, "offset": 1, "recovered": True, "publications": [{"data": 7, "offset": 7}]}
    playbook.receive({"id": playbook.sent[0]["id"], "subscribe": result}, push(8))
    assert playbook.notified == [subscribed(False, 1), publication(7), publication(8)]


def test_a_channel_without_history_reports_every_interruption_as_not_recovered() -> None:
    """Without history, missed publications cannot be known."""
    playbook = Playbook().connect().subscribe().receive({"id": 2, "subscribe": {}})
    assert playbook.notified == [Subscribed("news", None, None)]
    assert playbook.receive({"push": {"channel": "news", "pub": {"data": "x"}}}).notified == [
        Publication("news", "x")
    ]
    playbook.handle(events.TransportLost(1006, "")).reconnect()
    assert "recover" not in playbook.sent[0]["subscribe"]
    assert playbook.receive({"id": playbook.sent[0]["id"], "subscribe": {}}).notified == [
        Subscribed("news", False, None)
    ]


def test_the_position_of_the_caller_is_recovered_from_first() -> None:
    """`since=`: the reply shows whether history still reached back."""
    playbook = Playbook().connect().subscribe(since=Position(5, "E"))
    assert (
        playbook.sent[0]["subscribe"] | {"recover": True, "offset": 5, "epoch": "E"}
        == playbook.sent[0]["subscribe"]
    )
    playbook.receive({"id": 2, "subscribe": {**HISTORY, "offset": 5, "recovered": True}})
    assert playbook.notified == [subscribed(True, 5)]


def test_joins_and_leaves_are_reported() -> None:
    """`join_leave` is sent only if the caller has a callback for them."""
    playbook = Playbook().connect().subscribe(wants_join_leave=True)
    assert playbook.sent[0]["subscribe"]["join_leave"] is True
    playbook.receive({"id": 2, "subscribe": HISTORY})
    info = {"info": {"user": "u", "client": "c"}}
    playbook.receive(
        {"push": {"channel": "news", "join": info}}, {"push": {"channel": "news", "leave": info}}
    )
    assert playbook.notified == [Joined("news", ClientInfo("u", "c")), Left("news", ClientInfo("u", "c"))]


def test_pushes_of_channels_that_are_not_live_are_ignored() -> None:
    """Before the subscribe reply, after an unsubscribe, and of unknown channels (protocol §15)."""
    playbook = Playbook().connect().subscribe().receive(push(1))
    assert playbook.notified == []
    playbook.receive({"id": 2, "subscribe": HISTORY}).handle(events.Unsubscribe("news"))
    assert (
        playbook.receive(push(1), push(1, "other"), {"push": {"channel": "news", "strange": {}}}).effects
        == []
    )


def test_unsubscribing_is_reported_at_once_and_a_late_subscribe_reply_is_ignored() -> None:
    """Even while the subscribe command is in flight."""
    playbook = Playbook().connect().subscribe().handle(events.Unsubscribe("news"))
    assert playbook.notified == [Unsubscribed("news", 0, "unsubscribed")]
    assert playbook.sent == [{"id": 3, "unsubscribe": {"channel": "news"}}]
    assert (
        playbook.receive({"id": 2, "subscribe": HISTORY}, push(1), {"id": 3, "unsubscribe": {}}).effects == []
    )
    assert playbook.subscribe().sent[0]["id"] == 4


def test_an_unanswered_subscribe_or_unsubscribe_leads_to_a_new_connection() -> None:
    """The state of the subscription on the server is unknown then (protocol §15)."""
    assert Playbook().connect().subscribe().wait(5).other_effects == [effects.CloseTransport(1000, "")]
    playbook = Playbook().connect().go_live().handle(events.Unsubscribe("news")).wait(5)
    assert playbook.other_effects == [effects.CloseTransport(1000, "")]
    playbook = Playbook().connect().go_live().handle(events.Unsubscribe("news"))
    playbook.receive({"id": 3, "error": {"code": 100, "message": "internal server error"}})
    assert playbook.other_effects == [effects.CloseTransport(1000, "")]


def test_a_refused_subscription_ends_and_a_temporarily_refused_one_is_tried_again() -> None:
    """A temporary error and a final one (protocol §7)."""
    playbook = Playbook().connect().subscribe()
    playbook.receive({"id": 2, "error": {"code": 100, "message": "internal server error", "temporary": True}})
    assert playbook.effects == []
    assert playbook.wait(0.5).sent[0]["id"] == 3
    playbook.receive({"id": 3, "error": {"code": 103, "message": "permission denied"}})
    assert playbook.notified == [Unsubscribed("news", 103, "permission denied")]
    assert playbook.wait(100).effects == []


@pytest.mark.parametrize("code", [2500, 2501, 2502, 2999])
def test_an_unsubscribe_push_from_2500_on_leads_to_a_resubscription(code: int) -> None:
    """At once, and from the position, except for 2502, which drops it (protocol §9)."""
    playbook = Playbook().connect().go_live().receive(push(1))
    playbook.receive(
        {"push": {"channel": "news", "unsubscribe": {"code": code, "reason": "insufficient state"}}}
    )
    assert playbook.notified == []
    [sent] = playbook.sent
    assert sent["subscribe"].get("offset") == (None if code == 2502 else 1)
    playbook.receive({"id": sent["id"], "subscribe": {**HISTORY, "offset": 4}})
    assert playbook.notified == [subscribed(False, 4)]


def test_an_unsubscribe_push_below_2500_is_final() -> None:
    """The server does not permit another attempt (protocol §9)."""
    playbook = Playbook().connect().go_live()
    playbook.receive(
        {"push": {"channel": "news", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}}
    )
    assert playbook.effects == [effects.Notify(Unsubscribed("news", 2000, "server unsubscribe"))]


def test_a_subscription_token_comes_from_its_provider_and_is_refreshed() -> None:
    """The provider is called before the first subscribe, at the ttl, and after error 109."""
    playbook = Playbook().connect().subscribe("$a", has_provider=True)
    assert playbook.effects == [effects.FetchToken("$a")]
    assert playbook.handle(events.TokenReceived("$a", "A")).sent[0]["subscribe"]["token"] == "A"
    playbook.receive({"id": 2, "error": {"code": 109, "message": "token expired"}})
    assert playbook.wait(0.5).effects == [effects.FetchToken("$a")]
    playbook.handle(events.TokenReceived("$a", "B")).receive(
        {"id": 3, "subscribe": {**HISTORY, "expires": True, "ttl": 60}}
    )
    assert playbook.wait(60).effects == [effects.FetchToken("$a")]
    assert playbook.handle(events.TokenReceived("$a", "C")).sent == [
        {"id": 4, "sub_refresh": {"token": "C", "channel": "$a"}}
    ]
    assert playbook.receive({"id": 4, "sub_refresh": {"expires": True, "ttl": 30}}).effects == []
    assert playbook.wait(30).effects == [effects.FetchToken("$a")]


def test_a_subscription_without_a_token_ends_alone() -> None:
    """`Unauthorized` and an empty token are final. A failing provider is called again."""
    playbook = Playbook().connect().subscribe("$a", has_provider=True)
    assert playbook.handle(events.TokenFailed("$a", "503", is_final=False)).effects == []
    assert playbook.wait(0.5).effects == [effects.FetchToken("$a")]
    assert playbook.handle(events.TokenReceived("$a", "")).notified == [
        Unsubscribed("$a", 1, "get_token returned no token")
    ]
    playbook.subscribe("$b", has_provider=True).handle(events.TokenFailed("$b", "no", is_final=True))
    assert playbook.notified == [Unsubscribed("$b", 1, "no")]


def test_a_subscription_with_an_expired_fixed_token_ends() -> None:
    """Without a provider there is no other token."""
    playbook = Playbook().connect().subscribe("$a", token="A")
    playbook.receive({"id": 2, "error": {"code": 109, "message": "token expired"}})
    assert playbook.notified == [Unsubscribed("$a", 109, "token expired")]


def test_a_refused_refresh_ends_the_subscription_and_a_failed_one_is_tried_again() -> None:
    """It is tried on the same connection, ten seconds later at the earliest."""
    playbook = Playbook().connect().subscribe("$a", has_provider=True).handle(events.TokenReceived("$a", "A"))
    playbook.receive({"id": 2, "subscribe": {**HISTORY, "expires": True, "ttl": 60}})
    playbook.wait(60).handle(events.TokenFailed("$a", "503", is_final=False))
    assert playbook.wait(10).effects == [effects.FetchToken("$a")]
    playbook.handle(events.TokenReceived("$a", "B")).receive(
        {"id": 3, "error": {"code": 103, "message": "permission denied"}}
    )
    assert playbook.notified == [Unsubscribed("$a", 103, "permission denied")]
    assert playbook.sent == [{"id": 4, "unsubscribe": {"channel": "$a"}}]


def test_server_side_subscriptions_go_live_and_recover_with_the_connect_reply() -> None:
    """Their positions are in `connect.subs`. One that the reply does not contain has ended."""
    playbook = Playbook().connect(subs={"#u": HISTORY, "x": HISTORY})
    assert playbook.notified[1:] == [subscribed(None, 0, "#u"), subscribed(None, 0, "x")]
    assert playbook.receive(push(1, "#u")).notified == [publication(1, "#u")]
    playbook.handle(events.TransportLost(1006, "")).wait(1).handle(events.TransportOpened())
    position = {"recover": True, "epoch": "E"}
    assert playbook.sent[0]["connect"]["subs"] == {"#u": {**position, "offset": 1}, "x": position}
    recovered = {**HISTORY, "offset": 1, "recovered": True, "publications": [{"data": 2, "offset": 2}]}
    playbook.receive({"id": playbook.sent[0]["id"], "connect": {"client": "D", "subs": {"#u": recovered}}})
    assert playbook.notified[1:] == [
        Unsubscribed("x", 0, "no longer subscribed by the server"),
        subscribed(True, 1, "#u"),
        publication(2, "#u"),
    ]


def test_a_server_side_subscription_lasts_until_the_server_ends_it() -> None:
    """The pushes `subscribe` and `unsubscribe`."""
    playbook = Playbook().connect().receive({"push": {"channel": "x", "subscribe": HISTORY}}, push(1, "x"))
    assert playbook.notified == [subscribed(None, 0, "x"), publication(1, "x")]
    playbook.receive(
        {"push": {"channel": "x", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}},
        push(2, "x"),
    )
    assert playbook.effects == [effects.Notify(Unsubscribed("x", 2500, "insufficient state"))]


def test_a_missing_publication_of_a_server_side_subscription_leads_to_a_new_connection() -> None:
    """Only a connect command can recover it."""
    playbook = Playbook().connect(subs={"x": HISTORY}).receive(push(2, "x"))
    assert playbook.other_effects == [effects.CloseTransport(1000, "")]
    assert playbook.notified == [StateChanged(State.CONNECTING, 0, "a publication of x is missing")]


def test_a_channel_with_a_server_side_subscription_cannot_be_subscribed() -> None:
    """The error is that of the server (105). The server-side subscription stays."""
    playbook = Playbook().connect(subs={"x": HISTORY}).subscribe("x")
    assert playbook.effects == [effects.Notify(Unsubscribed("x", 105, "already subscribed"))]
    assert playbook.receive(push(1, "x")).notified == [publication(1, "x")]


def test_a_paused_channel_is_unsubscribed_and_recovers_when_resumed() -> None:
    """Also when the connection is lost in between."""
    playbook = Playbook().connect().go_live().receive(push(1)).handle(events.Pause("news"))
    assert playbook.sent == [{"id": 3, "unsubscribe": {"channel": "news"}}]
    assert playbook.receive({"id": 3, "unsubscribe": {}}, push(2)).effects == []
    assert playbook.handle(events.TransportLost(1006, "")).reconnect().sent == []
    [sent] = playbook.handle(events.Resume("news")).sent
    assert sent["subscribe"]["offset"] == 1


def test_state_invalidated_drops_positions_and_reports_not_recovered() -> None:
    """Close code 3014 (protocol §8)."""
    playbook = (
        Playbook()
        .connect()
        .go_live()
        .receive(push(1))
        .handle(events.TransportLost(3014, "state invalidated"))
        .reconnect()
    )
    assert "recover" not in playbook.sent[0]["subscribe"]
    playbook.receive({"id": playbook.sent[0]["id"], "subscribe": {**HISTORY, "offset": 4}})
    assert playbook.notified == [subscribed(False, 4)]
