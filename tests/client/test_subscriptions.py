"""The channels of a session, as playbooks."""

import pytest

from tests.client.play import LOG, Play, heard, pub, subscribed
from tocsin import effects
from tocsin.values import (
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


def test_a_channel_wanted_before_the_connection_is_subscribed_after_the_greeting() -> None:
    """All of them leave in one message."""
    play = Play().do(effects.Start()).subscribe("a").subscribe("b")
    assert play.asked == []
    play.do(effects.Opened()).hear({"id": 1, "connect": {"client": "C"}})
    asked = {"positioned": True, "recoverable": True}
    assert play.sent == [
        {"id": 2, "subscribe": {"channel": "a", **asked}},
        {"id": 3, "subscribe": {"channel": "b", **asked}},
    ]
    assert len([effect for effect in play.asked if isinstance(effect, effects.Send)]) == 1


def test_a_first_subscription_has_nothing_to_recover_and_publications_follow_it() -> None:
    """`recovered` is None then."""
    play = Play().connect().subscribe().hear({"id": 2, "subscribe": {**LOG, "offset": 3, "data": "hi"}})
    assert play.told == [Subscribed("news", None, Position(3, "E"), "hi")]
    info = {"user": "u", "client": "c"}
    play.hear(pub(4, info=info, tags={"k": "v"}, time=5))
    assert play.told == [Publication("news", 4, 4, "E", ClientInfo("u", "c"), {"k": "v"}, 5)]


def test_a_returning_subscription_sends_its_position_and_hears_what_it_missed() -> None:
    """The news first, then the missed in order, then live; positions of later returns are later."""
    play = Play().connect().live().hear(pub(1)).do(effects.Lost(3001, "shutdown")).reopen()
    [sent] = play.sent
    assert sent["subscribe"]["recover"] is True
    assert (sent["subscribe"]["offset"], sent["subscribe"]["epoch"]) == (1, "E")
    missed = [{"data": 2, "offset": 2}, {"data": 3, "offset": 3}]
    result = {**LOG, "offset": 1, "was_recovering": True, "recovered": True, "publications": missed}
    play.hear({"id": sent["id"], "subscribe": result}, pub(3), pub(4))
    assert play.told == [subscribed(True, 1), heard(2), heard(3), heard(4)]
    assert play.do(effects.Lost(1006, "")).reopen().sent[0]["subscribe"]["offset"] == 4


def test_a_position_out_of_reach_is_told_and_the_channel_goes_on_from_its_top() -> None:
    """Loss is told, never hidden."""
    play = Play().connect().live().hear(pub(1)).do(effects.Lost(3001, "shutdown")).reopen()
    result = {"recoverable": True, "positioned": True, "epoch": "F", "offset": 9, "was_recovering": True}
    play.hear({"id": play.sent[0]["id"], "subscribe": result}, pub(10))
    assert play.told == [Subscribed("news", False, Position(9, "F")), heard(10, epoch="F")]


def test_a_duplicate_is_dropped() -> None:
    """Whatever has been heard in this epoch is not heard again."""
    play = Play().connect().live().hear(pub(1), pub(2), pub(2), pub(1), pub(3))
    assert play.told == [heard(1), heard(2), heard(3)]


def test_a_hole_is_recovered_on_the_same_connection() -> None:
    """The publication after the hole waits: the log gives both in order."""
    play = Play().connect().live().hear(pub(1)).hear(pub(3))
    assert play.told == []
    leave, back = play.sent
    assert leave == {"id": 3, "unsubscribe": {"channel": "news"}}
    assert back["subscribe"]["offset"] == 1
    assert back["subscribe"]["recover"] is True
    play.hear(pub(4))
    assert play.told == []
    missed = [{"data": n, "offset": n} for n in (2, 3, 4)]
    play.hear(
        {"id": 3, "unsubscribe": {}},
        {"id": 4, "subscribe": {**LOG, "offset": 1, "recovered": True, "publications": missed}},
        pub(5),
    )
    assert play.told == [subscribed(True, 1), heard(2), heard(3), heard(4), heard(5)]


def test_holes_in_quick_succession_are_recovered_with_growing_pauses() -> None:
    """A server whose offsets never fit is not asked in a tight loop."""
    play = Play().connect().live().hear(pub(2))
    play.hear({"id": play.sent[1]["id"], "subscribe": {**LOG, "offset": 5}}).hear(pub(7))
    assert [list(sent)[1] for sent in play.sent] == ["unsubscribe"]
    assert play.session.deadline == play.now + 0.5
    assert play.wait(0.5).sent[0]["subscribe"]["offset"] == 5


def test_a_hole_inside_what_was_recovered_is_told() -> None:
    """A channel that keeps only its newest message says "recovered" with a jump (protocol §10)."""
    play = Play().connect().live().hear(pub(1)).do(effects.Lost(1006, "")).reopen()
    result = {**LOG, "offset": 1, "recovered": True, "publications": [{"data": 7, "offset": 7}]}
    play.hear({"id": play.sent[0]["id"], "subscribe": result}, pub(8))
    assert play.told == [subscribed(False, 1), heard(7), heard(8)]


def test_a_channel_without_a_log_says_at_every_return_that_something_may_be_missing() -> None:
    """Nobody can know better."""
    play = Play().connect().subscribe().hear({"id": 2, "subscribe": {}})
    assert play.told == [Subscribed("news", None, None)]
    assert play.hear({"push": {"channel": "news", "pub": {"data": "x"}}}).told == [Publication("news", "x")]
    play.do(effects.Lost(1006, "")).reopen()
    assert "recover" not in play.sent[0]["subscribe"]
    assert play.hear({"id": play.sent[0]["id"], "subscribe": {}}).told == [Subscribed("news", False, None)]


def test_a_position_given_by_the_owner_is_recovered_from_at_first() -> None:
    """`since=`: the answer says whether the log still reached back."""
    play = Play().connect().subscribe(since=Position(5, "E"))
    assert (
        play.sent[0]["subscribe"] | {"recover": True, "offset": 5, "epoch": "E"} == play.sent[0]["subscribe"]
    )
    play.hear({"id": 2, "subscribe": {**LOG, "offset": 5, "recovered": True}})
    assert play.told == [subscribed(True, 5)]


def test_joins_and_leaves_are_told() -> None:
    """Only where the owner asked for them is `join_leave` sent."""
    play = Play().connect().subscribe(wants_join_leave=True)
    assert play.sent[0]["subscribe"]["join_leave"] is True
    play.hear({"id": 2, "subscribe": LOG})
    info = {"info": {"user": "u", "client": "c"}}
    play.hear({"push": {"channel": "news", "join": info}}, {"push": {"channel": "news", "leave": info}})
    assert play.told == [Joined("news", ClientInfo("u", "c")), Left("news", ClientInfo("u", "c"))]


def test_pushes_of_channels_not_live_here_are_dropped() -> None:
    """Before the subscribe reply, after an unsubscribe, and of channels never heard of (protocol §15)."""
    play = Play().connect().subscribe().hear(pub(1))
    assert play.told == []
    play.hear({"id": 2, "subscribe": LOG}).do(effects.Unsubscribe("news"))
    assert play.hear(pub(1), pub(1, "other"), {"push": {"channel": "news", "strange": {}}}).asked == []


def test_unsubscribing_is_told_at_once_and_a_late_subscribe_reply_is_nobodys() -> None:
    """Even when the subscribe command is still under way."""
    play = Play().connect().subscribe().do(effects.Unsubscribe("news"))
    assert play.told == [Unsubscribed("news", 0, "unsubscribed")]
    assert play.sent == [{"id": 3, "unsubscribe": {"channel": "news"}}]
    assert play.hear({"id": 2, "subscribe": LOG}, pub(1), {"id": 3, "unsubscribe": {}}).asked == []
    assert play.subscribe().sent[0]["id"] == 4


def test_an_unanswered_subscribe_or_unsubscribe_gets_another_connection() -> None:
    """Nobody knows what that server thinks now (protocol §15)."""
    assert play_rest(Play().connect().subscribe().wait(5)) == [effects.Hangup(1000, "")]
    assert play_rest(Play().connect().live().do(effects.Unsubscribe("news")).wait(5)) == [
        effects.Hangup(1000, "")
    ]
    play = Play().connect().live().do(effects.Unsubscribe("news"))
    play.hear({"id": 3, "error": {"code": 100, "message": "internal server error"}})
    assert play.rest == [effects.Hangup(1000, "")]


def play_rest(play: Play) -> list[effects.Effect]:
    return play.rest


def test_a_refused_subscription_is_over_and_a_temporarily_refused_one_is_tried_again() -> None:
    """Reaction to an error reply to subscribe (protocol §7)."""
    play = Play().connect().subscribe()
    play.hear({"id": 2, "error": {"code": 100, "message": "internal server error", "temporary": True}})
    assert play.asked == []
    assert play.wait(0.5).sent[0]["id"] == 3
    play.hear({"id": 3, "error": {"code": 103, "message": "permission denied"}})
    assert play.told == [Unsubscribed("news", 103, "permission denied")]
    assert play.wait(100).asked == []


@pytest.mark.parametrize("code", [2500, 2501, 2502, 2999])
def test_an_unsubscribe_push_from_2500_on_is_answered_by_coming_back(code: int) -> None:
    """At once, from the position; 2502 forgets the position (protocol §9)."""
    play = Play().connect().live().hear(pub(1))
    play.hear({"push": {"channel": "news", "unsubscribe": {"code": code, "reason": "insufficient state"}}})
    assert play.told == []
    [sent] = play.sent
    assert sent["subscribe"].get("offset") == (None if code == 2502 else 1)
    play.hear({"id": sent["id"], "subscribe": {**LOG, "offset": 4}})
    assert play.told == [subscribed(False, 4)]


def test_an_unsubscribe_push_below_2500_is_final() -> None:
    """The server does not want it back."""
    play = Play().connect().live()
    play.hear({"push": {"channel": "news", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}})
    assert play.asked == [effects.Tell(Unsubscribed("news", 2000, "server unsubscribe"))]


def test_a_subscription_token_comes_from_its_provider_and_is_refreshed() -> None:
    """Asked before the first subscribe, at the ttl, and after 109."""
    play = Play().connect().subscribe("$a", has_provider=True)
    assert play.asked == [effects.AskToken("$a")]
    assert play.do(effects.TokenFound("$a", "A")).sent[0]["subscribe"]["token"] == "A"
    play.hear({"id": 2, "error": {"code": 109, "message": "token expired"}})
    assert play.wait(0.5).asked == [effects.AskToken("$a")]
    play.do(effects.TokenFound("$a", "B")).hear({"id": 3, "subscribe": {**LOG, "expires": True, "ttl": 60}})
    assert play.wait(60).asked == [effects.AskToken("$a")]
    assert play.do(effects.TokenFound("$a", "C")).sent == [
        {"id": 4, "sub_refresh": {"token": "C", "channel": "$a"}}
    ]
    assert play.hear({"id": 4, "sub_refresh": {"expires": True, "ttl": 30}}).asked == []
    assert play.wait(30).asked == [effects.AskToken("$a")]


def test_a_subscription_token_that_cannot_be_had_ends_only_that_subscription() -> None:
    """Final: `Unauthorized` or an empty token. A failing provider is asked again."""
    play = Play().connect().subscribe("$a", has_provider=True)
    assert play.do(effects.TokenFailed("$a", "503", is_final=False)).asked == []
    assert play.wait(0.5).asked == [effects.AskToken("$a")]
    assert play.do(effects.TokenFound("$a", "")).told == [Unsubscribed("$a", 1, "get_token gave no token")]
    play.subscribe("$b", has_provider=True).do(effects.TokenFailed("$b", "no", is_final=True))
    assert play.told == [Unsubscribed("$b", 1, "no")]


def test_an_expired_fixed_subscription_token_is_not_tried_again() -> None:
    """Without a provider there is no other token."""
    play = Play().connect().subscribe("$a", token="A")
    play.hear({"id": 2, "error": {"code": 109, "message": "token expired"}})
    assert play.told == [Unsubscribed("$a", 109, "token expired")]


def test_a_refused_refresh_ends_the_subscription_and_a_failed_one_is_tried_again() -> None:
    """On the same connection, ten seconds later at the earliest."""
    play = Play().connect().subscribe("$a", has_provider=True).do(effects.TokenFound("$a", "A"))
    play.hear({"id": 2, "subscribe": {**LOG, "expires": True, "ttl": 60}})
    play.wait(60).do(effects.TokenFailed("$a", "503", is_final=False))
    assert play.wait(10).asked == [effects.AskToken("$a")]
    play.do(effects.TokenFound("$a", "B")).hear(
        {"id": 3, "error": {"code": 103, "message": "permission denied"}}
    )
    assert play.told == [Unsubscribed("$a", 103, "permission denied")]
    assert play.sent == [{"id": 4, "unsubscribe": {"channel": "$a"}}]


def test_channels_given_by_the_server_are_live_with_the_greeting_and_recovered_through_it() -> None:
    """Their positions travel in `connect.subs`; those no longer given have ended."""
    play = Play().connect(subs={"#u": LOG, "x": LOG})
    assert play.told[1:] == [subscribed(None, 0, "#u"), subscribed(None, 0, "x")]
    assert play.hear(pub(1, "#u")).told == [heard(1, "#u")]
    play.do(effects.Lost(1006, "")).wait(1).do(effects.Opened())
    position = {"recover": True, "epoch": "E"}
    assert play.sent[0]["connect"]["subs"] == {"#u": {**position, "offset": 1}, "x": position}
    recovered = {**LOG, "offset": 1, "recovered": True, "publications": [{"data": 2, "offset": 2}]}
    play.hear({"id": play.sent[0]["id"], "connect": {"client": "D", "subs": {"#u": recovered}}})
    assert play.told[1:] == [
        Unsubscribed("x", 0, "no longer subscribed by the server"),
        subscribed(True, 1, "#u"),
        heard(2, "#u"),
    ]


def test_a_channel_given_later_is_live_until_the_server_takes_it() -> None:
    """Pushes `subscribe` and `unsubscribe`."""
    play = Play().connect().hear({"push": {"channel": "x", "subscribe": LOG}}, pub(1, "x"))
    assert play.told == [subscribed(None, 0, "x"), heard(1, "x")]
    play.hear(
        {"push": {"channel": "x", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}}, pub(2, "x")
    )
    assert play.asked == [effects.Tell(Unsubscribed("x", 2500, "insufficient state"))]


def test_a_hole_in_a_channel_given_by_the_server_gets_another_connection() -> None:
    """Only the greeting can recover it."""
    play = Play().connect(subs={"x": LOG}).hear(pub(2, "x"))
    assert play.rest == [effects.Hangup(1000, "")]
    assert play.told == [StateChanged(State.CONNECTING, 0, "a publication of x is missing")]


def test_a_channel_the_server_already_gives_cannot_be_subscribed_too() -> None:
    """As the server would answer (105), without losing the one there is."""
    play = Play().connect(subs={"x": LOG}).subscribe("x")
    assert play.asked == [effects.Tell(Unsubscribed("x", 105, "already subscribed"))]
    assert play.hear(pub(1, "x")).told == [heard(1, "x")]


def test_a_paused_channel_is_off_the_wire_and_recovers_when_resumed() -> None:
    """Even when the connection changes meanwhile."""
    play = Play().connect().live().hear(pub(1)).do(effects.Pause("news"))
    assert play.sent == [{"id": 3, "unsubscribe": {"channel": "news"}}]
    assert play.hear({"id": 3, "unsubscribe": {}}, pub(2)).asked == []
    assert play.do(effects.Lost(1006, "")).reopen().sent == []
    [sent] = play.do(effects.Resume("news")).sent
    assert sent["subscribe"]["offset"] == 1


def test_state_invalidated_forgets_positions_and_says_so() -> None:
    """Close code 3014 (protocol §8)."""
    play = Play().connect().live().hear(pub(1)).do(effects.Lost(3014, "state invalidated")).reopen()
    assert "recover" not in play.sent[0]["subscribe"]
    play.hear({"id": play.sent[0]["id"], "subscribe": {**LOG, "offset": 4}})
    assert play.told == [subscribed(False, 4)]
