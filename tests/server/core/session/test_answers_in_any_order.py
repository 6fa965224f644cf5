"""Hooks answer in any order, and the replies of a session keep the order that the protocol asks for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.server.core.playbook import OPEN, START, context
from tests.support.tokens import connection_token
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core import events
from tocsin_server.core.events import Approval, Authorize, Authorized, Execute, Timestamp
from tocsin_server.core.session import Session
from tocsin_server.core.tokens import SubscriptionClaims
from tocsin_server.errors import Refusal
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import (
    EMPTY,
    Command,
    PublishRequest,
    RefreshRequest,
    Reply,
    Request,
    RpcRequest,
    RpcResult,
    SubRefreshRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)

ASKED = (SubscribeRequest, PublishRequest, RpcRequest, RefreshRequest)
CONTEXT = replace(
    context(
        OPEN.model_copy(update={"allow_publish_for_client": True}),
        {"none": ChannelOptions()},
        channel_limit=8,
        expired_close_delay=1000,
    ),
    needs_authorization=lambda request: isinstance(request, ASKED),
    authorization_seconds=3.0,
)

requests = st.one_of(
    *[st.sampled_from([SubscribeRequest(channel) for channel in ("a", "b", "c", "none:a")])] * 3,
    st.just(PublishRequest("a", b"1")),  # type: ignore[arg-type]
    st.just(RpcRequest("any")),
    st.just(RefreshRequest(connection_token("ada"))),
    st.sampled_from([SubRefreshRequest("a"), SubRefreshRequest("b")]),
    st.sampled_from([UnsubscribeRequest("a"), UnsubscribeRequest("c")]),
)
answers = st.sampled_from(["admit", "admit", "refuse", "no opinion", "too late"])


@dataclass
class Conversation:
    """A session, what it has asked for, and the replies so far."""

    session: Session
    now: Timestamp = START
    asked: list[events.Effect] = field(default_factory=list)
    replies: list[int] = field(default_factory=list)

    def handle(self, event: events.Event) -> None:
        """Hand an event to the session, with the turns that it then needs."""
        self._take(self.session.handle(event, self.now))
        while self.session.needs_turn:
            self._take(self.session.handle(events.Turn(), self.now))

    def _take(self, effects: list[events.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, events.Send) and isinstance(effect.message, Reply):
                self.replies.append(effect.message.id)
            elif isinstance(effect, Authorize | Execute | events.OpenSubscriptions):
                self.asked.append(effect)

    def answer(self, effect: events.Effect, how: str) -> None:
        """Answer one question, or let its time pass: then all that wait are refused."""
        match effect:
            case events.OpenSubscriptions(plans):
                self.handle(events.SubscriptionsOpened({plan.channel: None for plan in plans}))
            case Execute(number):
                self.handle(events.Executed(number, EMPTY))
            case Authorize() if how == "too late":
                self.now = Timestamp(self.now.monotonic + 3, self.now.unix + 3)
                self.handle(events.DeadlineReached())
                self.handle(Authorized(effect.id, _admission(effect.request)))
            case Authorize():
                outcome = Refusal(1000, "no") if how == "refuse" else _admission(effect.request)
                self.handle(
                    Authorized(effect.id, Approval(effect.request) if how == "no opinion" else outcome)
                )


def _admission(request: Request) -> Any:
    match request:
        case RpcRequest():
            return RpcResult()
        case RefreshRequest():
            return Approval(request)
        case SubscribeRequest(channel):
            return Approval(request, SubscriptionClaims(channel=channel, sub="ada"))
    return Approval(request, is_permitted=True)


def blocks_of(commands: list[Request]) -> list[int]:
    """Number the commands so that only those with the same number may be answered in any order."""
    numbers: list[int] = []
    for index, command in enumerate(commands):
        follows = (
            index
            and isinstance(command, SubscribeRequest)
            and isinstance(commands[index - 1], SubscribeRequest)
        )
        numbers.append(numbers[-1] if follows else index)
    return numbers


@given(
    commands=st.lists(requests, max_size=14),
    frame_size=st.integers(1, 14),
    choices=st.lists(st.tuples(st.integers(0, 99), answers), min_size=60, max_size=60),
    are_interleaved=st.booleans(),
)
def test_replies_keep_the_order_of_their_commands(
    commands: list[Request], frame_size: int, choices: list[tuple[int, str]], are_interleaved: bool
) -> None:
    """Only subscribe commands that follow each other may overtake. Each command has exactly one reply."""
    talk = Conversation(Session(CONTEXT, "c1", START))
    connect = b'{"id":1,"connect":{"token":"%s"}}' % connection_token("ada").encode()
    talk.handle(events.Received(JSON.decode_commands(connect)))
    assert talk.replies == [1]
    left = iter(choices)

    def answer_some(count: int) -> None:
        for _ in range(count):
            if talk.asked and (choice := next(left, None)) is not None:
                talk.answer(talk.asked.pop(choice[0] % len(talk.asked)), choice[1])

    for start in range(0, len(commands), frame_size):
        frame = [
            _command(number, request)
            for number, request in enumerate(commands[start : start + frame_size], start + 2)
        ]
        talk.handle(events.Received(frame))
        answer_some(2 if are_interleaved else 0)
    answer_some(60)
    while talk.asked:
        talk.answer(talk.asked.pop(0), "admit")
    if talk.session.is_closed:
        raise AssertionError("nothing here breaks the protocol")
    replies = talk.replies[1:]
    assert sorted(replies) == list(range(2, len(commands) + 2))
    order = [blocks_of(commands)[number - 2] for number in replies]
    assert order == sorted(order)


def _command(number: int, request: Request) -> Command:
    name = {
        SubscribeRequest: "subscribe",
        PublishRequest: "publish",
        RpcRequest: "rpc",
        RefreshRequest: "refresh",
        SubRefreshRequest: "sub_refresh",
        UnsubscribeRequest: "unsubscribe",
    }[type(request)]
    return Command(number, **{name: request})  # type: ignore[arg-type]
