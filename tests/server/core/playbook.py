"""Playbooks: what happens to a session, and exactly what must come of it.

    playbook >> {"id": 2, "subscribe": {"channel": "news"}} << [Entering("news")]
    playbook >> entered("news") << [{"id": 2, "subscribe": {}}, Open("news")]

What is sent is compared as the peer would parse it; other effects by what matters of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Raw

from tests.support.tokens import SECRET, connection_token
from tocsin_server.config.options import ChannelOptions, ClientOptions
from tocsin_server.core import events
from tocsin_server.core.authorization import SessionContext
from tocsin_server.core.channel_names import ChannelRules
from tocsin_server.core.events import Effect, Event, SubscriptionsFailed, SubscriptionsOpened, Timestamp
from tocsin_server.core.positions import History
from tocsin_server.core.session import Session
from tocsin_server.core.tokens import TokenVerifier
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import Position, Publication

START = Timestamp(monotonic=5_000.0, unix=1_900_000_000.0)
"""When every playbook begins, far from what any real clock says."""

EPOCH = "abcdefgh"
"""Of every log."""

OPEN = ChannelOptions(allow_subscribe_for_client=True, allow_subscribe_for_anonymous=True)
"""A channel that everybody may enter, and nothing else."""

LOGGED = ChannelOptions(
    allow_subscribe_for_client=True, history_size=10, history_ttl=60, force_recovery=True, allow_recovery=True
)
"""A channel with a log that everybody recovers from."""


@dataclass(frozen=True)
class Wait:
    """So many seconds pass; deadlines that come meanwhile are kept."""

    seconds: float


class Entering:
    """An `Enter` of these channels, in this order."""

    def __init__(self, *channels: str) -> None:
        self.channels = channels

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entering) and self.channels == other.channels

    def __hash__(self) -> int:
        return hash(self.channels)

    def __repr__(self) -> str:
        return f"Entering{self.channels}"


@dataclass(frozen=True)
class Left:
    """A `Leave` of a channel; the others are told if the joining was."""

    channel: str
    was_announced: bool = False


@dataclass(frozen=True)
class Joined:
    """An `Announce` in a channel."""

    channel: str


Happening = Event | Wait | bytes | Mapping[str, Any] | Sequence[Mapping[str, Any]]
Expected = dict[str, Any] | Effect | Entering | Left | Joined


def entered(*channels: str, **histories: History) -> SubscriptionsOpened:
    """The engine's answer to an Enter: nothing was read for `channels`, and something for `histories`."""
    return SubscriptionsOpened({**dict.fromkeys(channels), **histories})


def enter_failed(*channels: str) -> SubscriptionsFailed:
    """The engine could not."""
    return SubscriptionsFailed(channels)


class Playbook:
    """A session, its clock, and the effects of what happened last."""

    def __init__(self, session: Session, now: Timestamp = START) -> None:
        self.session = session
        self.now = now
        self.effects: list[Effect] = []

    def __rshift__(self, happening: Happening) -> Playbook:
        if isinstance(happening, Wait):
            self.effects = self._wait(happening.seconds)
        else:
            self.effects = self.session.handle(_event(happening), self.now)
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


def _event(happening: Event | bytes | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Event:
    if isinstance(happening, Mapping):
        happening = [happening]
    if isinstance(happening, Sequence) and not isinstance(happening, bytes):
        happening = b"\n".join(json.dumps(command).encode() for command in happening)
    return events.Received(JSON.decode_commands(happening)) if isinstance(happening, bytes) else happening


def _seen(effect: Effect) -> Expected:
    match effect:
        case events.Send(message):
            sent = json.loads(JSON.encode(message))
            assert isinstance(sent, dict)
            return sent
        case events.OpenSubscriptions(entries):
            return Entering(*(entry.channel for entry in entries))
        case events.CloseSubscription(channel, _, _, was_announced):
            return Left(channel, was_announced)
        case events.PublishJoin(channel, _):
            return Joined(channel)
        case _:
            return effect


def house(
    channels: ChannelOptions = OPEN,
    namespaces: Mapping[str, ChannelOptions] | None = None,
    *,
    rpc_methods: frozenset[str] = frozenset(),
    connections: int = 0,
    **client: Any,
) -> SessionContext:
    """What a node with these options gives its sessions."""
    options = ClientOptions(token_hmac_secret=SECRET, **client)
    return SessionContext(
        options=options,
        rules=ChannelRules(channels, namespaces or {}, options.channel_length_limit),
        tokens=TokenVerifier(options),
        node="n1",
        version="1.0",
        connections_of=lambda _user: connections,
        rpc_methods=rpc_methods,
    )


def newcomer(where: SessionContext | None = None, **kind: Any) -> Playbook:
    """A connection that has not said anything yet."""
    return Playbook(Session(where or house(), "c1", START, **kind))


def welcome(command_id: int = 1, **more: Any) -> dict[str, Any]:
    """The connect reply."""
    result = {"client": "c1", "version": "1.0", "ping": 25, "pong": True, "node": "n1", **more}
    return {"id": command_id, "connect": {key: value for key, value in result.items() if value is not None}}


def visitor(where: SessionContext | None = None, user: str = "ada", **claims: Any) -> Playbook:
    """A connection of `user` that has connected, and is in no channel."""
    playbook = newcomer(where)
    playbook >> {"id": 1, "connect": {"token": connection_token(user, **claims)}}
    assert playbook.session.live_channels == []
    assert playbook.session.user == user
    return playbook


def subscriber(where: SessionContext | None = None, channel: str = "news", **claims: Any) -> Playbook:
    """A visitor that is in `channel`."""
    playbook = visitor(where, **claims)
    playbook >> {"id": 2, "subscribe": {"channel": channel}} << [Entering(channel)]
    playbook >> entered(channel)
    assert playbook.session.live_channels == [channel]
    return playbook


def grantee(where: SessionContext | None = None, channel: str = "news", **claims: Any) -> Playbook:
    """A connection that its token subscribed to `channel`."""
    playbook = newcomer(where)
    playbook >> {"id": 1, "connect": {"token": connection_token("ada", channels=[channel], **claims)}}
    playbook >> entered(channel)
    assert playbook.session.live_channels == [channel]
    return playbook


def ended(channel: str, code: int, reason: str) -> dict[str, Any]:
    """The push that ends a subscription."""
    return {"push": {"channel": channel, "unsubscribe": {"code": code, "reason": reason}}}


def log_read(top: int, *offsets: int) -> History:
    """What an engine read of a log whose top is `top`: the publications at `offsets`."""
    return History(Position(top, EPOCH), [Publication(Raw(b"%d" % offset), offset) for offset in offsets])


def error(command_id: int, code: int, message: str, **more: Any) -> dict[str, Any]:
    """An error reply."""
    return {"id": command_id, "error": {"code": code, "message": message, **more}}
