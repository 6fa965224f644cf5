"""The connection of a session, as playbooks."""

import pytest

from tests.client.play import Play
from tocsin import effects, errors
from tocsin.protocol import PublishRequest, RpcRequest
from tocsin.values import State, StateChanged


def test_starting_opens_and_the_opened_transport_is_greeted() -> None:
    """The connect command is the first on every transport, with the token."""
    play = Play(token="T", data={"a": 1}).do(effects.Start())
    assert play.asked == [
        effects.Tell(StateChanged(State.CONNECTING, 0, "connect called")),
        effects.Open(),
    ]
    play.do(effects.Opened())
    assert play.sent == [{"id": 1, "connect": {"token": "T", "data": {"a": 1}, "name": "tocsin"}}]
    play.hear({"id": 1, "connect": {"client": "C"}})
    assert play.asked == [effects.Tell(StateChanged(State.CONNECTED, 0, "connected"))]
    assert play.session.deadline is None


def test_a_lost_connection_comes_back_after_a_pause() -> None:
    """The pause is half a second at least, and ids go on where they were."""
    play = Play().connect().do(effects.Lost(3001, "shutdown"))
    assert play.asked == [effects.Tell(StateChanged(State.CONNECTING, 3001, "shutdown"))]
    assert play.session.deadline == play.now + 0.5
    assert play.wait(0.4).asked == []
    assert play.wait(0.2).asked == [effects.Open()]
    assert play.do(effects.Opened()).sent[0]["id"] == 2


def test_each_failure_in_a_row_lengthens_the_pause_and_a_steady_connection_forgives() -> None:
    """Full jitter between 0.5 s and a ceiling that doubles up to 20 s (here: random is 1)."""
    play = Play()
    play.session._random = lambda: 0.999
    play.do(effects.Start())
    pauses = []
    for _ in range(8):
        play.do(effects.Lost(0, "refused"))
        assert play.session.deadline is not None
        pauses.append(round(play.session.deadline - play.now, 1))
        play.wait(pauses[-1] + 0.1)
    assert pauses == [1.0, 1.5, 2.5, 4.5, 8.5, 16.5, 20.0, 20.0]
    play.do(effects.Opened())
    play.hear({"id": play.sent[0]["id"], "connect": {"client": "C"}})
    play.wait(60).do(effects.Lost(3001, "shutdown"))
    assert play.session.deadline == pytest.approx(play.now + 1.0, abs=0.01)


@pytest.mark.parametrize("code", [1000, 1006, 3000, 3001, 3005, 3012, 3499, 4000, 4499, 5000])
def test_codes_of_the_returning_ranges_are_returned_from(code: int) -> None:
    """Below 3500, 4000 to 4499 and from 5000 on (protocol §8)."""
    assert Play().connect().do(effects.Lost(code, "why")).told == [
        StateChanged(State.CONNECTING, code, "why")
    ]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (1009, errors.Disconnected),
        (3500, errors.Unauthorized),
        (3501, errors.Disconnected),
        (3507, errors.PermissionDenied),
        (3999, errors.Disconnected),
        (4500, errors.Disconnected),
        (4999, errors.Disconnected),
    ],
)
def test_codes_of_the_final_ranges_end_the_session(code: int, error: type[Exception]) -> None:
    """3500 to 3999, 4500 to 4999, and 1009, end with the fitting exception; nothing is due afterwards."""
    play = Play().connect().do(effects.Lost(code, "why"))
    assert play.told == [StateChanged(State.DISCONNECTED, code, "why")]
    [end] = play.rest
    assert isinstance(end, effects.End)
    assert type(end.error) is error
    assert play.session.deadline is None
    assert play.wait(100).asked == []


def test_a_disconnect_push_counts_like_a_close_code() -> None:
    """Other transports of this protocol say it that way, and then the transport is ours to close."""
    play = Play().connect().hear({"push": {"disconnect": {"code": 3001, "reason": "shutdown"}}})
    assert play.rest == [effects.Hangup(1000, "")]
    assert play.told == [StateChanged(State.CONNECTING, 3001, "shutdown")]


def test_pings_are_answered_only_where_the_server_wants_it() -> None:
    """An unsolicited pong would be a bad request (protocol §6)."""
    assert Play().connect(ping=25, pong=True).hear({}).asked == [effects.Send("{}")]
    assert Play().connect(ping=25).hear({}).asked == []


def test_a_silent_server_is_left_ten_seconds_after_a_ping_was_due() -> None:
    """Any message counts as a sign of life."""
    play = Play().connect(ping=25, pong=True).wait(30).hear({}).wait(34)
    assert play.asked == []
    play.wait(1)
    assert play.asked == [
        effects.Hangup(1000, ""),
        effects.Tell(StateChanged(State.CONNECTING, 0, "no ping from the server")),
    ]


def test_a_greeting_without_an_answer_is_given_up_after_five_seconds() -> None:
    """A server that accepts and says nothing is as good as none."""
    play = Play().do(effects.Start()).do(effects.Opened()).wait(4.9)
    assert play.asked == []
    assert play.wait(0.2).rest == [effects.Hangup(1000, "")]


def test_a_temporary_refusal_is_tried_again_and_another_is_final() -> None:
    """Reaction to an error reply to connect (protocol §7)."""
    play = Play().do(effects.Start()).do(effects.Opened())
    play.hear({"id": 1, "error": {"code": 100, "message": "internal server error", "temporary": True}})
    assert play.told == [StateChanged(State.CONNECTING, 100, "internal server error")]
    play.wait(1).do(effects.Opened()).hear({"id": 2, "error": {"code": 103, "message": "permission denied"}})
    assert play.told == [StateChanged(State.DISCONNECTED, 103, "permission denied")]


def test_the_provider_is_asked_before_opening_and_again_when_the_token_expired() -> None:
    """Error 109 drops the token; a client without a provider has no other."""
    play = Play(has_provider=True).do(effects.Start())
    assert play.rest == [effects.AskToken(None)]
    assert play.do(effects.TokenFound(None, "A")).asked == [effects.Open()]
    assert play.do(effects.Opened()).sent[0]["connect"]["token"] == "A"
    play.hear({"id": 1, "error": {"code": 109, "message": "token expired"}})
    assert play.wait(1).rest == [effects.AskToken(None)]
    assert play.do(effects.TokenFound(None, "B")).do(effects.Opened()).sent[0]["connect"]["token"] == "B"

    poor = Play(token="A").do(effects.Start()).do(effects.Opened())
    poor.hear({"id": 1, "error": {"code": 109, "message": "token expired"}})
    assert isinstance(poor.rest[-1], effects.End)
    assert isinstance(poor.rest[-1].error, errors.Unauthorized)


def test_a_provider_that_fails_is_asked_again_and_one_that_gives_up_ends_the_session() -> None:
    """Only `Unauthorized`, or an empty token, says that there will be none."""
    play = Play(has_provider=True).do(effects.Start()).do(effects.TokenFailed(None, "503", is_final=False))
    assert play.told == [StateChanged(State.CONNECTING, 0, "get_token failed: 503")]
    assert play.wait(1).rest == [effects.AskToken(None)]
    play.do(effects.TokenFailed(None, "no such user", is_final=True))
    assert isinstance(play.rest[-1], effects.End)
    empty = Play(has_provider=True).do(effects.Start()).do(effects.TokenFound(None, ""))
    assert isinstance(empty.rest[-1], effects.End)


def test_an_expiring_connection_is_refreshed_without_a_break() -> None:
    """At the ttl the provider is asked, then `refresh` is sent, and the new ttl counts."""
    play = Play(has_provider=True).do(effects.Start()).do(effects.TokenFound(None, "A"))
    play.do(effects.Opened()).hear({"id": 1, "connect": {"client": "C", "expires": True, "ttl": 60}})
    assert play.wait(59).asked == []
    assert play.wait(1).asked == [effects.AskToken(None)]
    assert play.do(effects.TokenFound(None, "B")).sent == [{"id": 2, "refresh": {"token": "B"}}]
    assert play.hear({"id": 2, "refresh": {"expires": True, "ttl": 30}}).asked == []
    assert play.wait(30).asked == [effects.AskToken(None)]


def test_a_refresh_that_fails_for_now_is_tried_again_on_the_same_connection() -> None:
    """Provider failure, time-out and temporary error alike; a refusal is final."""
    play = Play(has_provider=True).do(effects.Start()).do(effects.TokenFound(None, "A"))
    play.do(effects.Opened()).hear({"id": 1, "connect": {"client": "C", "expires": True, "ttl": 60}})
    play.wait(60).do(effects.TokenFailed(None, "503", is_final=False))
    assert play.wait(10).asked == [effects.AskToken(None)]
    play.do(effects.TokenFound(None, "B"))
    assert play.wait(5).asked == []
    assert play.wait(10).asked == [effects.AskToken(None)]
    number = play.do(effects.TokenFound(None, "C")).sent[0]["id"]
    play.hear({"id": number, "error": {"code": 101, "message": "unauthorized"}})
    assert isinstance(play.rest[-1], effects.End)
    assert isinstance(play.rest[-1].error, errors.Unauthorized)


def test_state_invalidated_drops_the_token() -> None:
    """Close code 3014 (protocol §8)."""
    play = Play(token="old", has_provider=True).connect().do(effects.Lost(3014, "state invalidated"))
    assert play.wait(1).rest == [effects.AskToken(None)]


def test_a_call_is_answered_by_its_reply_or_its_error() -> None:
    """Replies are matched by id, in any order."""
    play = Play().connect()
    first = play.do(effects.Call(7, "publish", PublishRequest("news", {"a": 1}))).sent
    assert first == [{"id": 2, "publish": {"channel": "news", "data": {"a": 1}}}]
    play.do(effects.Call(8, "rpc", RpcRequest("sum")))
    play.hear({"id": 3, "error": {"code": 104, "message": "method not found"}}, {"id": 2, "publish": {}})
    refused, done = play.rest
    assert isinstance(refused, effects.Answer)
    assert refused.key == 8
    assert isinstance(refused.error, errors.CallError)
    assert refused.error.code == 104
    assert isinstance(done, effects.Answer)
    assert (done.key, done.error) == (7, None)


def test_a_call_before_the_connection_waits_for_it_five_seconds() -> None:
    """It is sent after the greeting, or answered with TimedOut; stopping answers it too."""
    play = Play().do(effects.Start()).do(effects.Call(1, "publish", PublishRequest("news", 1)))
    assert play.asked == []
    play.do(effects.Opened()).hear({"id": 1, "connect": {"client": "C"}})
    assert play.sent == [{"id": 2, "publish": {"channel": "news", "data": 1}}]

    late = Play().do(effects.Start()).do(effects.Call(1, "publish", PublishRequest("news", 1))).wait(5)
    assert [type(answer.error) for answer in late.rest if isinstance(answer, effects.Answer)] == [
        errors.TimedOut
    ]
    stopped = Play().do(effects.Start()).do(effects.Call(1, "publish", PublishRequest("news", 1)))
    answer = stopped.do(effects.Stop()).rest[1]
    assert isinstance(answer, effects.Answer)
    assert isinstance(answer.error, errors.Disconnected)


def test_a_call_under_way_is_told_when_the_connection_breaks_or_no_answer_comes() -> None:
    """It may or may not have been done, so it is never sent again by itself."""
    play = Play().connect().do(effects.Call(1, "publish", PublishRequest("news", 1)))
    [answer] = play.do(effects.Lost(1006, "gone")).rest
    assert isinstance(answer, effects.Answer)
    assert isinstance(answer.error, errors.ConnectionLost)
    assert play.reopen().sent == []

    slow = Play().connect().do(effects.Call(1, "publish", PublishRequest("news", 1))).wait(5)
    [answer] = slow.rest
    assert isinstance(answer, effects.Answer)
    assert isinstance(answer.error, errors.TimedOut)
    assert slow.hear({"id": 2, "publish": {}}).asked == []


def test_an_answer_without_its_result_is_an_error_of_that_call_only() -> None:
    """A server that forgets the method key breaks one call, not its caller."""
    play = Play().connect().do(effects.Call(1, "history", PublishRequest("news", 1))).hear({"id": 2})
    [answer] = play.rest
    assert isinstance(answer, effects.Answer)
    assert isinstance(answer.error, errors.BadProtocol)


@pytest.mark.parametrize("frame", ["<html>", "[]", '{"id":"one"}', '{"id":1,"connect":{}}', "\x00", "1"])
def test_a_server_of_another_protocol_ends_the_session(frame: str) -> None:
    """Coming back would not teach it the protocol."""
    play = Play().do(effects.Start()).do(effects.Opened()).do(effects.Received(frame))
    assert isinstance(play.rest[-1], effects.End)
    assert isinstance(play.rest[-1].error, errors.BadProtocol)


def test_stopping_hangs_up_and_is_final_and_quiet() -> None:
    """No error for an owner who wanted it; a later call is refused at once."""
    play = Play().connect().do(effects.Stop())
    assert play.asked == [
        effects.Hangup(1000, ""),
        effects.Tell(StateChanged(State.DISCONNECTED, 0, "closed")),
        effects.End(None),
    ]
    assert play.do(effects.Stop()).asked == []
    [answer] = play.do(effects.Call(1, "publish", PublishRequest("news", 1))).rest
    assert isinstance(answer, effects.Answer)
    assert isinstance(answer.error, errors.Disconnected)


def test_a_transport_that_is_refused_for_good_ends_the_session_with_that_error() -> None:
    """The shell knows: a 404 is no WebSocket endpoint."""
    error = errors.BadProtocol("HTTP 404")
    play = Play().do(effects.Start()).do(effects.Refused(error))
    assert play.rest == [effects.End(error)]
