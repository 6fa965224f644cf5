"""Whatever happens in whatever order, nobody is told what is not so, and nothing is left behind.

Sessions, hub and channels as they are; a client that believes what it is told; a node that does at once what
it is asked, but for the engine, whose answers come late, in any order, or not at all.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.server.core.checking_client import CheckingClient
from tests.server.core.model_node import ModelNode
from tests.server.core.playbook import OPEN, house
from tests.support.tokens import connection_token, subscription_token
from tocsin_server import errors
from tocsin_server.config.options import ChannelOptions
from tocsin_server.core import events
from tocsin_server.core.session import Session
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import Position

LOGGED: dict[str, Any] = {
    "allow_subscribe_for_client": True,
    "allow_publish_for_subscriber": True,
    "allow_history_for_subscriber": True,
    "history_size": 4,
    "history_ttl": 60,
    "force_recovery": True,
}
HOUSE = house(
    OPEN,
    {
        "log": ChannelOptions(**LOGGED),
        "cache": ChannelOptions(**LOGGED, force_recovery_mode="cache"),
        "join": OPEN.model_copy(update={"presence": True, "join_leave": True, "force_push_join_leave": True}),
    },
    channel_limit=4,
    history_limit=3,
)
CHANNELS = ("log:a", "log:a", "log:a", "cache:a", "join:a", "$private")
channels = st.sampled_from(CHANNELS)
"""One more often than the others, so that what takes several peers of a channel happens."""
seldom = st.integers(0, 9).map(lambda number: number == 5)
picks = st.integers(min_value=0, max_value=99)
lifetimes = st.sampled_from([None] * 5 + [10, 60, -1])
"""How many seconds a token is good for."""


@st.composite
def commands(draw: st.DrawFn) -> dict[str, Any]:
    """A command without its id; `lifetime` and `is_recovering` are for the machine to fill in."""
    method = draw(
        st.sampled_from(
            ["subscribe"] * 4
            + ["unsubscribe"] * 2
            + ["publish", "publish", "history", "presence", "refresh", "sub_refresh"]
        )
    )
    return {
        "method": method,
        "channel": draw(channels),
        "lifetime": draw(lifetimes),
        "has_token": draw(st.booleans()),
        "is_recovering": draw(st.booleans()),
        "flag": draw(st.sampled_from([0, 1, 3])),
    }


PLAIN: dict[str, Any] = {"lifetime": None, "has_token": False, "is_recovering": False, "flag": 0}


class Sessions(RuleBasedStateMachine):
    """A few connections of one user, and everything that may happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.node = ModelNode()
        self.last_places: dict[str, Position] = {}
        """Where the client stood when it last lost a connection, to recover from."""

    # ---------------------------------------------------------------------------------------------- the peers

    @property
    def open_peers(self) -> list[CheckingClient]:
        return [peer for peer in self.node.clients if not peer.is_closed]

    def _peer(self, pick: int) -> CheckingClient:
        return self.open_peers[pick % len(self.open_peers)]

    def _token(self, lifetime: float | None) -> dict[str, Any]:
        return {} if lifetime is None else {"exp": self.node.now.unix + lifetime}

    @initialize(count=st.integers(0, 3))
    def begin(self, count: int) -> None:
        """Some are there already: a crowd in one channel is where most can go wrong."""
        for _ in range(count):
            self.connect([], None, [{"method": "subscribe", "channel": "log:a", **PLAIN}])
        while self.node.jobs:
            self.node.finish(self.node.jobs[0], succeeds=True)

    @precondition(lambda self: len(self.open_peers) < 4)
    @rule(granted=st.lists(channels, max_size=2, unique=True), lifetime=lifetimes, more=st.lists(commands()))
    def connect(self, granted: list[str], lifetime: float | None, more: list[dict[str, Any]]) -> None:
        peer = CheckingClient(Session(HOUSE, f"c{len(self.node.clients)}", self.node.now))
        self.node.attach(peer)
        token = connection_token("ada", channels=granted, **self._token(lifetime))
        subs = {
            channel: {"recover": True, "offset": offset, "epoch": epoch}
            for channel, (offset, epoch) in self.last_places.items()
        }
        self._send(peer, [{"connect": {"token": token, "subs": subs}}, *map(self._command, more)])

    @precondition(lambda self: self.open_peers)
    @rule(pick=picks, frame=st.lists(commands(), min_size=1, max_size=3))
    def command(self, pick: int, frame: list[dict[str, Any]]) -> None:
        self._send(self._peer(pick), [self._command(command) for command in frame])

    def _command(self, drawn: dict[str, Any]) -> dict[str, Any]:
        method, channel = drawn["method"], drawn["channel"]
        request: dict[str, Any] = {"channel": channel}
        if method == "refresh":
            request = {"token": connection_token("ada", **self._token(drawn["lifetime"]))}
        elif method == "publish":
            request["data"] = 1
        elif method == "sub_refresh" or (method == "subscribe" and drawn["has_token"]):
            request["token"] = subscription_token("ada", channel, **self._token(drawn["lifetime"]))
        if method == "subscribe":
            request["flag"] = drawn["flag"]
            if drawn["is_recovering"] and channel in self.last_places:
                offset, epoch = self.last_places[channel]
                request |= {"recover": True, "offset": offset, "epoch": epoch}
        return {method: request}

    def _send(self, peer: CheckingClient, frame: list[dict[str, Any]]) -> None:
        for command in frame:
            command["id"] = len(peer.sent) + 1
            peer.sent[command["id"]] = command
        self._remember(peer)
        self.node.handle_event(peer, events.Received(JSON.decode_commands(b"\n".join(map(json_line, frame)))))

    @precondition(lambda self: self.open_peers)
    @rule(
        pick=picks,
        message=st.sampled_from([b"{}", b"nonsense", b"", b'{"send":{}}', b'{"id":99}']),
        seldom=seldom,
    )
    def misbehave(self, pick: int, message: bytes, seldom: bool) -> None:
        if seldom:
            self.node.handle_event(self._peer(pick), events.Received(JSON.decode_commands(message)))

    @precondition(lambda self: self.open_peers)
    @rule(pick=picks, seldom=st.booleans())
    def lose(self, pick: int, seldom: bool) -> None:
        if not seldom:
            return
        peer = self._peer(pick)
        self._remember(peer)
        self.node.handle_event(peer, events.ConnectionLost())

    def _remember(self, peer: CheckingClient) -> None:
        self.last_places |= {channel: place for channel, place in peer.places.items() if place is not None}

    # --------------------------------------------------------------------------------------------- the engine

    @precondition(lambda self: self.node.jobs)
    @rule(turns=st.lists(picks, min_size=1, max_size=6), fails=seldom)
    def finish(self, turns: list[int], fails: bool) -> None:
        for pick in turns[: len(self.node.jobs)]:
            if self.node.jobs:
                self.node.finish(self.node.jobs[pick % len(self.node.jobs)], succeeds=not fails)
                fails = False

    @rule(channel=channels, count=st.integers(1, 3))
    def publish(self, channel: str, count: int) -> None:
        for _ in range(count):
            self.node.publish(channel)

    @precondition(lambda self: self.node.pubsub)
    @rule(count=st.integers(1, 5))
    def hear(self, count: int) -> None:
        for _ in range(min(count, len(self.node.pubsub))):
            self.node.receive_next()

    @precondition(lambda self: self.node.pubsub)
    @rule()
    def lose_a_message(self) -> None:
        self.node.pubsub.popleft()

    @rule(channel=st.sampled_from(["log:a", "cache:a"]), seldom=seldom)
    def replace_log(self, channel: str, seldom: bool) -> None:
        if seldom:
            self.node.replace_history(channel)

    @rule(pick=picks)
    def write(self, pick: int) -> None:
        waiting = [channel for channel in self.node.hub.channels.values() if channel.has_queued]
        if not self.node.batches and waiting:
            self.node.batches.append(self.node.write_batch(waiting[pick % len(waiting)]))
        if self.node.batches and next(self.node.batches[0], self) is self:
            self.node.batches.clear()

    # ----------------------------------------------------------------------------------- the server, and time

    @rule(seconds=st.sampled_from([1, 1, 1, 5, 20, 40]), answering=seldom.map(lambda seldom: not seldom))
    def wait(self, seconds: float, answering: bool) -> None:
        self.node.wait(seconds, answering)

    @precondition(lambda self: self.open_peers)
    @rule(pick=picks, channel=channels, lifetime=lifetimes, order=st.integers(0, 14), is_since=st.booleans())
    def order(self, pick: int, channel: str, lifetime: float | None, order: int, is_since: bool) -> None:
        expire_at = 0 if lifetime is None else self.node.now.unix + lifetime
        since = self.last_places.get(channel) if is_since else None
        orders: list[events.ServerEvent] = [
            events.ServerDisconnect(errors.FORCE_DISCONNECT),
            events.ServerRefresh(expire_at=expire_at),
            events.ServerUnsubscribe(),
            events.ServerUnsubscribe(channel),
            events.ServerUnsubscribe(channel),
        ]
        subscribe = events.ServerSubscribe(channel, expire_at=expire_at, since=since)
        for peer in sorted(self.node.hub.connections_of("ada"), key=lambda peer: peer.session.client):
            self.node.handle_event(peer, orders[order] if order < len(orders) else subscribe)

    # --------------------------------------------------------------------------------------------- what holds

    @invariant()
    def the_hub_s_index_is_the_sessions_own(self) -> None:
        live: dict[str, set[CheckingClient]] = {}
        for peer in self.node.clients:
            for channel in peer.session.live_channels:
                live.setdefault(channel, set()).add(peer)
        indexed = {name: set(channel.connections) for name, channel in self.node.hub.channels.items()}
        assert {name: peers for name, peers in indexed.items() if peers} == live
        entered = {channel for (_, channel), count in self.node.state.subscribed.items() if count}
        assert set(indexed) == entered

    @invariant()
    def a_client_is_where_it_was_told_it_is(self) -> None:
        for peer in self.open_peers:
            assert set(peer.places) == set(peer.session.live_channels)

    @invariant()
    def the_hub_knows_every_connected_peer(self) -> None:
        assert set(self.node.hub) == {peer for peer in self.open_peers if peer.session.user}

    def teardown(self) -> None:
        """In the end every command was answered and everybody is up to date; then nothing remains."""
        while self.node.jobs:
            self.node.finish(self.node.jobs[0], succeeds=True)
        while self.node.pubsub:
            self.node.receive_next()
        for channel in list(self.node.hub.channels.values()):
            self.node.request_backfill(channel)
        while self.node.jobs:
            self.node.finish(self.node.jobs[0], succeeds=True)
        self._write_everything()
        for peer in self.open_peers:
            if peer.is_connected and peer.session.user:
                assert peer.replied == set(peer.sent)
            self._expect_up_to_date(peer)
            self.node.handle_event(peer, events.ConnectionLost())
        while self.node.jobs:
            self.node.finish(self.node.jobs[0], succeeds=True)
        assert not self.node.hub.channels
        assert len(self.node.hub) == 0

    def _write_everything(self) -> None:
        for batch in self.node.batches:
            for _ in batch:
                pass
        for channel in self.node.hub.channels.values():
            while channel.has_queued:
                for _ in self.node.write_batch(channel):
                    pass

    def _expect_up_to_date(self, peer: CheckingClient) -> None:
        for channel, place in peer.places.items():
            log = self.node.history(channel)
            if place is not None and place.epoch == log.epoch:
                assert place.offset == log.top


def json_line(command: dict[str, Any]) -> bytes:
    """As an SDK would write it."""
    return json.dumps(command).encode()


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=150, stateful_step_count=80, deadline=None)
