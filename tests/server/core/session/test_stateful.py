"""Sessions, hub, channels and `NodeState` under every sequence of events that hypothesis finds.

A client checks every message it receives. The node performs writes at once; the answers of the engine are
late, in any order, or never come.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.server.core.checking_client import CheckingClient
from tests.server.core.model_node import ModelNode
from tests.server.core.playbook import OPEN, context
from tests.server.core.published import EVEN
from tests.support.tokens import connection_token, subscription_token
from tocsin_server import errors
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.limit_options import LimitOptions
from tocsin_server.core import events
from tocsin_server.core.client_limits import ClientLimits
from tocsin_server.core.session import Session
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import (
    ConnectRequest,
    Position,
    PublishRequest,
    Request,
    SubscribeRequest,
)

WITH_HISTORY: dict[str, Any] = {
    "allow_subscribe_for_client": True,
    "allow_publish_for_subscriber": True,
    "allow_history_for_subscriber": True,
    "history_size": 4,
    "history_ttl": 60,
    "force_recovery": True,
    "allowed_delta_types": ["fossil"],
    "allow_tags_filter": True,
}


def needs_authorization(request: Request) -> bool:
    """Return whether a request waits for an answer from outside the session."""
    if isinstance(request, ConnectRequest):
        return bool(request.data)
    return isinstance(request, SubscribeRequest | PublishRequest) and request.channel == "join:a"


CONTEXT = replace(
    context(
        OPEN,
        {
            "history": ChannelOptions(**WITH_HISTORY, slow_policy="drop_oldest", slow_limit_bytes=600),
            "cache": ChannelOptions(
                **WITH_HISTORY, force_recovery_mode="cache", slow_policy="latest", slow_key="room"
            ),
            "join": OPEN.model_copy(
                update={
                    "presence": True,
                    "join_leave": True,
                    "force_push_join_leave": True,
                    "allowed_delta_types": ("fossil",),
                    "allow_tags_filter": True,
                    "slow_policy": "drop_oldest",
                    "slow_limit_bytes": 600,
                }
            ),
        },
        channel_limit=4,
        history_limit=3,
        command_rate=5,
        command_burst=25,
        new_channel_rate=0.5,
        new_channel_burst=6,
        error_limit=6,
    ),
    needs_authorization=needs_authorization,
    turn_cost=2,
)
CHANNELS = ("history:a", "history:a", "history:a", "cache:a", "join:a", "$private")
channels = st.sampled_from(CHANNELS)
"""One is more frequent than the others, so that a channel often has several subscribers."""
seldom = st.integers(0, 9).map(lambda number: number == 5)
picks = st.integers(min_value=0, max_value=99)
FORMS: list[dict[str, Any]] = [{}, {"delta": "fossil"}, {"delta": "fossil"}, {"tf": EVEN}]
lifetimes = st.sampled_from([None] * 5 + [10, 60, -1])
"""The seconds until a token expires."""


@st.composite
def commands(draw: st.DrawFn) -> dict[str, Any]:
    """Return a command without its id. The machine replaces `lifetime` and `is_recovering`."""
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
        "form": draw(st.sampled_from(FORMS)),
    }


DEFAULTS: dict[str, Any] = {
    "lifetime": None,
    "has_token": False,
    "is_recovering": False,
    "flag": 0,
    "form": {},
}


class Sessions(RuleBasedStateMachine):
    """A few connections of one user, and every event that can reach them."""

    def __init__(self) -> None:
        super().__init__()
        self.node = ModelNode()
        self.context = replace(CONTEXT, limits=ClientLimits(CONTEXT.options, LimitOptions()))
        self.last_positions: dict[str, Position] = {}
        """The latest positions of earlier connections, to recover from."""

    # -------------------------------------------------------------------------------------------- connections

    @property
    def open_clients(self) -> list[CheckingClient]:
        return [client for client in self.node.clients if not client.is_closed]

    def _client(self, pick: int) -> CheckingClient:
        return self.open_clients[pick % len(self.open_clients)]

    def _token(self, lifetime: float | None) -> dict[str, Any]:
        return {} if lifetime is None else {"exp": self.node.now.unix + lifetime}

    @initialize(forms=st.lists(st.sampled_from(FORMS), max_size=3))
    def start(self, forms: list[dict[str, Any]]) -> None:
        """Begin with up to three connections, subscribed to one channel."""
        for form in forms:
            drawn = {"method": "subscribe", "channel": "history:a", **DEFAULTS, "form": form}
            self.connect([], None, [drawn])
        self._finish_jobs()

    @precondition(lambda self: len(self.open_clients) < 4)
    @rule(
        granted=st.lists(channels, max_size=2, unique=True),
        lifetime=lifetimes,
        more=st.lists(commands()),
        is_waiting=st.booleans(),
    )
    def connect(
        self, granted: list[str], lifetime: float | None, more: list[dict[str, Any]], is_waiting: bool = False
    ) -> None:
        client = CheckingClient(Session(self.context, f"c{len(self.node.clients)}", self.node.now))
        self.node.attach(client)
        token = connection_token("ada", channels=granted, **self._token(lifetime))
        subs = {
            channel: {"recover": True, "offset": position.offset, "epoch": position.epoch}
            for channel, position in self.last_positions.items()
        }
        connect = {"token": token, "subs": subs, **({"data": 1} if is_waiting else {})}
        self._send(client, [{"connect": connect}, *map(self._command, more)])

    @precondition(lambda self: self.open_clients)
    @rule(pick=picks, frame=st.lists(commands(), min_size=1, max_size=6))
    def command(self, pick: int, frame: list[dict[str, Any]]) -> None:
        self._send(self._client(pick), [self._command(command) for command in frame])

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
            request |= drawn["form"]
            if drawn["is_recovering"] and channel in self.last_positions:
                position = self.last_positions[channel]
                request |= {"recover": True, "offset": position.offset, "epoch": position.epoch}
        return {method: request}

    def _send(self, client: CheckingClient, frame: list[dict[str, Any]]) -> None:
        for command in frame:
            command["id"] = len(client.sent) + 1
            client.sent[command["id"]] = command
        self._save_positions(client)
        self.node.handle_event(
            client, events.Received(JSON.decode_commands(b"\n".join(map(json_line, frame))))
        )

    @precondition(lambda self: self.node.turns)
    @rule(count=st.integers(1, 5))
    def take_turns(self, count: int) -> None:
        for _ in range(min(count, len(self.node.turns))):
            self.node.take_turn()

    @precondition(lambda self: self.open_clients)
    @rule(
        pick=picks,
        message=st.sampled_from([b"{}", b"nonsense", b"", b'{"send":{}}', b'{"id":99}']),
        seldom=seldom,
    )
    def send_invalid_message(self, pick: int, message: bytes, seldom: bool) -> None:
        if seldom:
            self.node.handle_event(self._client(pick), events.Received(JSON.decode_commands(message)))

    @precondition(lambda self: self.open_clients)
    @rule(pick=picks, seldom=st.booleans())
    def drop_connection(self, pick: int, seldom: bool) -> None:
        if not seldom:
            return
        client = self._client(pick)
        self._save_positions(client)
        self.node.handle_event(client, events.ConnectionLost())

    def _save_positions(self, client: CheckingClient) -> None:
        self.last_positions |= {
            channel: position for channel, position in client.positions.items() if position is not None
        }

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
    def receive(self, count: int) -> None:
        for _ in range(min(count, len(self.node.pubsub))):
            self.node.receive_next()

    @rule(room_bytes=st.sampled_from([math.inf, 0, 100]))
    def change_room(self, room_bytes: float) -> None:
        """Let a subscribe reply have a whole recovery, none of it, or about one publication."""
        self.node.room_bytes = room_bytes

    @precondition(lambda self: self.node.pubsub)
    @rule()
    def lose_message(self) -> None:
        self.node.pubsub.popleft()

    @rule(channel=st.sampled_from(["history:a", "cache:a"]), seldom=seldom)
    def replace_history(self, channel: str, seldom: bool) -> None:
        if seldom:
            self.node.replace_history(channel)

    @rule(pick=picks)
    def deliver(self, pick: int) -> None:
        queued = [channel for channel in self.node.hub.channels.values() if channel.has_queued]
        if not self.node.batches and queued:
            self.node.batches.append(self.node.write_batch(queued[pick % len(queued)]))
        if self.node.batches and next(self.node.batches[0], self) is self:
            self.node.batches.clear()

    @precondition(lambda self: self.open_clients)
    @rule(pick=picks, is_behind=st.booleans())
    def fall_behind_or_catch_up(self, pick: int, is_behind: bool) -> None:
        client = self._client(pick)
        if is_behind:
            self.node.fall_behind(client)
        elif client in self.node.behind:
            self.node.catch_up_with(client)

    # ---------------------------------------------------------------------------- deadlines and server events

    @rule(seconds=st.sampled_from([1, 1, 1, 5, 20, 40]), answering=seldom.map(lambda seldom: not seldom))
    def wait(self, seconds: float, answering: bool) -> None:
        self.node.wait(seconds, answering)

    @precondition(lambda self: self.open_clients)
    @rule(pick=picks, channel=channels, lifetime=lifetimes, kind=st.integers(0, 14), is_since=st.booleans())
    def command_from_server(
        self, pick: int, channel: str, lifetime: float | None, kind: int, is_since: bool
    ) -> None:
        expire_at = 0 if lifetime is None else self.node.now.unix + lifetime
        since = self.last_positions.get(channel) if is_since else None
        server_events: list[events.ServerEvent] = [
            events.ServerDisconnect(errors.FORCE_DISCONNECT),
            events.ServerRefresh(expire_at=expire_at),
            events.ServerUnsubscribe(),
            events.ServerUnsubscribe(channel),
            events.ServerUnsubscribe(channel),
        ]
        subscribe = events.ServerSubscribe(channel, expire_at=expire_at, since=since)
        for client in sorted(self.node.hub.connections_of("ada"), key=lambda client: client.session.client):
            self.node.handle_event(client, server_events[kind] if kind < len(server_events) else subscribe)

    # --------------------------------------------------------------------------------------------- invariants

    @invariant()
    def the_hub_agrees_with_the_sessions(self) -> None:
        live: dict[str, set[CheckingClient]] = {}
        for client in self.node.clients:
            for channel in client.session.live_channels:
                live.setdefault(channel, set()).add(client)
        indexed = {name: set(channel.connections) for name, channel in self.node.hub.channels.items()}
        assert {name: clients for name, clients in indexed.items() if clients} == live
        opened = {channel for (_, channel), count in self.node.state.subscribed.items() if count}
        assert set(indexed) == opened

    @invariant()
    def a_client_knows_its_subscriptions(self) -> None:
        for client in self.open_clients:
            assert set(client.positions) == set(client.session.live_channels)

    @invariant()
    def the_hub_has_every_connected_client(self) -> None:
        assert set(self.node.hub) == {client for client in self.open_clients if client.session.user}

    def teardown(self) -> None:
        """Check that each command has a reply and each client is up to date, and that no state is left."""
        self._finish_jobs()
        while self.node.pubsub:
            self.node.receive_next()
        for channel in list(self.node.hub.channels.values()):
            self.node.request_backfill(channel)
        self._finish_jobs()
        self._deliver_everything()
        for client in self.open_clients:
            self.node.catch_up_with(client)
        self._finish_jobs()
        for client in self.open_clients:
            if client.is_connected and client.session.user:
                assert client.replied == set(client.sent)
            self._expect_up_to_date(client)
            self.node.handle_event(client, events.ConnectionLost())
        self._finish_jobs()
        assert not self.node.hub.channels
        assert len(self.node.hub) == 0

    def _finish_jobs(self) -> None:
        while self.node.jobs or self.node.turns:
            if self.node.turns:
                self.node.take_turn()
            else:
                self.node.finish(self.node.jobs[0], succeeds=True)

    def _deliver_everything(self) -> None:
        for batch in self.node.batches:
            for _ in batch:
                pass
        for channel in self.node.hub.channels.values():
            while channel.has_queued:
                for _ in self.node.write_batch(channel):
                    pass

    def _expect_up_to_date(self, client: CheckingClient) -> None:
        for channel in client.positions:
            history = self.node.history(channel)
            assert client.has_everything(channel, Position(history.top, history.epoch))


def json_line(command: dict[str, Any]) -> bytes:
    """Return a command as an SDK writes it."""
    return json.dumps(command).encode()


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=150, stateful_step_count=80)
