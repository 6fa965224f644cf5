"""The connections of a session, as playbooks."""

import pytest

from tests.client.session.playbook import Playbook
from tocsin import errors
from tocsin.models import State, StateChanged
from tocsin.protocol.messages import PublishRequest, RpcRequest
from tocsin.session import effects, events


def test_starting_opens_a_transport_and_sends_connect() -> None:
    """The connect command, with the token, is the first message on every transport."""
    playbook = Playbook(token="T", data={"a": 1}).handle(events.Start())
    assert playbook.effects == [
        effects.Notify(StateChanged(State.CONNECTING, 0, "connect called")),
        effects.OpenTransport(),
    ]
    playbook.handle(events.TransportOpened())
    assert playbook.sent == [{"id": 1, "connect": {"token": "T", "data": {"a": 1}, "name": "tocsin"}}]
    playbook.receive({"id": 1, "connect": {"client": "C"}})
    assert playbook.effects == [effects.Notify(StateChanged(State.CONNECTED, 0, "connected"))]
    assert playbook.session.deadline is None


def test_a_lost_connection_is_opened_again_after_the_backoff() -> None:
    """The backoff is half a second at least, and command ids continue."""
    playbook = Playbook().connect().handle(events.TransportLost(3001, "shutdown"))
    assert playbook.effects == [effects.Notify(StateChanged(State.CONNECTING, 3001, "shutdown"))]
    assert playbook.session.deadline == playbook.now + 0.5
    assert playbook.wait(0.4).effects == []
    assert playbook.wait(0.2).effects == [effects.OpenTransport()]
    assert playbook.handle(events.TransportOpened()).sent[0]["id"] == 2


def test_each_failure_in_a_row_lengthens_the_backoff_and_a_steady_connection_resets_it() -> None:
    """0.5 s plus a random part of a ceiling that doubles, 20 s at most (the random number is nearly 1)."""
    playbook = Playbook()
    playbook.session._random = lambda: 0.999
    playbook.handle(events.Start())
    pauses = []
    for _ in range(8):
        playbook.handle(events.TransportLost(0, "refused"))
        assert playbook.session.deadline is not None
        pauses.append(round(playbook.session.deadline - playbook.now, 1))
        playbook.wait(pauses[-1] + 0.1)
    assert pauses == [1.0, 1.5, 2.5, 4.5, 8.5, 16.5, 20.0, 20.0]
    playbook.handle(events.TransportOpened())
    playbook.receive({"id": playbook.sent[0]["id"], "connect": {"client": "C"}})
    playbook.wait(60).handle(events.TransportLost(3001, "shutdown"))
    assert playbook.session.deadline == pytest.approx(playbook.now + 1.0, abs=0.01)


@pytest.mark.parametrize("code", [1000, 1006, 3000, 3001, 3005, 3012, 3499, 4000, 4499, 5000])
def test_the_client_reconnects_after_codes_of_the_reconnect_ranges(code: int) -> None:
    """Codes below 3500, from 4000 to 4499 and from 5000 on (protocol §8)."""
    assert Playbook().connect().handle(events.TransportLost(code, "why")).notified == [
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
    """3500 to 3999, 4500 to 4999, and 1009. Each has its exception, and no deadline is left."""
    playbook = Playbook().connect().handle(events.TransportLost(code, "why"))
    assert playbook.notified == [StateChanged(State.DISCONNECTED, code, "why")]
    [end] = playbook.other_effects
    assert isinstance(end, effects.SessionEnded)
    assert type(end.error) is error
    assert playbook.session.deadline is None
    assert playbook.wait(100).effects == []


def test_a_disconnect_push_has_the_effect_of_a_close_code() -> None:
    """Other transports of this protocol send such a push. The client then closes the transport."""
    playbook = Playbook().connect().receive({"push": {"disconnect": {"code": 3001, "reason": "shutdown"}}})
    assert playbook.other_effects == [effects.CloseTransport(1000, "")]
    assert playbook.notified == [StateChanged(State.CONNECTING, 3001, "shutdown")]


def test_pings_are_answered_only_if_the_server_requests_pongs() -> None:
    """Any other pong would be a bad request (protocol §6)."""
    assert Playbook().connect(ping=25, pong=True).receive({}).effects == [effects.Send("{}")]
    assert Playbook().connect(ping=25).receive({}).effects == []


def test_a_silent_server_is_disconnected_ten_seconds_after_a_ping_was_due() -> None:
    """Any message extends the deadline."""
    playbook = Playbook().connect(ping=25, pong=True).wait(30).receive({}).wait(34)
    assert playbook.effects == []
    playbook.wait(1)
    assert playbook.effects == [
        effects.CloseTransport(1000, ""),
        effects.Notify(StateChanged(State.CONNECTING, 0, "no ping from the server")),
    ]


def test_a_connect_without_a_reply_times_out_after_five_seconds() -> None:
    """The server accepts the transport and sends no reply."""
    playbook = Playbook().handle(events.Start()).handle(events.TransportOpened()).wait(4.9)
    assert playbook.effects == []
    assert playbook.wait(0.2).other_effects == [effects.CloseTransport(1000, "")]


def test_a_temporary_connect_error_is_tried_again_and_another_is_final() -> None:
    """Error replies to connect (protocol §7)."""
    playbook = Playbook().handle(events.Start()).handle(events.TransportOpened())
    playbook.receive({"id": 1, "error": {"code": 100, "message": "internal server error", "temporary": True}})
    assert playbook.notified == [StateChanged(State.CONNECTING, 100, "internal server error")]
    playbook.wait(1).handle(events.TransportOpened()).receive(
        {"id": 2, "error": {"code": 103, "message": "permission denied"}}
    )
    assert playbook.notified == [StateChanged(State.DISCONNECTED, 103, "permission denied")]


def test_the_provider_is_called_before_opening_and_again_when_the_token_expired() -> None:
    """Error 109 drops the token. A client without a provider has no other token."""
    playbook = Playbook(has_provider=True).handle(events.Start())
    assert playbook.other_effects == [effects.FetchToken(None)]
    assert playbook.handle(events.TokenReceived(None, "A")).effects == [effects.OpenTransport()]
    assert playbook.handle(events.TransportOpened()).sent[0]["connect"]["token"] == "A"
    playbook.receive({"id": 1, "error": {"code": 109, "message": "token expired"}})
    assert playbook.wait(1).other_effects == [effects.FetchToken(None)]
    assert (
        playbook.handle(events.TokenReceived(None, "B"))
        .handle(events.TransportOpened())
        .sent[0]["connect"]["token"]
        == "B"
    )

    without_provider = Playbook(token="A").handle(events.Start()).handle(events.TransportOpened())
    without_provider.receive({"id": 1, "error": {"code": 109, "message": "token expired"}})
    assert isinstance(without_provider.other_effects[-1], effects.SessionEnded)
    assert isinstance(without_provider.other_effects[-1].error, errors.Unauthorized)


def test_a_failing_provider_is_called_again_and_a_final_failure_ends_the_session() -> None:
    """`Unauthorized` and an empty token are final."""
    playbook = (
        Playbook(has_provider=True)
        .handle(events.Start())
        .handle(events.TokenFailed(None, "503", is_final=False))
    )
    assert playbook.notified == [StateChanged(State.CONNECTING, 0, "get_token failed: 503")]
    assert playbook.wait(1).other_effects == [effects.FetchToken(None)]
    playbook.handle(events.TokenFailed(None, "no such user", is_final=True))
    assert isinstance(playbook.other_effects[-1], effects.SessionEnded)
    empty = Playbook(has_provider=True).handle(events.Start()).handle(events.TokenReceived(None, ""))
    assert isinstance(empty.other_effects[-1], effects.SessionEnded)


def test_an_expiring_connection_is_refreshed_without_a_break() -> None:
    """At the ttl the provider is called, then `refresh` is sent, and the new ttl counts."""
    playbook = Playbook(has_provider=True).handle(events.Start()).handle(events.TokenReceived(None, "A"))
    playbook.handle(events.TransportOpened()).receive(
        {"id": 1, "connect": {"client": "C", "expires": True, "ttl": 60}}
    )
    assert playbook.wait(59).effects == []
    assert playbook.wait(1).effects == [effects.FetchToken(None)]
    assert playbook.handle(events.TokenReceived(None, "B")).sent == [{"id": 2, "refresh": {"token": "B"}}]
    assert playbook.receive({"id": 2, "refresh": {"expires": True, "ttl": 30}}).effects == []
    assert playbook.wait(30).effects == [effects.FetchToken(None)]


def test_a_refresh_that_fails_temporarily_is_tried_again_on_the_same_connection() -> None:
    """After a provider's failure, a timeout and a temporary error. Another error is final."""
    playbook = Playbook(has_provider=True).handle(events.Start()).handle(events.TokenReceived(None, "A"))
    playbook.handle(events.TransportOpened()).receive(
        {"id": 1, "connect": {"client": "C", "expires": True, "ttl": 60}}
    )
    playbook.wait(60).handle(events.TokenFailed(None, "503", is_final=False))
    assert playbook.wait(10).effects == [effects.FetchToken(None)]
    playbook.handle(events.TokenReceived(None, "B"))
    assert playbook.wait(5).effects == []
    assert playbook.wait(10).effects == [effects.FetchToken(None)]
    number = playbook.handle(events.TokenReceived(None, "C")).sent[0]["id"]
    playbook.receive({"id": number, "error": {"code": 101, "message": "unauthorized"}})
    assert isinstance(playbook.other_effects[-1], effects.SessionEnded)
    assert isinstance(playbook.other_effects[-1].error, errors.Unauthorized)


def test_state_invalidated_drops_the_token() -> None:
    """Close code 3014 (protocol §8)."""
    playbook = (
        Playbook(token="old", has_provider=True)
        .connect()
        .handle(events.TransportLost(3014, "state invalidated"))
    )
    assert playbook.wait(1).other_effects == [effects.FetchToken(None)]


def test_a_command_finishes_with_its_reply_or_its_error() -> None:
    """Replies are matched by id, in any order."""
    playbook = Playbook().connect()
    first = playbook.handle(events.IssueCommand(7, "publish", PublishRequest("news", {"a": 1}))).sent
    assert first == [{"id": 2, "publish": {"channel": "news", "data": {"a": 1}}}]
    playbook.handle(events.IssueCommand(8, "rpc", RpcRequest("sum")))
    playbook.receive(
        {"id": 3, "error": {"code": 104, "message": "method not found"}}, {"id": 2, "publish": {}}
    )
    refused, done = playbook.other_effects
    assert isinstance(refused, effects.CommandFinished)
    assert refused.key == 8
    assert isinstance(refused.error, errors.CallError)
    assert refused.error.code == 104
    assert isinstance(done, effects.CommandFinished)
    assert (done.key, done.error) == (7, None)


def test_a_command_before_the_connection_waits_for_it_five_seconds() -> None:
    """It is sent after the connect reply, or fails with `TimedOut`, or with `Disconnected` on stopping."""
    playbook = (
        Playbook().handle(events.Start()).handle(events.IssueCommand(1, "publish", PublishRequest("news", 1)))
    )
    assert playbook.effects == []
    playbook.handle(events.TransportOpened()).receive({"id": 1, "connect": {"client": "C"}})
    assert playbook.sent == [{"id": 2, "publish": {"channel": "news", "data": 1}}]

    late = (
        Playbook()
        .handle(events.Start())
        .handle(events.IssueCommand(1, "publish", PublishRequest("news", 1)))
        .wait(5)
    )
    assert [
        type(finished.error)
        for finished in late.other_effects
        if isinstance(finished, effects.CommandFinished)
    ] == [errors.TimedOut]
    stopped = (
        Playbook().handle(events.Start()).handle(events.IssueCommand(1, "publish", PublishRequest("news", 1)))
    )
    finished = stopped.handle(events.Stop()).other_effects[1]
    assert isinstance(finished, effects.CommandFinished)
    assert isinstance(finished.error, errors.Disconnected)


def test_a_command_in_flight_fails_when_the_connection_breaks_or_no_reply_arrives() -> None:
    """The server may have run it, so the session does not send it again."""
    playbook = Playbook().connect().handle(events.IssueCommand(1, "publish", PublishRequest("news", 1)))
    [finished] = playbook.handle(events.TransportLost(1006, "gone")).other_effects
    assert isinstance(finished, effects.CommandFinished)
    assert isinstance(finished.error, errors.ConnectionLost)
    assert playbook.reconnect().sent == []

    slow = Playbook().connect().handle(events.IssueCommand(1, "publish", PublishRequest("news", 1))).wait(5)
    [finished] = slow.other_effects
    assert isinstance(finished, effects.CommandFinished)
    assert isinstance(finished.error, errors.TimedOut)
    assert slow.receive({"id": 2, "publish": {}}).effects == []


def test_a_reply_without_a_result_is_an_error_of_that_command_only() -> None:
    """The session goes on."""
    playbook = (
        Playbook()
        .connect()
        .handle(events.IssueCommand(1, "history", PublishRequest("news", 1)))
        .receive({"id": 2})
    )
    [finished] = playbook.other_effects
    assert isinstance(finished, effects.CommandFinished)
    assert isinstance(finished.error, errors.BadProtocol)


@pytest.mark.parametrize("frame", ["<html>", "[]", '{"id":"one"}', '{"id":1,"connect":{}}', "\x00", "1"])
def test_a_server_of_another_protocol_ends_the_session(frame: str) -> None:
    """Another attempt would not help."""
    playbook = (
        Playbook().handle(events.Start()).handle(events.TransportOpened()).handle(events.Received(frame))
    )
    assert isinstance(playbook.other_effects[-1], effects.SessionEnded)
    assert isinstance(playbook.other_effects[-1].error, errors.BadProtocol)


def test_stopping_closes_the_transport_and_ends_without_an_error() -> None:
    """A later command fails at once."""
    playbook = Playbook().connect().handle(events.Stop())
    assert playbook.effects == [
        effects.CloseTransport(1000, ""),
        effects.Notify(StateChanged(State.DISCONNECTED, 0, "closed")),
        effects.SessionEnded(None),
    ]
    assert playbook.handle(events.Stop()).effects == []
    [finished] = playbook.handle(events.IssueCommand(1, "publish", PublishRequest("news", 1))).other_effects
    assert isinstance(finished, effects.CommandFinished)
    assert isinstance(finished.error, errors.Disconnected)


def test_a_transport_that_is_refused_for_good_ends_the_session_with_that_error() -> None:
    """For example, HTTP 404 means that there is no WebSocket endpoint."""
    error = errors.BadProtocol("HTTP 404")
    playbook = Playbook().handle(events.Start()).handle(events.TransportRefused(error))
    assert playbook.other_effects == [effects.SessionEnded(error)]
