"""Playbooks: the events that a session handles, and exactly the effects that it must return.

    playbook >> {"id": 2, "subscribe": {"channel": "news"}} << [Opening("news")]
    playbook >> opened("news") << [{"id": 2, "subscribe": {}}, GoLive("news")]

Messages are compared as a client would parse them; other effects by their relevant fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from msgspec import Raw

from tests.support.tokens import SECRET, connection_token
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.limit_options import LimitOptions
from tocsin_server.core import events
from tocsin_server.core.channel_names import ChannelRules
from tocsin_server.core.client_limits import ClientLimits
from tocsin_server.core.events import Effect, Event, SubscriptionsFailed, SubscriptionsOpened, Timestamp
from tocsin_server.core.positions import History
from tocsin_server.core.session import Session
from tocsin_server.core.session_context import SessionContext
from tocsin_server.core.tokens import TokenVerifier
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import Position, Publication

START = Timestamp(monotonic=5_000.0, unix=1_900_000_000.0)
"""The time at which every playbook begins. It differs from both real clocks."""

EPOCH = "abcdefgh"
"""The epoch of every history."""

OPEN = ChannelOptions(allow_subscribe_for_client=True, allow_subscribe_for_anonymous=True)
"""A channel to which every user may subscribe. It has no other feature."""

WITH_HISTORY = ChannelOptions(
    allow_subscribe_for_client=True, history_size=10, history_ttl=60, force_recovery=True, allow_recovery=True
)
"""A channel with history, from which every subscription recovers."""


@dataclass(frozen=True)
class Wait:
    """So many seconds pass; the session handles each deadline that comes meanwhile."""

    seconds: float


class Opening:
    """An `OpenSubscriptions` for these channels, in this order."""

    def __init__(self, *channels: str) -> None:
        self.channels = channels

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opening) and self.channels == other.channels

    def __hash__(self) -> int:
        return hash(self.channels)

    def __repr__(self) -> str:
        return f"Opening{self.channels}"


@dataclass(frozen=True)
class Closing:
    """A `CloseSubscription` of a channel; `was_announced` if a join was published before."""

    channel: str
    was_announced: bool = False


@dataclass(frozen=True)
class Joining:
    """A `PublishJoin` to a channel."""

    channel: str


Input = Event | Wait | bytes | Mapping[str, Any] | Sequence[Mapping[str, Any]]
Expected = dict[str, Any] | Effect | Opening | Closing | Joining


def opened(*channels: str, **histories: History) -> SubscriptionsOpened:
    """Return the event that subscriptions are open: to `channels` without history, to others with theirs."""
    return SubscriptionsOpened({**dict.fromkeys(channels), **histories})


def opening_failed(*channels: str) -> SubscriptionsFailed:
    """Return the event that the engine failed to open subscriptions to `channels`."""
    return SubscriptionsFailed(channels)


class Playbook:
    """A session, its clock, and the effects of the latest input, with all the turns that it needs."""

    takes_turns = True

    def __init__(self, session: Session, now: Timestamp = START) -> None:
        self.session = session
        self.now = now
        self.effects: list[Effect] = []

    def __rshift__(self, input_: Input) -> Playbook:
        if isinstance(input_, Wait):
            self.effects = self._wait(input_.seconds)
        else:
            self.effects = self.session.handle(_event(input_), self.now)
            while self.takes_turns and self.session.needs_turn:
                self.effects += self.session.handle(events.Turn(), self.now)
        return self

    def __lshift__(self, expected: Sequence[Expected]) -> Playbook:
        seen = [_seen(effect) for effect in self.effects]
        assert seen == list(expected)
        return self

    def _wait(self, seconds: float) -> list[Effect]:
        end = Timestamp(self.now.monotonic + seconds, self.now.unix + seconds)
        effects: list[Effect] = []
        while (deadline := self.session.deadline) is not None and deadline <= end.monotonic:
            self.now = Timestamp(deadline, self.now.unix + deadline - self.now.monotonic)
            effects += self.session.handle(events.DeadlineReached(), self.now)
            assert self.session.deadline != deadline
        self.now = end
        return effects


def _event(input_: Event | bytes | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Event:
    if isinstance(input_, Mapping):
        input_ = [input_]
    if isinstance(input_, Sequence) and not isinstance(input_, bytes):
        input_ = b"\n".join(json.dumps(command).encode() for command in input_)
    return events.Received(JSON.decode_commands(input_)) if isinstance(input_, bytes) else input_


def _seen(effect: Effect) -> Expected:
    match effect:
        case events.Send(message):
            sent = json.loads(JSON.encode(message))
            assert isinstance(sent, dict)
            return sent
        case events.OpenSubscriptions(entries):
            return Opening(*(entry.channel for entry in entries))
        case events.CloseSubscription(channel, _, _, was_announced):
            return Closing(channel, was_announced)
        case events.PublishJoin(channel, _):
            return Joining(channel)
        case _:
            return effect


def context(
    channels: ChannelOptions = OPEN,
    namespaces: Mapping[str, ChannelOptions] | None = None,
    *,
    rpc_methods: frozenset[str] = frozenset(),
    connections: int = 0,
    reports: list[tuple[str, str]] | None = None,
    limits: Mapping[str, Any] | None = None,
    reached: list[str] | None = None,
    subscribers: Mapping[str, int] | None = None,
    **client: Any,
) -> SessionContext:
    """Return what a node with these options gives its sessions."""

    def report_refusal(_client: str, subject: str, reason: str) -> None:
        if reports is not None:
            reports.append((subject, reason))

    def report_limit(_client: str, limit: str) -> None:
        if reached is not None:
            reached.append(limit)

    options = ClientOptions(**{"token_hmac_secret": SECRET, "token_leeway": 0, **client})
    return SessionContext(
        options=options,
        rules=ChannelRules(
            channels,
            namespaces or {},
            options.channel_length_limit,
            options.personal_channel_namespace if options.personal_channel else None,
        ),
        tokens=TokenVerifier(options),
        node="n1",
        version="1.0",
        connections_of=lambda _user: connections,
        rpc_methods=rpc_methods,
        report_refusal=report_refusal,
        report_limit=report_limit,
        channels={name: CountedChannel(count) for name, count in (subscribers or {}).items()},
        limits=ClientLimits(options, LimitOptions(**(limits or {}))),
    )


class CountedChannel(NamedTuple):
    """A channel with so many subscribers."""

    subscriber_count: int


def new_connection(session_context: SessionContext | None = None, **kind: Any) -> Playbook:
    """Return a connection that has sent nothing yet."""
    return Playbook(Session(session_context or context(), "c1", START, **kind))


def connect_reply(command_id: int = 1, **more: Any) -> dict[str, Any]:
    """Return the connect reply."""
    result = {"client": "c1", "version": "1.0", "ping": 25, "pong": True, "node": "n1", **more}
    return {"id": command_id, "connect": {key: value for key, value in result.items() if value is not None}}


def connected(session_context: SessionContext | None = None, user: str = "ada", **claims: Any) -> Playbook:
    """Return a connection of `user` that has connected and has no subscriptions."""
    playbook = new_connection(session_context)
    playbook >> {"id": 1, "connect": {"token": connection_token(user, **claims)}}
    assert playbook.session.live_channels == []
    assert playbook.session.user == user
    return playbook


def subscribed(
    session_context: SessionContext | None = None, channel: str = "news", **claims: Any
) -> Playbook:
    """Return a connection that has connected and subscribed to `channel`."""
    playbook = connected(session_context, **claims)
    playbook >> {"id": 2, "subscribe": {"channel": channel}} << [Opening(channel)]
    playbook >> opened(channel)
    assert playbook.session.live_channels == [channel]
    return playbook


def subscribed_by_token(
    session_context: SessionContext | None = None, channel: str = "news", **claims: Any
) -> Playbook:
    """Return a connection whose token subscribed it to `channel`."""
    playbook = new_connection(session_context)
    playbook >> {"id": 1, "connect": {"token": connection_token("ada", channels=[channel], **claims)}}
    playbook >> opened(channel)
    assert playbook.session.live_channels == [channel]
    return playbook


def unsubscribe_push(channel: str, code: int, reason: str) -> dict[str, Any]:
    """Return the push that ends a subscription."""
    return {"push": {"channel": channel, "unsubscribe": {"code": code, "reason": reason}}}


def history_at(top: int, *offsets: int) -> History:
    """Return what an engine reads of a history with this top: the publications at `offsets`."""
    return History(Position(top, EPOCH), [Publication(Raw(b"%d" % offset), offset) for offset in offsets])


def error(command_id: int, code: int, message: str, **more: Any) -> dict[str, Any]:
    """Return an error reply."""
    return {"id": command_id, "error": {"code": code, "message": message, **more}}
