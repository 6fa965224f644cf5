"""One connection's protocol state: events in, effects out, one deadline.

A session is pure. It never waits, reads a clock or touches a socket; `handle` takes an event and the
time, and returns what must be done, in order. A client's mistake is an effect (an error reply or a close
code), never an exception.

Its life is the table in core/phases.py:

    new -> [authorizing] -> connecting -> connected -> closed         new, authorizing -> refused -> closed

Commands run in the order in which they arrived. A message's commands are decoded as they are needed: those
that must wait are in `backlog`, at most BACKLOG_COMMANDS of them, and the rest stays encoded. There are
three cases in which the next command must wait:

1. The connect command has no reply yet. Every other command waits.
2. A command is executed outside the session, or waits for its authorization. Its reply comes first.
3. Subscribes are authorized or set up. Only further subscribes may run, since each concerns its own channel;
   their replies may come in another order. At most `channel_limit` of them are authorized at a time.

Besides, commands run in turns, so that no client holds up the others with many of them. Each command has a
cost. Once the commands since the last `Turn` have cost SessionContext.turn_cost, the next one waits for
another `Turn`, which the node gives to the sessions that need one, in rotation.

A request waits for authorization only where `SessionContext.needs_authorization` says so. Then the
session returns `Authorize`, and goes on when `Authorized` arrives, or refuses after
`authorization_seconds`. All other requests are decided at once, by core/authorization.py,
core/subscription_authorization.py and core/command_authorization.py.

What was authorized from outside, without or in place of a token, is renewed the same way before it expires,
if `needs_authorization` holds for its refresh request. No command waits for that (core/renewals.py). A
refresh command without a token is never asked about.

While commands wait, the transport reads no further, so that a pong may be unread. So the time for it begins
again whenever a waiting command runs. It does not pass while commands wait for another one that is authorized
or executed. A client whose network is gone is then noticed by the transport, since it acknowledges no ping.

The mutable state is that of `Session` and of its `Subscriptions`. Only `handle` changes it. `phase` moves
only along the table; subscriptions that are being set up when the session closes are closed when their
set-up ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator, Sequence
from typing import assert_never

from msgspec import Raw

from tocsin_server import errors
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core import events
from tocsin_server.core.authorization import (
    AuthorizedConnection,
    authorize_connection,
    authorize_refresh,
    connection_claims_of,
)
from tocsin_server.core.capabilities import capabilities
from tocsin_server.core.client_limits import Exceeded
from tocsin_server.core.command_authorization import ExecutedRequest, authorize_command, check_before_asking
from tocsin_server.core.events import (
    Approval,
    Authorize,
    AuthorizedOutcome,
    Close,
    CloseSubscription,
    Effect,
    Event,
    Execute,
    Identify,
    Renewal,
    ReserveConnection,
    Send,
    Timestamp,
)
from tocsin_server.core.pending_authorizations import PendingAuthorization, PendingAuthorizations
from tocsin_server.core.phases import AUTHORIZING, CLOSED, CONNECTED, CONNECTING, NEW, Cause, next_phase
from tocsin_server.core.positions import History
from tocsin_server.core.rate_limit import NEVER_USED
from tocsin_server.core.renewals import Expired, Renewals
from tocsin_server.core.replies import answer, is_error, refuse, send_push
from tocsin_server.core.session_context import SessionContext
from tocsin_server.core.subscription import monotonic_deadline, ttl_seconds
from tocsin_server.core.subscription_authorization import subscription_claims_of
from tocsin_server.core.subscriptions import Outcome, Subscriptions
from tocsin_server.core.tokens import ConnectionClaims, embedded, issued_at
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.protocol.messages import (
    NO_JSON,
    PING,
    ClientInfo,
    Command,
    ConnectRequest,
    ConnectResult,
    HistoryRequest,
    Malformed,
    PresenceRequest,
    PresenceStatsRequest,
    PublishRequest,
    Push,
    RefreshPush,
    RefreshRequest,
    RefreshResult,
    Reply,
    Request,
    RpcRequest,
    RpcResult,
    SendRequest,
    SubRefreshRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from tocsin_server.protocol.payloads import Payload

TOKEN_COST = 16
"""What a command with a token costs of a turn: a signature takes 40 µs (HMAC) to 400 µs (P-521) to verify."""

_REFRESHES = (RefreshRequest, SubRefreshRequest)

_NOT_LIMITED = (UnsubscribeRequest, SendRequest)
"""SDKs reconnect after an error of an unsubscribe (protocol §4), and `send` has no reply."""

BACKLOG_COMMANDS = 64
"""How many commands are decoded before they may run. A pong among them is read at once."""


class Session:
    """The protocol state of one connection.

    Feed it with `handle`; call again with `DeadlineReached` when `deadline` has come, and with `Turn` soon if
    it then `needs_turn`.

    `ping_phase`, in [0.5, 1), is where in the ping interval the first ping falls, so that many clients that
    connected together are not pinged together. `sends_pings` is off if the transport sends pings of its own.
    `wants_pong` is off for clients that cannot answer. `announces_pings`: whether the connect reply names the
    ping interval. `is_unidirectional`: the client gets no replies, so a refused connect command closes.
    """

    __slots__ = (
        "_announces_pings",
        "_authorizing",
        "_commands_full_at",
        "_connect_command_id",
        "_connect_data",
        "_context",
        "_early_subscribes",
        "_errors_full_at",
        "_executing",
        "_expires_at",
        "_granted_channels",
        "_is_refreshed_by_client",
        "_is_unidirectional",
        "_issued_at",
        "_message",
        "_next_ping_at",
        "_ping_phase",
        "_pong_due_at",
        "_renewals",
        "_reserving",
        "_sends_pings",
        "_stale_at",
        "_subscriptions",
        "_token_id",
        "_turn_cost",
        "_unanswered_pings",
        "_unread",
        "_wants_pong",
        "backlog",
        "identified_at",
        "info",
        "phase",
    )

    def __init__(  # noqa: PLR0913 - what its transport can do
        self,
        context: SessionContext,
        client: str,
        now: Timestamp,
        *,
        ping_phase: float = 0.75,
        sends_pings: bool = True,
        wants_pong: bool = True,
        announces_pings: bool = True,
        is_unidirectional: bool = False,
    ) -> None:
        self.phase = NEW
        self.info = ClientInfo("", client)
        self.backlog: list[Command | Malformed] = []  # short; a deque costs every idle connection 700 bytes
        self._message: Iterator[Command | Malformed] | None = None  # that commands are decoded from
        self._unread: deque[Iterator[Command | Malformed]] | None = None  # the messages after it
        self._turn_cost = 0
        self._commands_full_at = (
            NEVER_USED  # what it has used of its commands and errors (core/rate_limit.py)
        )
        self._errors_full_at = NEVER_USED
        self._context = context
        self._subscriptions = Subscriptions(context)
        self._granted_channels: frozenset[str] = frozenset()
        self._executing: Execute | None = None
        self._authorizing: PendingAuthorizations | None = None  # made when first needed
        self._reserving: AuthorizedConnection | None = None  # goes on once the user's count allows it
        self._renewals: Renewals | None = None  # made when first needed
        self._is_refreshed_by_client = True
        self._connect_data: Payload = NO_JSON
        self._connect_command_id = 0
        self._early_subscribes: Sequence[events.ServerSubscribe] = ()
        self.identified_at = 0.0
        """The unix second at which the connect command was authorized."""
        self._sends_pings = sends_pings
        self._wants_pong = wants_pong
        self._is_unidirectional = is_unidirectional
        self._announces_pings = sends_pings and announces_pings
        self._ping_phase = ping_phase
        self._stale_at: float | None = now.monotonic + context.options.stale_timeout
        self._next_ping_at: float | None = None
        self._pong_due_at: float | None = None
        self._unanswered_pings = 0  # several only if commands waited meanwhile
        self._expires_at: float | None = None
        self._token_id = ""
        self._issued_at: float | None = None  # unix seconds; None without a token

    @property
    def user(self) -> str:
        """The connection's user; "" is anonymous, and every user before the connect command."""
        return self.info.user

    @property
    def client(self) -> str:
        """The connection's unique id."""
        return self.info.client

    @property
    def is_closed(self) -> bool:
        """Whether the session is over."""
        return self.phase is CLOSED

    @property
    def has_connected(self) -> bool:
        """Whether the connect reply was sent, also if the session is over by now."""
        return self._stale_at is None

    @property
    def needs_turn(self) -> bool:
        """Whether the next command waits for a `Turn`."""
        return self._turn_cost >= self._context.turn_cost and self.phase is not CLOSED

    @property
    def has_waiting_commands(self) -> bool:
        """Whether commands that were received wait, so that no others should be read."""
        return bool(self.backlog) or self._message is not None

    @property
    def _first_waiting(self) -> object:
        """The command that waits, or the message whose commands are not decoded yet; None: nothing waits."""
        return self.backlog[0] if self.backlog else self._message

    @property
    def _waits_for_another(self) -> bool:
        """Whether commands wait until another one is authorized or executed."""
        return bool(self._authorizing or self._executing) and self.has_waiting_commands

    @property
    def is_busy(self) -> bool:
        """Whether a command of the client has no reply yet."""
        return bool(
            self.backlog
            or self._message is not None
            or self._executing
            or self._authorizing
            or self._subscriptions.is_opening
            or self.phase is CONNECTING
        )

    @property
    def awaits_pong(self) -> bool:
        """Whether a ping is not answered yet."""
        return self._pong_due_at is not None

    @property
    def live_channels(self) -> list[str]:
        """The channels of the live subscriptions."""
        return [subscription.channel for subscription in self._subscriptions.live]

    @property
    def live_options(self) -> list[tuple[str, ChannelOptions]]:
        """The channels of the live subscriptions, each with its options."""
        return [(subscription.channel, subscription.options) for subscription in self._subscriptions.live]

    def has_token(self, token_ids: Container[str]) -> bool:
        """Whether the connection or one of its subscriptions was made with one of these tokens."""
        return self._token_id in token_ids or self._subscriptions.has_token(token_ids)

    def is_setting_up(self, channel: str) -> bool:
        """Whether a subscription to a channel is being set up."""
        if self.is_closed:
            return False
        is_early = any(event.channel == channel for event in self._early_subscribes)
        return is_early or self._subscriptions.is_setting_up(channel)

    def has_position_in(self, channel: str) -> bool:
        """Whether the client follows positions in a channel, so that it must be told of a gap."""
        subscription = self._subscriptions.live_in(channel)
        return subscription is not None and subscription.is_positioned

    def misses_cache(self, channel: str, history: History | None) -> bool:
        """Whether a channel in cache mode, just subscribed with this history, has no publication."""
        subscription = self._subscriptions.live_in(channel)
        return subscription is not None and subscription.misses_cache(history)

    @property
    def deadline(self) -> float | None:
        """The monotonic second at which `DeadlineReached` is due; None if nothing is."""
        if self.phase is CLOSED:
            return None
        first = self._stale_at
        if self._next_ping_at is not None and (first is None or self._next_ping_at < first):
            first = self._next_ping_at
        if self._pong_due_at is not None and not self._waits_for_another:
            first = self._pong_due_at if first is None else min(first, self._pong_due_at)
        expiry = self._subscriptions.next_expiry
        if self._expires_at is not None:
            expiry = self._expires_at if expiry is None else min(expiry, self._expires_at)
        if expiry is not None:
            expiry += self._context.options.expired_close_delay
            first = expiry if first is None else min(first, expiry)
        if self._authorizing or self._renewals is not None:
            return self._first_answer_due(first)
        return first

    def _first_answer_due(self, first: float | None) -> float | None:
        """When an authorization or a renewal is due, or `first` if that is earlier."""
        due = [first, self._authorizing.next_due_at if self._authorizing else None]
        if self._renewals is not None and self.phase is CONNECTED:
            due.append(self._renewals.next_due_at)
        return min([at for at in due if at is not None], default=None)

    def handle(self, event: Event, now: Timestamp) -> list[Effect]:
        """Handle one event; return what must be done, in order."""
        if self.phase is CLOSED:
            return self._undo_opening(event)
        waiting = None if self._pong_due_at is None else self._first_waiting
        effects = self._handle(event, now)
        if self.backlog or self._message is not None:
            self._run_commands(effects, now)
        if waiting is not None and waiting is not self._first_waiting and self._pong_due_at is not None:
            self._pong_due_at = now.monotonic + self._context.options.pong_timeout
        if self._renewals is not None:
            for effect in effects:
                if isinstance(effect, CloseSubscription):
                    self._renewals.cancel(effect.channel)
        return effects

    def _handle(self, event: Event, now: Timestamp) -> list[Effect]:  # noqa: C901, PLR0912 - a case per event
        match event:
            case events.Received():
                if self._message is None:
                    self._message = iter(event.commands)
                else:
                    self._unread = self._unread or deque()
                    self._unread.append(iter(event.commands))
                return []
            case events.SubscriptionsOpened():
                if self.phase is CONNECTING:
                    return self._confirm_connect(event, now)
                return self._subscriptions.opened(event, now)
            case events.ConnectionLost():
                return self._finish()
            case events.Turn():
                self._turn_cost = 0
                return []
            case events.Authorized():
                effects = self._on_authorized(event, now)
                is_refused = len(effects) == 1 and is_error(effects[0])
                return self._count_error(effects, now) if is_refused else effects
            case events.DeadlineReached():
                return self._on_deadline(now)
            case events.SubscriptionsFailed(channels, why):
                if self.phase is not CONNECTING:
                    return self._subscriptions.failed(channels, why)
                if why is errors.INTERNAL_ERROR:
                    return self._close(errors.SERVER_ERROR) + self._undo_opening(event)
                refused = self._refuse_connect(self._connect_command_id, why)
                return refused + self._undo_opening(event)
            case events.ConnectionReserved() | events.ConnectionRefused():
                return self._on_reservation(event, now)
            case events.Executed():
                return self._on_executed(event)
            case events.ChannelReset(channel):
                return self._apply(self._subscriptions.reset(channel))
            case events.TokensRevoked():
                return self._end_revoked(now)
            case events.ServerSubscribe():
                return self._subscribe_from_server(event, now)
            case events.ServerUnsubscribe():
                self._early_subscribes = tuple(
                    early for early in self._early_subscribes if event.channel not in ("", early.channel)
                )
                return self._subscriptions.unsubscribe_from_server(event)
            case events.ServerDisconnect(why):
                return self._close(why)
            case events.ServerRefresh():
                return self._refresh_from_server(event, now)
            case _:
                assert_never(event)

    # ----------------------------------------------------------------------------------------------- commands

    def _run_commands(self, effects: list[Effect], now: Timestamp) -> None:
        """Run commands, and decode those that follow, as long as they may run and the turn lasts.

        What they ask for is appended to the `effects` of the event.
        """
        backlog, turn_cost = self.backlog, self._context.turn_cost
        while self._turn_cost < turn_cost:
            if backlog and self._may_run(backlog[0]):
                effects += self._run(backlog.pop(0), effects, now)
            elif self._message is None or len(backlog) >= BACKLOG_COMMANDS:
                break
            elif (command := next(self._message, None)) is None:
                self._message = self._unread.popleft() if self._unread else None
                self._unread = self._unread or None
            elif command.is_pong:  # is taken at once
                self._turn_cost += 1
                effects += self._on_pong()
            elif not backlog and self._may_run(command):
                effects += self._run(command, effects, now)
            else:
                backlog.append(command)

    def _may_run(self, command: Command | Malformed) -> bool:
        """Whether none of the three cases at the head of this module makes `command` wait."""
        if self._executing is not None or self.phase in (CONNECTING, AUTHORIZING):
            return False
        if not self._authorizing and not self._subscriptions.is_opening:
            return True
        if not isinstance(command, Command) or command.subscribe is None:
            return False
        if not self._authorizing:
            return True
        has_room = len(self._authorizing) < self._context.options.channel_limit
        return has_room and self._authorizing.are_all_subscribes

    def _run(self, command: Command | Malformed, before: list[Effect], now: Timestamp) -> list[Effect]:
        """Run a command. `before` is what earlier ones of this step ask for, and what is not done yet."""
        request = None if isinstance(command, Malformed) else command.request
        phase = NEW if isinstance(request, ConnectRequest) else CONNECTED
        if isinstance(command, Malformed) or request is None or self.phase is not phase:
            return self._close(errors.PROTOCOL_VIOLATION)
        self._turn_cost += TOKEN_COST if getattr(request, "token", "") else 1
        exceeded = self._take_command(now)
        if exceeded is not None and (exceeded.is_final or not isinstance(request, _NOT_LIMITED)):
            return self._apply_limit(command.id, exceeded)
        if self._context.needs_authorization(request) and not _is_refresh_without_token(request):
            refused = check_before_asking(self._context, self.info, self._subscriptions, request, now)
            if refused is not None:
                effects = self._refuse_command(command.id, refused)
            else:
                is_next = not before or all(type(effect) is Send for effect in before)
                effects = self._request_authorization(command.id, request, now, is_next=is_next)
        else:
            effects = self._run_request(command.id, request, None, now)
        return self._count_error(effects, now) if len(effects) == 1 and is_error(effects[0]) else effects

    def _run_request(
        self, command_id: int, request: Request, approval: Approval | None, now: Timestamp
    ) -> list[Effect]:
        match request:
            case ConnectRequest():
                return self._connect(command_id, request, approval, now)
            case SubscribeRequest():
                return self._subscribe(command_id, request, approval, now)
            case UnsubscribeRequest():
                return self._apply(self._subscriptions.unsubscribe(command_id, request))
            case PublishRequest() | RpcRequest():
                return self._execute(command_id, request, approval, now)
            case PresenceRequest() | PresenceStatsRequest() | HistoryRequest():
                return self._execute(command_id, request, None, now)
            case SendRequest():
                return self._close(errors.UNSUPPORTED)
            case RefreshRequest():
                return self._refresh(command_id, request, connection_claims_of(approval), now)
            case SubRefreshRequest():
                return self._apply(
                    self._subscriptions.refresh(
                        command_id, request, subscription_claims_of(approval), self.info, now
                    )
                )
            case _:
                assert_never(request)

    def _apply(self, outcome: Outcome) -> list[Effect]:
        return self._close(outcome) if isinstance(outcome, Disconnect) else outcome

    # ------------------------------------------------------------------------------------------------- limits

    def _take_command(self, now: Timestamp) -> Exceeded | None:
        """Use one of the connection's and of its user's commands. Refused commands count, too."""
        limits = self._context.limits
        exceeded = None
        taken = limits.commands.take(self._commands_full_at, now.monotonic)
        if taken is None:
            exceeded = limits.too_many_commands
            taken = limits.commands_at_most.take(self._commands_full_at, now.monotonic)
        if taken is None:
            return limits.far_too_many_commands
        self._commands_full_at = taken
        if exceeded is None and self.phase is CONNECTED:
            return limits.take_command(self.info, now.monotonic)
        return exceeded

    def _apply_limit(self, command_id: int, exceeded: Exceeded) -> list[Effect]:
        self._context.report_limit(self.client, exceeded.limit)
        return (
            self._close(errors.RATE_LIMITED) if exceeded.is_final else [refuse(command_id, exceeded.refusal)]
        )

    def _count_error(self, effects: list[Effect], now: Timestamp) -> list[Effect]:
        """Count a refused command; close the connection if it is one too many."""
        limits = self._context.limits
        taken = limits.errors.take(self._errors_full_at, now.monotonic)
        if taken is None:
            self._context.report_limit(self.client, "client.error_limit")
            return effects + self._close(errors.TOO_MANY_ERRORS)
        self._errors_full_at = taken
        return effects

    # ------------------------------------------------------------------------------------------ authorization

    def _request_authorization(
        self, command_id: int, request: Request, now: Timestamp, *, is_next: bool
    ) -> list[Effect]:
        """Ask outside the session, and go on at once or in `_on_authorized`.

        Not at once if earlier commands left more than replies to do: what they asked for comes first.
        """
        if self._authorizing is None:
            self._authorizing = PendingAuthorizations()
        due_at = now.monotonic + self._context.authorization_seconds
        pending = PendingAuthorization(command_id, request, due_at, now.unix)
        authorize = Authorize(self._authorizing.next_number(), request, self.info)
        outcome = self._context.decide_now(authorize) if is_next else None
        if outcome is not None:
            return self._on_decided(pending, outcome, now)
        if self.phase is NEW:
            self._move(Cause.AUTHORIZATION_REQUESTED)
        self._authorizing[authorize.id] = pending
        return [authorize]

    def _on_authorized(self, event: events.Authorized, now: Timestamp) -> list[Effect]:
        if event.id < 0:
            return self._on_renewed(event, now)
        pending = self._authorizing.take(event.id) if self._authorizing else None
        if pending is None:  # it was refused for its time limit
            return []
        return self._on_decided(pending, event.outcome, now)

    def _on_decided(
        self, pending: PendingAuthorization, outcome: AuthorizedOutcome, now: Timestamp
    ) -> list[Effect]:
        command_id = pending.command_id
        pending.check(outcome)
        match outcome:
            case Approval():
                return self._run_request(command_id, outcome.request, pending.dated(outcome), now)
            case Disconnect():
                return self._close(outcome)
            case RpcResult():
                return [Send(Reply(command_id, rpc=outcome))]
            case Refusal() if isinstance(pending.request, ConnectRequest):
                return self._refuse_connect(command_id, outcome)
            case Refusal():
                return [refuse(command_id, outcome)]
            case Renewal():  # only what the session itself asked has such an answer
                raise AssertionError("it was not checked")
            case _:
                assert_never(outcome)

    def _expire_authorizations(self, now: Timestamp) -> list[Effect]:
        effects: list[Effect] = []
        for pending in self._authorizing.take_due(now.monotonic) if self._authorizing else ():
            if isinstance(pending.request, ConnectRequest):
                return self._close(errors.SERVER_ERROR)
            effects.append(refuse(pending.command_id, errors.INTERNAL_ERROR))
        return effects

    # ----------------------------------------------------------------------------------------------- renewals

    def _renew_before(self, channel: str, expires_at: float | None, now: Timestamp) -> None:
        """Ask before an expiry whether the connection ("") or a subscription goes on, if that is of use."""
        request = SubRefreshRequest(channel) if channel else RefreshRequest()
        if expires_at is not None and self._context.needs_authorization(request):
            if self._renewals is None:
                self._renewals = Renewals()
            self._renewals.schedule(channel, expires_at, now.monotonic)

    def _ask_for_renewals(self, now: Timestamp) -> list[Effect]:
        if self._renewals is None or self.phase is not CONNECTED:
            return []
        seconds = self._context.authorization_seconds
        return [*self._renewals.questions(self.info, self._subscriptions, seconds, now)]

    def _on_renewed(self, answer: events.Authorized, now: Timestamp) -> list[Effect]:
        """Go on as the answer to a question of the session itself says."""
        if self._renewals is None:
            return []
        decided = self._renewals.answered(answer, self._subscriptions, now)
        if isinstance(decided, Disconnect):
            return self._close(decided)
        if isinstance(decided, Expired):
            if not decided.channel:
                return self._close(errors.CONNECTION_EXPIRED)
            return self._apply(self._subscriptions.expire_now(decided.channel))
        if decided is not None:
            extend = self._extend if decided.subscription is None else decided.subscription.extend
            extend(decided.expires_at, decided.info, decided.asked_at)
        return []

    def _extend(self, expires_at: float | None, info: Raw, issued_at: float | None) -> None:
        self._expires_at = expires_at
        if issued_at is not None:
            self._issued_at = issued_at
        if info:
            self.info = ClientInfo(self.user, self.client, info)

    # ------------------------------------------------------------------------------------------------ connect

    def _connect(
        self, command_id: int, request: ConnectRequest, approval: Approval | None, now: Timestamp
    ) -> list[Effect]:
        claims = connection_claims_of(approval)
        decided = authorize_connection(self._context, self.client, request, now, claims)
        if isinstance(decided, Refusal):
            return self._refuse_connect(command_id, decided)
        if isinstance(decided, Disconnect):
            return self._close(decided)
        exceeded = self._subscriptions.take_new_channels(decided.subscriptions, decided.info, now)
        if exceeded is not None:
            self._context.report_limit(self.client, exceeded.limit)
            return self._refuse_connect(command_id, exceeded.refusal)
        self._move(Cause.CONNECT_AUTHORIZED)
        self.info = decided.info
        self.identified_at = now.unix
        self._expires_at = decided.expires_at
        self._token_id, self._issued_at = decided.token_id, decided.issued_at
        self._granted_channels = decided.granted
        self._connect_command_id = command_id
        if approval is not None:
            self._connect_data = approval.data
        if claims is not None:
            self._is_refreshed_by_client = False
            self._renew_before("", self._expires_at, now)
            for channel, subscription in decided.subscriptions.items():
                if not subscription.is_refreshed_by_client:
                    self._renew_before(channel, subscription.expires_at, now)
        identify = Identify(self.user)
        if self.user and self._context.options.user_connection_limit:
            self._reserving = decided
            return [identify, ReserveConnection(self.user)]
        return [identify, *self._begin_subscriptions(decided, now)]

    def _on_reservation(
        self, event: events.ConnectionReserved | events.ConnectionRefused, now: Timestamp
    ) -> list[Effect]:
        decided, self._reserving = self._reserving, None
        if decided is None:
            return []
        if isinstance(event, events.ConnectionReserved):
            return self._begin_subscriptions(decided, now)
        if isinstance(event.why, Disconnect):
            return self._close(event.why)
        return self._refuse_connect(self._connect_command_id, event.why)

    def _begin_subscriptions(self, decided: AuthorizedConnection, now: Timestamp) -> list[Effect]:
        opening = self._subscriptions.begin(decided.subscriptions, decided.capabilities)
        return opening or self._confirm_connect(events.SubscriptionsOpened({}), now)

    def _refuse_connect(self, command_id: int, refusal: Refusal) -> list[Effect]:
        """Drop all commands received so far. Any later one closes the connection (protocol §3)."""
        if self._is_unidirectional:
            return self._close(errors.unidirectional_disconnect(refusal))
        self._move(Cause.CONNECT_REFUSED)
        self._drop_commands()
        self._renewals = None
        self._early_subscribes = ()
        return [refuse(command_id, refusal)]

    def _confirm_connect(self, opened: events.SubscriptionsOpened, now: Timestamp) -> list[Effect]:
        self._move(Cause.SUBSCRIPTIONS_OPENED)
        self._stale_at = None
        interval = self._context.options.ping_interval
        if self._sends_pings:
            self._next_ping_at = now.monotonic + interval * self._ping_phase
        expires_at = self._expires_at if self._is_refreshed_by_client else None
        result = ConnectResult(
            client=self.info.client,
            version=self._context.version,
            expires=expires_at is not None,
            ttl=ttl_seconds(expires_at, now),
            data=self._connect_data,
            subs=self._subscriptions.connect_results(opened, now) if opened.histories else {},
            ping=max(1, round(interval)) if self._announces_pings else 0,
            pong=self._announces_pings and self._wants_pong,
            node=self._context.node,
        )
        effects: list[Effect] = [Send(Reply(self._connect_command_id, connect=result))]
        if opened.histories:
            effects += self._subscriptions.go_live(opened)
        for event in self._early_subscribes:
            effects += self._subscriptions.subscribe_from_server(event, self.info, now)
        self._early_subscribes = ()
        self._connect_data = NO_JSON
        return effects

    def _refresh(
        self, command_id: int, request: RefreshRequest, claims: ConnectionClaims | None, now: Timestamp
    ) -> list[Effect]:
        if not request.token:
            return self._close(errors.PROTOCOL_VIOLATION)
        if not self._is_refreshed_by_client:
            reason = "the connection was admitted without it, so the node renews it"
            self._context.report_refusal(self.client, "connection token", reason)
            return self._close(errors.PROTOCOL_VIOLATION)
        found = authorize_refresh(
            self._context, self.info, self._granted_channels, request.token, now, claims
        )
        if not isinstance(found, ConnectionClaims):
            return self._refuse_command(command_id, found)
        if not self._context.options.insecure:
            self._expires_at = monotonic_deadline(found.expires_at, now)
        if _is_over(self._expires_at, now, self._context.tokens.leeway_for(found)):
            return self._close(errors.CONNECTION_EXPIRED)
        self._token_id, self._issued_at = found.jti, issued_at(found)
        self.info = ClientInfo(self.user, self.client, embedded(found.info, found.b64info))
        is_expiring, ttl = self._expires_at is not None, ttl_seconds(self._expires_at, now)
        result = RefreshResult(self.client, self._context.version, expires=is_expiring, ttl=ttl)
        ended = self._subscriptions.change_capabilities(capabilities(found.caps), self.user)
        return [Send(Reply(command_id, refresh=result)), *ended]

    # ---------------------------------------------------------------------- commands that the engine executes

    def _subscribe(
        self, command_id: int, request: SubscribeRequest, approval: Approval | None, now: Timestamp
    ) -> list[Effect]:
        effects = self._apply(self._subscriptions.subscribe(command_id, request, approval, self.info, now))
        if approval is not None and approval.claims is not None:
            subscription = self._subscriptions.renewable(request.channel)
            if subscription is not None:
                self._renew_before(request.channel, subscription.expires_at, now)
        return effects

    def _execute(
        self, command_id: int, request: ExecutedRequest, approval: Approval | None, now: Timestamp
    ) -> list[Effect]:
        decided = authorize_command(
            self._context, self.info, self._subscriptions, command_id, request, approval, now
        )
        if isinstance(decided, Execute):
            self._executing = decided
            return [decided]
        return self._refuse_command(command_id, decided)

    def _refuse_command(self, command_id: int, why: Refusal | Exceeded | Disconnect) -> list[Effect]:
        if isinstance(why, Disconnect):
            return self._close(why)
        if isinstance(why, Exceeded):
            return self._apply_limit(command_id, why)
        return [refuse(command_id, why)]

    def _on_executed(self, event: events.Executed) -> list[Effect]:
        executing = self._executing
        if executing is None or executing.id != event.id:
            return []
        self._executing = None
        if isinstance(event.outcome, Refusal):
            return [refuse(executing.id, event.outcome)]
        return [answer(executing.id, executing.request, event.outcome)]

    # --------------------------------------------------------------------------------------------------- time

    def _on_pong(self) -> list[Effect]:
        if not self._unanswered_pings:
            return self._close(errors.PROTOCOL_VIOLATION)
        self._unanswered_pings -= 1
        self._pong_due_at = None
        return []

    def _on_deadline(self, now: Timestamp) -> list[Effect]:
        delay = self._context.options.expired_close_delay
        effects = self._expire_authorizations(now)
        if self.is_closed:
            return effects
        effects += self._ask_for_renewals(now)
        if _is_over(self._stale_at, now):
            is_our_fault = self.phase in (CONNECTING, AUTHORIZING)
            return self._close(errors.SERVER_ERROR if is_our_fault else errors.STALE)
        if not self._waits_for_another and _is_over(self._pong_due_at, now):
            return effects + self._close(errors.NO_PONG)
        if _is_over(self._expires_at, now, delay):
            return effects + self._close(errors.CONNECTION_EXPIRED)
        for ended in self._subscriptions.expire(now):
            if isinstance(ended, Disconnect):
                return effects + self._close(ended)
            effects.append(ended)
        return effects + self._ping(now) if _is_over(self._next_ping_at, now) else effects

    def _ping(self, now: Timestamp) -> list[Effect]:
        options = self._context.options
        self._next_ping_at = now.monotonic + options.ping_interval
        if self._wants_pong:
            self._unanswered_pings += 1
            self._pong_due_at = now.monotonic + options.pong_timeout
        return [Send(PING)]

    # --------------------------------------------------------------------------------------- the server's API

    def _subscribe_from_server(self, event: events.ServerSubscribe, now: Timestamp) -> list[Effect]:
        """Subscribe now, or after the connect reply: the API finds a connection as soon as it has a user."""
        if self.phase is CONNECTED:
            return self._subscriptions.subscribe_from_server(event, self.info, now)
        if self.phase is CONNECTING:
            self._early_subscribes = [*self._early_subscribes, event]
        return []

    def _refresh_from_server(self, event: events.ServerRefresh, now: Timestamp) -> list[Effect]:
        if event.is_expired:
            return self._close(errors.CONNECTION_EXPIRED)
        self._expires_at = monotonic_deadline(event.expire_at, now)
        if self._renewals is not None and "" in self._renewals:
            self._renewals.schedule("", self._expires_at, now.monotonic)
        if event.info:
            self.info = ClientInfo(self.user, self.client, event.info)
        if self.phase is not CONNECTED:
            return []  # no push precedes the connect reply, which will state the expiry
        ttl = ttl_seconds(self._expires_at, now)
        return [send_push(Push(refresh=RefreshPush(self._expires_at is not None, ttl)))]

    def _end_revoked(self, now: Timestamp) -> list[Effect]:
        """End what a revoked token allows, as if the token had expired: the client gets a new one."""
        if self._issued_at is not None and self._context.revocations.covers(
            self._token_id, self.user, self._issued_at, now.unix
        ):
            return self._close(errors.CONNECTION_EXPIRED)
        return self._subscriptions.end_revoked(self.user, now)

    # ------------------------------------------------------------------------------------------------ the end

    def _move(self, cause: Cause) -> None:
        self.phase = next_phase(self.phase, cause)

    def _close(self, why: Disconnect) -> list[Effect]:
        return [Close(why), *self._finish()]

    def _finish(self) -> list[Effect]:
        self._move(Cause.CLOSED)
        self._drop_commands()
        self._authorizing = self._reserving = self._renewals = None
        return self._subscriptions.close_live()

    def _drop_commands(self) -> None:
        self.backlog.clear()
        self._message = self._unread = None

    def _undo_opening(self, event: Event) -> list[Effect]:
        """Close the subscriptions whose set-up ended after the session did; ignore every other event."""
        match event:
            case events.SubscriptionsOpened(histories):
                return self._subscriptions.undo(histories)
            case events.SubscriptionsFailed(channels):
                return self._subscriptions.undo(channels)
            case _:
                return []


def _is_refresh_without_token(request: Request) -> bool:
    return isinstance(request, _REFRESHES) and not request.token


def _is_over(moment: float | None, now: Timestamp, delay: float = 0) -> bool:
    return moment is not None and now.monotonic >= moment + delay
