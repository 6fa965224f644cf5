r"""One connection's protocol state: events in, effects out, one deadline.

    new --connect--> connecting --server-side channels entered--> connected --close--> closed
     \--connect refused--> refused (the client leaves, or is told that it is stale)

The session is pure: it never waits, reads a clock or touches a socket. A peer's mistake is an effect, an
error reply or a close code, never an exception. Commands run in the order in which they came; while the
engine is asked, the following ones wait in `backlog`. Subscribes travel together, since each concerns its own
channel; everything else waits its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, ClassVar

from msgspec import Struct

from tocsin_server import errors
from tocsin_server.core import events, permissions
from tocsin_server.core.authorization import (
    SessionContext,
    apply_token,
    authorize_connection,
    authorize_subscription,
    connection_claims,
    server_side_subscription,
    with_chan_info,
)
from tocsin_server.core.events import (
    Close,
    Effect,
    Event,
    Execute,
    Identify,
    OpenSubscriptions,
    Send,
    Timestamp,
)
from tocsin_server.core.permissions import Caller
from tocsin_server.core.positions import History
from tocsin_server.core.subscription import Subscription, monotonic_deadline, ttl_seconds
from tocsin_server.core.tokens import embedded
from tocsin_server.errors import Disconnect, Refusal, Unsubscribed
from tocsin_server.protocol.messages import (
    EMPTY,
    NO_JSON,
    PING,
    ClientInfo,
    Command,
    ConnectRequest,
    ConnectResult,
    ErrorBody,
    HistoryRequest,
    Malformed,
    PresenceRequest,
    PresenceStatsRequest,
    PublishRequest,
    Push,
    PushEnvelope,
    RefreshPush,
    RefreshRequest,
    RefreshResult,
    Reply,
    RpcRequest,
    SendRequest,
    SubRefreshRequest,
    SubRefreshResult,
    SubscribeRequest,
    UnsubscribePush,
    UnsubscribeRequest,
)


class Phase(Enum):
    """Where in its life a session is."""

    NEW = "new"
    REFUSED = "refused"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSED = "closed"


class Session:
    """One connection. Feed it with `handle`; call again with `Elapsed` when `deadline` has come.

    `ping_phase`, in [0.5, 1), is where in the interval the first ping falls, so that a crowd that connected
    together is not pinged together. `sends_pings` and `wants_pong` are off for transports whose peers cannot
    answer.
    """

    __slots__ = (
        "_announces_pings",
        "_asked",
        "_connect_id",
        "_context",
        "_expires_at",
        "_granted",
        "_next_ping_at",
        "_opening",
        "_ping_phase",
        "_pong_due_at",
        "_sends_pings",
        "_stale_at",
        "_subscriptions",
        "_wants_pong",
        "backlog",
        "info",
        "phase",
    )

    def __init__(
        self,
        house: SessionContext,
        client: str,
        now: Timestamp,
        *,
        ping_phase: float = 0.75,
        sends_pings: bool = True,
        wants_pong: bool = True,
        announces_pings: bool = True,
    ) -> None:
        self.phase = Phase.NEW
        self.info = ClientInfo("", client)
        self.backlog: list[Command | Malformed] = []  # a deque costs every idle connection 700 bytes
        self._context = house
        self._subscriptions: dict[str, Subscription] = {}
        self._granted: frozenset[str] = frozenset()
        self._asked: tuple[int, str] | None = None
        self._opening = 0
        self._connect_id = 0
        self._sends_pings = sends_pings
        self._wants_pong = wants_pong
        self._announces_pings = sends_pings and announces_pings
        self._ping_phase = ping_phase
        self._stale_at: float | None = now.monotonic + house.options.stale_timeout
        self._next_ping_at: float | None = None
        self._pong_due_at: float | None = None
        self._expires_at: float | None = None

    @property
    def user(self) -> str:
        """Who this connection is; "" is anonymous, and everybody before connect."""
        return self.info.user

    @property
    def client(self) -> str:
        """The connection's unique id."""
        return self.info.client

    @property
    def is_closed(self) -> bool:
        """Whether the session is over."""
        return self.phase is Phase.CLOSED

    @property
    def is_busy(self) -> bool:
        """Whether something the peer asked for is not answered yet."""
        is_asking = self._asked is not None or self._opening > 0
        return is_asking or bool(self.backlog) or self.phase is Phase.CONNECTING

    @property
    def awaits_pong(self) -> bool:
        """Whether a ping is not answered yet."""
        return self._pong_due_at is not None

    @property
    def live_channels(self) -> list[str]:
        """The channels this connection hears live."""
        return [channel for channel, subscription in self._subscriptions.items() if subscription.is_live]

    @property
    def deadline(self) -> float | None:
        """The monotonic second at which `Elapsed` is due, or None if nothing is."""
        if self.phase is Phase.CLOSED:
            return None
        delay = self._context.options.expired_close_delay
        deadlines = [self._stale_at, self._next_ping_at, self._pong_due_at]
        expiries = [
            self._expires_at,
            *(subscription.expires_at for subscription in self._subscriptions.values()),
        ]
        deadlines += [expiry + delay for expiry in expiries if expiry is not None]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle(self, event: Event, now: Timestamp) -> list[Effect]:
        """Take one event; return what is to be done about it, in order."""
        if self.phase is Phase.CLOSED:
            return self._undo_entering(event)
        effects = self._ON_EVENT[type(event)](self, event, now)
        if self.backlog:
            effects += self._run_backlog(now)
        return effects

    # ----------------------------------------------------------------------------------------------- commands

    def _receive(self, event: events.Received, now: Timestamp) -> list[Effect]:
        effects: list[Effect] = []
        for command in event.commands:
            if isinstance(command, Command) and command.is_pong:
                effects += self._take_pong()
            else:
                self.backlog.append(command)
                was_new = self.phase is Phase.NEW
                effects += self._run_backlog(now)
                if was_new and self.phase is Phase.REFUSED:
                    break
            if self.phase is Phase.CLOSED:
                break
        return effects

    def _run_backlog(self, now: Timestamp) -> list[Effect]:
        effects: list[Effect] = []
        while self.backlog and self._may_run(self.backlog[0]):
            effects += self._run(self.backlog.pop(0), now)
        return effects

    def _may_run(self, command: Command | Malformed) -> bool:
        if self._asked is not None or self.phase is Phase.CONNECTING:
            return False
        return not self._opening or (isinstance(command, Command) and command.subscribe is not None)

    def _run(self, command: Command | Malformed, now: Timestamp) -> list[Effect]:
        if isinstance(command, Malformed) or self.phase is Phase.REFUSED:
            return self._close(errors.PROTOCOL_VIOLATION)
        for name, run in self._ON_COMMAND.items():
            request = getattr(command, name)
            if request is None:
                continue
            is_first = self.phase is Phase.NEW
            if is_first != (name == "connect"):
                break
            return run(self, command.id, request, now)
        return self._close(errors.PROTOCOL_VIOLATION)

    def _reply(self, command_id: int, method: str, result: Struct) -> list[Effect]:
        return [Send(Reply(command_id, **{method: result}))]  # type: ignore[arg-type]  # the method's own result

    def _refuse(self, command_id: int, why: Refusal) -> list[Effect]:
        return [Send(Reply(command_id, error=ErrorBody(why.code, why.message, why.temporary)))]

    def _turn_down(self, command_id: int, why: Refusal | Disconnect) -> list[Effect]:
        return self._close(why) if isinstance(why, Disconnect) else self._refuse(command_id, why)

    # ------------------------------------------------------------------------------------------------ connect

    def _connect(self, command_id: int, request: ConnectRequest, now: Timestamp) -> list[Effect]:
        admission = authorize_connection(self._context, self.client, request, now)
        if isinstance(admission, Refusal):
            return self._refuse_connect(command_id, admission)
        if isinstance(admission, Disconnect):
            return self._close(admission)
        self.info = admission.info
        self._expires_at = admission.expires_at
        self._granted = admission.granted
        self._subscriptions = dict(admission.subscriptions)
        self._connect_id = command_id
        self.phase = Phase.CONNECTING
        identify = Identify(self.user)
        if not self._subscriptions:
            return [identify, *self._confirm_connect({}, now)]
        return [identify, self._enter(self._subscriptions.values())]

    def _refuse_connect(self, command_id: int, why: Refusal) -> list[Effect]:
        """Drop the rest of the frame; a later frame closes the connection, and so does time (protocol §3)."""
        self.phase = Phase.REFUSED
        self.backlog.clear()
        return self._refuse(command_id, why)

    def _confirm_connect(self, histories: Mapping[str, History | None], now: Timestamp) -> list[Effect]:
        self.phase = Phase.CONNECTED
        self._stale_at = None
        interval = self._context.options.ping_interval
        if self._sends_pings:
            self._next_ping_at = now.monotonic + interval * self._ping_phase
        subs = {name: self._subscriptions[name].result(history, now) for name, history in histories.items()}
        result = ConnectResult(
            client=self.client,
            version=self._context.version,
            expires=self._expires_at is not None,
            ttl=ttl_seconds(self._expires_at, now),
            subs=subs,
            ping=max(1, round(interval)) if self._announces_pings else 0,
            pong=self._announces_pings and self._wants_pong,
            node=self._context.node,
        )
        effects = self._reply(self._connect_id, "connect", result)
        for channel, history in histories.items():
            effects += self._open(self._subscriptions[channel], history)
        return effects

    def _refresh(self, command_id: int, request: RefreshRequest, now: Timestamp) -> list[Effect]:
        if not request.token:
            return self._close(errors.PROTOCOL_VIOLATION)
        claims = connection_claims(self._context, request.token, now)
        if isinstance(claims, Refusal):
            return self._close(errors.CONNECTION_EXPIRED)
        if isinstance(claims, Disconnect):
            return self._close(claims)
        if claims.sub != self.user:
            return self._close(errors.INVALID_TOKEN)
        if frozenset(claims.grants) != self._granted:
            return self._close(errors.INSUFFICIENT_STATE)
        if not self._context.options.insecure:
            self._expires_at = monotonic_deadline(claims.expires_at, now)
        if _is_over(self._expires_at, now):
            return self._close(errors.CONNECTION_EXPIRED)
        self.info = ClientInfo(self.user, self.client, embedded(claims.info, claims.b64info))
        ttl = ttl_seconds(self._expires_at, now)
        result = RefreshResult(
            self.client, self._context.version, expires=self._expires_at is not None, ttl=ttl
        )
        return self._reply(command_id, "refresh", result)

    # ------------------------------------------------------------------------------------------ subscriptions

    def _subscribe(self, command_id: int, request: SubscribeRequest, now: Timestamp) -> list[Effect]:
        verdict = authorize_subscription(self._context, self.info, self._subscriptions, request, now)
        if not isinstance(verdict, Subscription):
            return self._turn_down(command_id, verdict)
        verdict.command_id = command_id
        self._subscriptions[verdict.channel] = verdict
        self._opening += 1
        return [self._enter([verdict])]

    def _enter(self, subscriptions: Iterable[Subscription]) -> OpenSubscriptions:
        limit = self._context.options.history_limit
        return OpenSubscriptions([subscription.plan(limit) for subscription in subscriptions])

    def _take_entered(self, event: events.SubscriptionsOpened, now: Timestamp) -> list[Effect]:
        if self.phase is Phase.CONNECTING:
            return self._confirm_connect(event.histories, now)
        effects: list[Effect] = []
        for channel, history in event.histories.items():
            effects += self._confirm(self._subscriptions[channel], history, now)
        return effects

    def _confirm(self, subscription: Subscription, history: History | None, now: Timestamp) -> list[Effect]:
        result = subscription.result(history, now)
        if subscription.is_server_side:
            confirmation: list[Effect] = [
                self._push(subscription.channel, subscribe=subscription.push(result))
            ]
            confirmation += [self._push(subscription.channel, pub=missed) for missed in result.publications]
        else:
            self._opening -= 1
            if subscription.refuses_unrecovered and result.was_recovering and not result.recovered:
                del self._subscriptions[subscription.channel]
                return [
                    *self._refuse(subscription.command_id, errors.UNRECOVERABLE_POSITION),
                    subscription.close(),
                ]
            confirmation = self._reply(subscription.command_id, "subscribe", result)
        return [*confirmation, *self._open(subscription, history)]

    def _open(self, subscription: Subscription, history: History | None) -> list[Effect]:
        subscription.is_live = True
        start = history.top.offset if history else 0
        effects: list[Effect] = [events.GoLive(subscription.channel, start, subscription.receives_joins)]
        if subscription.options.join_leave:
            effects.append(events.PublishJoin(subscription.channel, subscription.info))
        if subscription.ended_while_opening is not None:
            effects += self._end(subscription, subscription.ended_while_opening)
        return effects

    def _take_enter_failure(self, event: events.SubscriptionsFailed, _now: Timestamp) -> list[Effect]:
        if self.phase is Phase.CONNECTING:
            return self._close(errors.SERVER_ERROR) + self._undo_entering(event)
        effects: list[Effect] = []
        for channel in event.channels:
            subscription = self._subscriptions.pop(channel)
            effects.append(subscription.close())
            if not subscription.is_server_side:
                self._opening -= 1
                effects += self._refuse(subscription.command_id, errors.INTERNAL_ERROR)
        return effects

    def _undo_entering(self, event: Event) -> list[Effect]:
        """What was being entered when the session ended has to be left once it is through, not before."""
        if isinstance(event, events.SubscriptionsOpened):
            channels: Iterable[str] = event.histories
        elif isinstance(event, events.SubscriptionsFailed):
            channels = event.channels
        else:
            return []
        entering = (self._subscriptions.pop(channel, None) for channel in channels)
        return [subscription.close() for subscription in entering if subscription is not None]

    def _unsubscribe(self, command_id: int, request: UnsubscribeRequest, _now: Timestamp) -> list[Effect]:
        if not request.channel:
            return self._close(errors.PROTOCOL_VIOLATION)
        reply = self._reply(command_id, "unsubscribe", EMPTY)
        subscription = self._subscriptions.get(request.channel)
        if subscription is None or not subscription.is_live:
            return reply
        del self._subscriptions[request.channel]
        return [subscription.close(), *reply]

    def _end(self, subscription: Subscription, why: Unsubscribed) -> list[Effect]:
        """End a subscription from the server's side: at once, or right after a confirmation still to come."""
        if not subscription.is_live:
            subscription.ended_while_opening = why
            return []
        del self._subscriptions[subscription.channel]
        farewell = UnsubscribePush(why.code, why.reason)
        return [subscription.close(), self._push(subscription.channel, unsubscribe=farewell)]

    def _sub_refresh(self, command_id: int, request: SubRefreshRequest, now: Timestamp) -> list[Effect]:
        if not request.channel:
            return self._close(errors.PROTOCOL_VIOLATION)
        subscription = self._subscriptions.get(request.channel)
        if subscription is None or not subscription.is_live:
            return self._refuse(command_id, errors.PERMISSION_DENIED)
        if not request.token:
            return self._refuse(command_id, errors.BAD_REQUEST)
        verdict = apply_token(self._context, self.info, subscription, request.token, now)
        if verdict is errors.PERMISSION_DENIED:
            verdict = errors.INVALID_TOKEN  # protocol §4: an invalid one closes here, unlike at subscribe
        if verdict is not None:
            return self._turn_down(command_id, verdict)
        ttl = ttl_seconds(subscription.expires_at, now)
        return self._reply(
            command_id, "sub_refresh", SubRefreshResult(subscription.expires_at is not None, ttl)
        )

    # --------------------------------------------------------------------------- commands that ask the engine

    def _is_subscribed(self, channel: str) -> bool:
        subscription = self._subscriptions.get(channel)
        return subscription is not None and subscription.is_live

    def _ask(
        self,
        command_id: int,
        method: str,
        request: events.EngineRequest,
        permit: Callable[..., Refusal | None],
    ) -> list[Effect]:
        channel = request.channel  # type: ignore[union-attr]  # rpc does not come here
        if not channel:
            return self._close(errors.PROTOCOL_VIOLATION)
        options = permissions.check_name(channel, self._context.rules)
        if isinstance(options, Refusal):
            return self._refuse(command_id, options)
        caller = Caller(self.user, self._context.options.insecure)
        is_subscribed = self._is_subscribed(channel)
        refusal = permit(caller, options, is_subscribed)
        if refusal is not None:
            return self._refuse(command_id, refusal)
        self._asked = (command_id, method)
        chan_info = self._subscriptions[channel].info.chan_info if is_subscribed else NO_JSON
        return [Execute(command_id, request, with_chan_info(self.info, chan_info))]

    def _publish(self, command_id: int, request: PublishRequest, _now: Timestamp) -> list[Effect]:
        if not request.channel:
            return self._close(errors.PROTOCOL_VIOLATION)
        if not request.data:
            return self._refuse(command_id, errors.BAD_REQUEST)
        return self._ask(command_id, "publish", request, permissions.may_publish)

    def _presence(self, command_id: int, request: PresenceRequest, _now: Timestamp) -> list[Effect]:
        return self._ask(command_id, "presence", request, permissions.may_read_presence)

    def _presence_stats(
        self, command_id: int, request: PresenceStatsRequest, _now: Timestamp
    ) -> list[Effect]:
        return self._ask(command_id, "presence_stats", request, permissions.may_read_presence)

    def _history(self, command_id: int, request: HistoryRequest, _now: Timestamp) -> list[Effect]:
        if request.reverse and request.since is not None and request.since.offset == 0:
            return self._refuse(command_id, errors.BAD_REQUEST)
        return self._ask(command_id, "history", request, permissions.may_read_history)

    def _rpc(self, command_id: int, request: RpcRequest, _now: Timestamp) -> list[Effect]:
        if not self._context.rpc_methods:
            return self._refuse(command_id, errors.NOT_AVAILABLE)
        if request.method not in self._context.rpc_methods:
            return self._refuse(command_id, errors.METHOD_NOT_FOUND)
        self._asked = (command_id, "rpc")
        return [Execute(command_id, request, self.info)]

    def _send(self, _command_id: int, _request: SendRequest, _now: Timestamp) -> list[Effect]:
        return self._close(errors.UNSUPPORTED)

    def _take_answer(self, event: events.Executed, _now: Timestamp) -> list[Effect]:
        if self._asked is None or self._asked[0] != event.id:
            return []
        command_id, method = self._asked
        self._asked = None
        if isinstance(event.outcome, Refusal):
            return self._refuse(command_id, event.outcome)
        return self._reply(command_id, method, event.outcome)

    # --------------------------------------------------------------------------------------------------- time

    def _take_pong(self) -> list[Effect]:
        if self._pong_due_at is None:
            return self._close(errors.PROTOCOL_VIOLATION)
        self._pong_due_at = None
        return []

    def _elapse(self, _event: events.DeadlineReached, now: Timestamp) -> list[Effect]:
        delay = self._context.options.expired_close_delay
        if _is_over(self._stale_at, now):
            is_our_fault = self.phase is Phase.CONNECTING
            return self._close(errors.SERVER_ERROR if is_our_fault else errors.STALE)
        if _is_over(self._pong_due_at, now):
            return self._close(errors.NO_PONG)
        if _is_over(self._expires_at, now, delay):
            return self._close(errors.CONNECTION_EXPIRED)
        effects: list[Effect] = []
        for subscription in list(self._subscriptions.values()):
            if _is_over(subscription.expires_at, now, delay):
                if subscription.is_server_side:
                    return effects + self._close(errors.SUBSCRIPTION_EXPIRED)
                subscription.expires_at = None
                effects += self._end(subscription, errors.UNSUBSCRIBED_EXPIRED)
        return effects + self._ping(now) if _is_over(self._next_ping_at, now) else effects

    def _ping(self, now: Timestamp) -> list[Effect]:
        options = self._context.options
        self._next_ping_at = now.monotonic + options.ping_interval
        if self._wants_pong:
            self._pong_due_at = now.monotonic + options.pong_timeout
        return [Send(PING)]

    # -------------------------------------------------------------------------------------- the server's side

    def _push(self, channel: str, **kind: Any) -> Send:
        return Send(PushEnvelope(Push(channel, **kind)))

    def _subscribe_by_server(self, event: events.ServerSubscribe, now: Timestamp) -> list[Effect]:
        is_full = len(self._subscriptions) >= self._context.options.channel_limit
        if self.phase is not Phase.CONNECTED or event.channel in self._subscriptions or is_full:
            return []
        subscription = server_side_subscription(self._context, self.info, event, now)
        if subscription is None:
            return []
        self._subscriptions[event.channel] = subscription
        return [self._enter([subscription])]

    def _unsubscribe_by_server(self, event: events.ServerUnsubscribe, _now: Timestamp) -> list[Effect]:
        wanted = [event.channel] if event.channel else list(self._subscriptions)
        effects: list[Effect] = []
        for channel in wanted:
            if channel in self._subscriptions:
                effects += self._end(self._subscriptions[channel], event.why)
        return effects

    def _break_stream(self, event: events.ChannelReset, _now: Timestamp) -> list[Effect]:
        """The client makes its own subscription again; for a server-side one it reconnects (protocol §10)."""
        subscription = self._subscriptions.get(event.channel)
        if subscription is None or not subscription.is_live or not subscription.is_positioned:
            return []
        if subscription.is_server_side:
            return self._close(errors.INSUFFICIENT_STATE)
        return self._end(subscription, errors.UNSUBSCRIBED_INSUFFICIENT_STATE)

    def _disconnect_by_server(self, event: events.ServerDisconnect, _now: Timestamp) -> list[Effect]:
        return self._close(event.why)

    def _refresh_by_server(self, event: events.ServerRefresh, now: Timestamp) -> list[Effect]:
        if event.is_expired:
            return self._close(errors.CONNECTION_EXPIRED)
        self._expires_at = monotonic_deadline(event.expire_at, now)
        if event.info:
            self.info = ClientInfo(self.user, self.client, event.info)
        if self.phase is not Phase.CONNECTED:
            return []  # the connect reply, which nothing precedes, will say it
        ttl = ttl_seconds(self._expires_at, now)
        return [Send(PushEnvelope(Push(refresh=RefreshPush(self._expires_at is not None, ttl))))]

    # --------------------------------------------------------------------------------------------- the ending

    def _close(self, why: Disconnect) -> list[Effect]:
        return [Close(why), *self._finish()]

    def _lose(self, _event: events.ConnectionLost, _now: Timestamp) -> list[Effect]:
        return self._finish()

    def _finish(self) -> list[Effect]:
        self.phase = Phase.CLOSED
        self.backlog.clear()
        live = [subscription for subscription in self._subscriptions.values() if subscription.is_live]
        for subscription in live:
            del self._subscriptions[subscription.channel]
        return [subscription.close() for subscription in live]

    _ON_EVENT: ClassVar[dict[type, Callable[[Any, Any, Timestamp], list[Effect]]]] = {
        events.Received: _receive,
        events.ConnectionLost: _lose,
        events.DeadlineReached: _elapse,
        events.SubscriptionsOpened: _take_entered,
        events.SubscriptionsFailed: _take_enter_failure,
        events.Executed: _take_answer,
        events.ChannelReset: _break_stream,
        events.ServerSubscribe: _subscribe_by_server,
        events.ServerUnsubscribe: _unsubscribe_by_server,
        events.ServerDisconnect: _disconnect_by_server,
        events.ServerRefresh: _refresh_by_server,
    }

    _ON_COMMAND: ClassVar[dict[str, Callable[[Any, int, Any, Timestamp], list[Effect]]]] = {
        "connect": _connect,
        "subscribe": _subscribe,
        "unsubscribe": _unsubscribe,
        "publish": _publish,
        "presence": _presence,
        "presence_stats": _presence_stats,
        "history": _history,
        "rpc": _rpc,
        "send": _send,
        "refresh": _refresh,
        "sub_refresh": _sub_refresh,
    }
    """In the order in which the protocol looks for the first one set (§2)."""


def _is_over(moment: float | None, now: Timestamp, delay: float = 0) -> bool:
    return moment is not None and now.monotonic >= moment + delay
