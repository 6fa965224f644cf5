"""Playbooks of a session and a server that tells it anything: it acts seldom, and never raises."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.session.playbook import HISTORY, Playbook
from tocsin import errors
from tocsin.models import State, StateChanged
from tocsin.protocol.messages import PublishRequest
from tocsin.session import effects, events
from tocsin.session.session import Session
from tocsin.session.subscriptions import LONGEST_NAME, SUBSCRIPTION_LIMIT

Json = dict[str, Any]
HUGE = 10**400
TEN_MINUTES = 600.0
TOO_MANY = {"code": 111, "message": "too many requests", "temporary": True}


class FastServer:
    """A server that answers at once. It counts what the session does within ten minutes of virtual time."""

    def __init__(self, *, answers: dict[str, Json], close_code: int | None = None, channel: str = "") -> None:
        self.playbook = Playbook(has_provider=True)
        # the mean of all random numbers: 0 would make every pause its shortest
        self.playbook.session = Session(random=lambda: 0.5, has_provider=True)
        self.counts = {"opened": 0, "tokens": 0, "sent": 0}
        self._answers = answers
        self._close_code = close_code
        self._channel = channel

    def run(self) -> "FastServer":
        playbook = self.playbook
        until = playbook.now + TEN_MINUTES
        self._carry_out(playbook.handle(events.Start()).effects)
        if self._channel:
            self._carry_out(playbook.subscribe(self._channel, has_provider=True).effects)
        while playbook.session.deadline is not None and playbook.session.deadline <= until:
            playbook.now = max(playbook.now, playbook.session.deadline)
            self._carry_out(playbook.handle(events.Timeout()).effects)
        return self

    def _carry_out(self, produced: list[effects.Effect]) -> None:
        for effect in produced:
            assert sum(self.counts.values()) < 3000, self.counts
            match effect:
                case effects.OpenTransport():
                    self.counts["opened"] += 1
                    self._carry_out(self.playbook.handle(events.TransportOpened()).effects)
                case effects.FetchToken(channel):
                    self.counts["tokens"] += 1
                    self._carry_out(self.playbook.handle(events.TokenReceived(channel, "T")).effects)
                case effects.Send(text):
                    for line in text.split("\n"):
                        self.counts["sent"] += 1
                        self._answer(json.loads(line))

    def _answer(self, command: Json) -> None:
        for method, answer in self._answers.items():
            if method in command:
                reply = {"id": command["id"], **answer}
                self._carry_out(self.playbook.receive(reply).effects)
                if method == "connect" and self._close_code is not None:
                    self._carry_out(self.playbook.handle(events.TransportLost(self._close_code, "")).effects)


@pytest.mark.parametrize("ttl", [0, -1, -HUGE, 1])
def test_a_server_that_expires_a_token_at_once_is_given_few_new_ones(ttl: int) -> None:
    """For a ttl of 0: after 1, 2, 4, 8, 16, 20, 20 … seconds. For a ttl of 1: each second."""
    answers: dict[str, Json] = {
        "connect": {"connect": {"client": "C", "expires": True, "ttl": ttl}},
        "refresh": {"refresh": {"expires": True, "ttl": ttl}},
    }
    tokens = FastServer(answers=answers).run().counts["tokens"]
    assert tokens < (40 if ttl <= 0 else 602)


def test_a_server_that_expires_a_subscription_at_once_is_given_few_new_tokens() -> None:
    answers = {
        "connect": {"connect": {"client": "C"}},
        "subscribe": {"subscribe": {**HISTORY, "expires": True, "ttl": 0}},
        "sub_refresh": {"sub_refresh": {"expires": True, "ttl": 0}},
    }
    counts = FastServer(answers=answers, channel="news").run().counts
    assert counts["opened"] == 1
    assert 20 < counts["tokens"] < 40


@pytest.mark.parametrize("code", [3000, 3001, 3005, 3012, 3013, 3014, 4000, 1006])
def test_a_server_that_closes_each_connection_at_once_is_opened_seldom(code: int) -> None:
    """The backoff is reset only by a connection that has lasted: in the end, one attempt in 10 s."""
    counts = FastServer(answers={"connect": {"connect": {"client": "C"}}}, close_code=code).run().counts
    assert 40 < counts["opened"] < 80
    assert counts["tokens"] <= counts["opened"]


@pytest.mark.parametrize("error", [TOO_MANY, {"code": 109, "message": "token expired"}])
@pytest.mark.parametrize("method", ["connect", "subscribe"])
def test_a_server_that_refuses_for_now_is_asked_seldom(method: str, error: Json) -> None:
    answers: dict[str, Json] = {"connect": {"connect": {"client": "C"}}, method: {"error": error}}
    counts = FastServer(answers=answers, channel="news").run().counts
    assert 40 < counts["sent"] < 90
    assert counts["tokens"] < 90


@pytest.mark.parametrize("code", [2500, 2501, 2502])
def test_a_server_that_ends_each_subscription_at_once_is_asked_seldom(code: int) -> None:
    playbook = Playbook().connect()
    playbook.session._subscriptions._random = lambda: 0.5
    playbook.subscribe()
    subscribed = 0
    until = playbook.now + TEN_MINUTES
    while playbook.now < until:
        subscribed += bool(playbook.sent)
        assert subscribed < 3000
        if playbook.sent:
            playbook.receive({"id": playbook.sent[0]["id"], "subscribe": HISTORY})
            playbook.receive({"push": {"channel": "news", "unsubscribe": {"code": code, "reason": "r"}}})
        else:
            deadline = playbook.session.deadline
            assert deadline is not None
            playbook.now = deadline
            playbook.handle(events.Timeout())
    assert 40 < subscribed < 80


@pytest.mark.parametrize("ping", [0, -1, -HUGE])
def test_a_server_without_a_possible_ping_interval_has_no_ping_deadline(ping: int) -> None:
    assert Playbook().connect(ping=ping, pong=True).session.deadline is None


def test_huge_numbers_of_seconds_are_cut() -> None:
    """A day between two pings, 30 days until the next token."""
    playbook = Playbook(has_provider=True).handle(events.Start())
    playbook.handle(events.TokenReceived(None, "T")).handle(events.TransportOpened())
    result = {"client": "C", "ping": HUGE, "expires": True, "ttl": HUGE}
    playbook.receive({"id": 1, "connect": result})
    assert playbook.session.deadline == playbook.now + 86_400 + 10
    assert playbook.session._deadlines["refresh"] == playbook.now + 30 * 86_400


def test_many_pings_in_one_message_are_answered_by_one_pong() -> None:
    playbook = Playbook().connect(ping=25, pong=True)
    assert playbook.receive(*[{}] * 10_000).effects == [effects.Send("{}")]
    assert playbook.receive({"id": 99}).effects == []


@pytest.mark.parametrize(
    "reply",
    [
        {"push": {"channel": "news", "pub": {"data": 1, "offset": -1}}},
        {"push": {"channel": "news", "pub": {"data": 1, "offset": 2**63}}},
        {"push": {"channel": "news", "pub": {"data": 1, "offset": HUGE}}},
        {"push": {"channel": "news", "pub": {"data": 1, "offset": "1"}}},
        {"push": {"channel": "news", "pub": {"data": 1, "offset": 1.5}}},
        {"push": {"channel": "news", "pub": {"data": 1, "tags": {"a": 1}}}},
        {"push": {"channel": "a", "subscribe": {"recoverable": True, "epoch": 1}}},
        {"push": {"channel": "a", "subscribe": {"recoverable": True, "offset": -1}}},
        {"push": {"channel": ["a"], "subscribe": {}}},
        {"push": {"channel": "n" * (LONGEST_NAME + 1), "subscribe": {}}},
        {"id": "1"},
        {"id": 1, "error": "no"},
    ],
)
def test_a_reply_with_a_wrong_type_or_range_ends_the_session_with_its_error(reply: Json) -> None:
    playbook = Playbook().connect().go_live().receive(reply)
    [end] = [effect for effect in playbook.effects if isinstance(effect, effects.SessionEnded)]
    assert isinstance(end.error, errors.BadProtocol)
    assert playbook.notified[-1].state is State.DISCONNECTED


def test_endless_server_side_subscriptions_end_the_session_at_the_limit() -> None:
    """10,000 are kept."""
    playbook = Playbook().connect()
    pushes = [{"push": {"channel": str(n), "subscribe": {}}} for n in range(SUBSCRIPTION_LIMIT)]
    assert len(playbook.receive(*pushes).notified) == SUBSCRIPTION_LIMIT
    playbook.receive({"push": {"channel": "one more", "subscribe": {}}})
    [end] = [effect for effect in playbook.effects if isinstance(effect, effects.SessionEnded)]
    assert "too many channels" in str(end.error)


def test_replies_without_a_command_have_no_effect() -> None:
    playbook = Playbook().connect()
    assert playbook.receive({"id": 7, "publish": {}}, {"id": 1, "connect": {"client": "X"}}).effects == []


# --- too many requests


def publish(playbook: Playbook) -> int:
    """Publish, and return the id of the command."""
    playbook.handle(events.IssueCommand(1, "publish", PublishRequest("news", 1)))
    number: int = playbook.sent[0]["id"]
    return number


def test_a_command_that_is_refused_for_now_is_sent_again() -> None:
    """After half a second and a random part. The caller gets the final result only."""
    playbook = Playbook().connect()
    playbook.receive({"id": publish(playbook), "error": TOO_MANY})
    assert playbook.effects == []
    playbook.wait(0.5)
    assert [list(one) for one in playbook.sent] == [["id", "publish"]]
    playbook.receive({"id": playbook.sent[0]["id"], "publish": {}})
    [done] = playbook.effects
    assert isinstance(done, effects.CommandFinished)
    assert (done.key, done.error) == (1, None)


def test_a_command_that_is_refused_for_five_seconds_fails_with_the_error_of_the_server() -> None:
    playbook = Playbook().connect()
    number, attempts, began = publish(playbook), 1, playbook.now
    while not playbook.receive({"id": number, "error": TOO_MANY}).effects:
        number = playbook.wait(0.5).sent[0]["id"]
        attempts += 1
    [done] = playbook.effects
    assert isinstance(done, effects.CommandFinished)
    assert isinstance(done.error, errors.CallError)
    assert done.error.code == 111
    assert (attempts, playbook.now - began) == (10, 4.5)


def test_a_command_that_is_refused_for_now_outlives_the_connection() -> None:
    """The server has not run it, so that it may run on the next connection."""
    playbook = Playbook().connect()
    playbook.receive({"id": publish(playbook), "error": TOO_MANY})
    playbook.handle(events.TransportLost(3001, "shutdown"))
    assert not [effect for effect in playbook.effects if isinstance(effect, effects.CommandFinished)]
    playbook.wait(1).handle(events.TransportOpened())
    playbook.receive({"id": playbook.sent[0]["id"], "connect": {"client": "D"}})
    assert [list(one) for one in playbook.sent] == [["id", "publish"]]


def test_a_command_that_was_refused_fails_when_the_client_is_closed() -> None:
    playbook = Playbook().connect()
    playbook.receive({"id": publish(playbook), "error": TOO_MANY})
    playbook.handle(events.Stop())
    assert [type(effect) for effect in playbook.other_effects] == [
        effects.CloseTransport,
        effects.CommandFinished,
        effects.SessionEnded,
    ]


@pytest.mark.parametrize("code", [3013, 3001])
def test_a_close_for_too_many_requests_is_followed_by_a_longer_wait(code: int) -> None:
    """Up to 4.5 s instead of 1 s, also after a connection that has lasted."""
    playbook = Playbook().connect().wait(60)
    playbook.session._random = lambda: 0.999
    playbook.handle(events.TransportLost(code, "why"))
    assert playbook.session.deadline is not None
    assert playbook.session.deadline - playbook.now == pytest.approx(4.5 if code == 3013 else 1.0, abs=0.01)


def test_a_handshake_that_is_refused_for_now_is_repeated_after_its_retry_after() -> None:
    playbook = Playbook().handle(events.Start()).handle(events.TransportLost(0, "HTTP 503", 30.0))
    assert playbook.notified == [StateChanged(State.CONNECTING, 0, "HTTP 503")]
    assert playbook.session.deadline == playbook.now + 30.5


# --- anything


numbers = st.one_of(st.integers(), st.just(HUGE), st.floats(), st.text(max_size=3), st.booleans(), st.none())
values = st.recursive(numbers, lambda inner: st.lists(inner, max_size=2), max_leaves=3)


def fields(*names: str) -> st.SearchStrategy[Json]:
    return st.dictionaries(st.sampled_from(names), values, max_size=3)


results = fields("client", "ping", "pong", "expires", "ttl", "offset", "epoch", "recoverable", "recovered")
pushes = st.fixed_dictionaries(
    {"channel": st.sampled_from(["news", "a"])},
    optional={
        "pub": fields("data", "offset", "tags", "time"),
        "subscribe": results,
        "unsubscribe": fields("code", "reason"),
        "disconnect": fields("code", "reason"),
    },
)
replies = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers(0, 4),
        "error": fields("code", "message", "temporary"),
        "connect": results,
        "subscribe": results,
        "push": pushes,
    },
)


@given(st.lists(replies, max_size=6))
def test_no_reply_makes_a_session_raise_or_act_at_once_again(given: list[Json]) -> None:
    """After all of them, each wait for a deadline is longer than a tenth of a second."""
    playbook = Playbook(token="T").connect(ping=25).subscribe()
    for reply in given:
        playbook.handle(events.Received(json.dumps(reply)))
    for _ in range(10):
        deadline = playbook.session.deadline
        if deadline is None:
            break
        assert deadline - playbook.now > 0.1
        playbook.now = deadline
        playbook.handle(events.Timeout())
