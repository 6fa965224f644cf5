"""The state machine of a client: events and the time go in, effects come out (pure).

A session lasts for the life of a client and spans all its connections. It never waits, reads a clock or
touches a socket. ``handle`` takes an event and the time, and returns effects; the driver carries them out.
A faulty server never raises here: it ends the session or the connection, by effects.

    new → [authorizing] → opening → connect sent → connected
    each of these → waiting → [authorizing] → opening …        each phase → ended

There are three ways in which a connection ends:

1. The transport is lost, or the server disconnects. The close code decides whether the session waits and
   connects again, or ends.
2. The session itself gives the connection up: no ping, no reply to connect, a missing publication of a
   server-side subscription. It closes the transport, waits and connects again.
3. The caller stops, a token is final, or the server does not speak the protocol. The session ends.

In all three ways, the commands in flight fail, since the server may or may not have run them. Commands that
still wait for a connection fail after ``COMMAND_SECONDS``, or when the session ends. Subscriptions keep their
positions and recover on the next connection.

No server makes a session act often. Reconnects and new tokens follow each other by ``backoff``, which counts
attempts until a connection has lasted. A message of any number of pings is answered by one pong. A command
that is refused with error 111 (too many requests) is sent again later.

The mutable state is that of ``Session``, ``Subscriptions``, ``PendingCommands``, ``WaitingCommands`` and
``Turn``. Only ``handle`` changes it, and ``phase`` moves only along the table in ``phases``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

from tocsin import backoff, errors
from tocsin.errors import TocsinError
from tocsin.models import State, StateChanged
from tocsin.protocol import codec
from tocsin.protocol.messages import ConnectRequest, ConnectResult, RefreshRequest, Reply, WireError

from . import effects, events
from .commands import PendingCommands
from .effects import Effect
from .phases import TRANSITIONS, ConnectionPhase
from .subscriptions import REFRESH_RETRY_SECONDS, Subscriptions
from .turn import Turn
from .waiting_commands import WaitingCommand, WaitingCommands

COMMAND_SECONDS = 5.0
PING_GRACE_SECONDS = 10.0  # both as the protocol's other clients (protocol §15)
LONGEST_PING_SECONDS = 86_400.0
NORMAL_CLOSE = 1000


class Session:
    """The session of one client, across all its connections.

    Call ``handle`` with each event, and with a ``Timeout`` at the ``deadline``. ``random`` returns numbers in
    [0, 1). ``token`` is used until it expires; with ``has_provider`` the session requests tokens by
    ``FetchToken``. ``data`` and ``headers`` go with every connect command. After ``SessionEnded`` a session
    only answers commands, with an error.
    """

    def __init__(
        self,
        *,
        random: Callable[[], float],
        token: str = "",
        has_provider: bool = False,
        name: str = "tocsin",
        data: Any = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._turn = Turn()
        self._commands = PendingCommands(self._turn, COMMAND_SECONDS)
        self._waiting = WaitingCommands(self._turn, random, COMMAND_SECONDS)
        self._subscriptions = Subscriptions(self._turn, self._commands, random, self._reconnect)
        self._random = random
        self._token = token
        self._has_provider = has_provider
        self._connect_request = ConnectRequest(data=data, name=name, headers=headers or {})
        self.phase = ConnectionPhase.NEW
        self._failures = 0
        self._connected_at = 0.0
        self._is_refreshing = False
        self._early_refreshes = 0  # in a row, each later than the server said
        self._ping_timeout: float | None = None  # seconds without a frame until the connection counts as lost
        self._must_pong = False
        self._owes_pong = False
        self._deadlines: dict[str, float] = {}
        self._has_transport = False

    @property
    def deadline(self) -> float | None:
        """When to call ``handle`` at the latest, on the clock of its ``now``. None: no deadline."""
        others = (self._commands.deadline, self._waiting.deadline, self._subscriptions.deadline)
        return min([*self._deadlines.values(), *(at for at in others if at is not None)], default=None)

    def handle(self, event: events.SessionEvent, now: float) -> list[Effect]:
        """Handle one event. The caller carries the effects out in order. No server message makes it raise."""
        self._turn.now = now
        if self.phase is not ConnectionPhase.ENDED:
            self._dispatch(event)
            self._expire()
        elif isinstance(event, events.IssueCommand):
            error = errors.Disconnected(errors.CLIENT_CLOSED, "the client is closed")
            self._turn.emit(effects.CommandFinished(event.key, None, error))
        return self._turn.take()

    def _dispatch(self, event: events.SessionEvent) -> None:  # noqa: C901, PLR0912 # a case for each event
        match event:
            case events.Start():
                self._on_start()
            case events.Stop():
                self._end(errors.CLIENT_CLOSED, "closed", None)
            case events.TransportOpened():
                self._on_transport_opened()
            case events.TransportLost():
                self._on_transport_lost(event)
            case events.TransportRefused():
                self._on_transport_refused(event)
            case events.Received():
                self._on_received(event)
            case events.Timeout():
                pass  # after every event, `handle` acts on the deadlines
            case events.TokenReceived():
                self._on_token(event)
            case events.TokenFailed():
                self._on_token_failed(event)
            case events.Subscribe(subscription):
                self._subscriptions.add(subscription)
            case events.Unsubscribe(channel):
                self._subscriptions.remove(channel)
            case events.Pause(channel):
                self._subscriptions.pause(channel)
            case events.Resume(channel):
                self._subscriptions.resume(channel)
            case events.Reconnect(reason):
                self._reconnect(reason)
            case events.IssueCommand():
                self._on_issue_command(event)
            case _:
                assert_never(event)

    def _enter(self, phase: ConnectionPhase) -> None:
        assert phase in TRANSITIONS[self.phase]  # noqa: S101 # the table is complete
        self.phase = phase

    # --- connecting

    def _on_start(self) -> None:
        if self.phase is ConnectionPhase.NEW:
            self._turn.notify(StateChanged(State.CONNECTING, 0, "connect called"))
            self._connect()

    def _connect(self) -> None:
        if self._has_provider and not self._token:
            self._enter(ConnectionPhase.AUTHORIZING)
            self._turn.emit(effects.FetchToken(None))
        else:
            self._enter(ConnectionPhase.OPENING)
            self._has_transport = True
            self._turn.emit(effects.OpenTransport())

    def _on_transport_opened(self) -> None:
        if self.phase is not ConnectionPhase.OPENING:
            return
        self._enter(ConnectionPhase.CONNECT_SENT)
        request = self._connect_request
        request.token = self._token
        to_recover = self._subscriptions.server_side_to_recover()
        request.subs = {name: subscription.request() for name, subscription in to_recover.items()}
        self._commands.send("connect", request, self._on_connect_reply, self._on_connect_failure)

    def _on_connect_reply(self, reply: Reply) -> None:
        if reply.error is not None:
            self._on_connect_error(reply.error)
        elif reply.connect is None:
            self._end_on_bad_protocol("the reply to connect has no result")
        else:
            self._on_connected(reply.connect)

    def _on_connect_error(self, error: WireError) -> None:
        if error.code == errors.TOKEN_EXPIRED:
            self._token = ""
            if not self._has_provider:
                self._end(errors.CLIENT_UNAUTHORIZED, "the token is expired", None)
                return
        if errors.is_temporary(error.code, error.temporary):
            self._schedule_reconnect(error.code, error.message)
        else:
            self._end(error.code, error.message, errors.disconnect_error(error.code, error.message))

    def _on_connect_failure(self, error: TocsinError) -> None:
        if self.phase is ConnectionPhase.CONNECT_SENT:
            self._schedule_reconnect(0, str(error))

    def _on_connected(self, result: ConnectResult) -> None:
        self._enter(ConnectionPhase.CONNECTED)
        self._connected_at = self._turn.now
        self._must_pong = result.pong
        ping = min(result.ping, LONGEST_PING_SECONDS)
        self._ping_timeout = ping + PING_GRACE_SECONDS if ping > 0 else None
        self._extend_ping_deadline()
        if result.expires and self._has_provider:
            self._refresh_after(result.ttl)
        self._turn.notify(StateChanged(State.CONNECTED, 0, "connected"))
        self._subscriptions.on_connected(result.subs or {})
        for waiting in self._waiting.take_unsent():
            self._send_command(waiting)

    # --- receiving

    def _on_received(self, event: events.Received) -> None:
        if self.phase not in (ConnectionPhase.CONNECT_SENT, ConnectionPhase.CONNECTED):
            return
        self._extend_ping_deadline()
        self._owes_pong = False
        try:
            for reply in codec.decode_replies(event.frame):
                self._handle_reply(reply)
                if not self._has_transport:
                    return  # the reply ended this connection; the next one recovers the rest
        except errors.BadProtocol as error:
            self._end_on_bad_protocol(str(error))
            return
        if self._owes_pong:
            self._turn.emit(effects.Send(codec.PONG))

    def _handle_reply(self, reply: Reply) -> None:
        if reply.push is not None:
            if reply.push.disconnect is not None:
                self._on_disconnected(reply.push.disconnect.code, reply.push.disconnect.reason)
            elif self.phase is ConnectionPhase.CONNECTED:
                self._subscriptions.handle_push(reply.push)
        elif not reply.is_ping:
            self._commands.handle_reply(reply)
        else:
            self._owes_pong = self._must_pong

    def _extend_ping_deadline(self) -> None:
        if self._ping_timeout is not None:
            self._deadlines["ping"] = self._turn.now + self._ping_timeout

    # --- losing the connection

    def _on_transport_lost(self, event: events.TransportLost) -> None:
        if self._has_transport:
            self._has_transport = False
            self._on_disconnected(event.code, event.reason, event.retry_after_seconds)

    def _on_disconnected(self, code: int, reason: str, retry_after: float = 0.0) -> None:
        if code == errors.STATE_INVALIDATED:
            self._subscriptions.invalidate()
            self._token = "" if self._has_provider else self._token
        if errors.may_reconnect(code):
            self._schedule_reconnect(code, reason, retry_after)
        else:
            self._end(code, reason, None)

    def _on_transport_refused(self, event: events.TransportRefused) -> None:
        self._has_transport = False
        self._end(errors.CLIENT_UNAUTHORIZED, str(event.error), event.error)

    def _reconnect(self, reason: str) -> None:
        self._schedule_reconnect(0, reason)

    def _schedule_reconnect(self, code: int, reason: str, retry_after: float = 0.0) -> None:
        """Give the transport up, and connect again after ``retry_after`` seconds and the backoff."""
        if self.phase in (ConnectionPhase.NEW, ConnectionPhase.WAITING, ConnectionPhase.ENDED):
            return
        now = self._turn.now
        if self.phase is ConnectionPhase.CONNECTED and now - self._connected_at >= backoff.STEADY_SECONDS:
            self._failures = 0
        if code in (errors.TOO_MANY_REQUESTS, errors.CLOSED_FOR_TOO_MANY_REQUESTS):
            self._failures = max(self._failures, backoff.OVERLOADED_ATTEMPT)
        self._drop_connection(ConnectionPhase.WAITING)
        self._deadlines["connect"] = now + retry_after + backoff.delay(self._failures, self._random())
        self._failures += 1
        self._turn.notify(StateChanged(State.CONNECTING, code, reason))

    def _end(self, code: int, reason: str, error: TocsinError | None) -> None:
        """End the session. The caller gets an error, unless it closed the client itself."""
        if code != errors.CLIENT_CLOSED and error is None:
            error = errors.disconnect_error(code, reason)
        self._drop_connection(ConnectionPhase.ENDED)
        self._waiting.fail_all(error or errors.Disconnected(code, reason))
        self._turn.notify(StateChanged(State.DISCONNECTED, code, reason))
        self._turn.emit(effects.SessionEnded(error))

    def _end_on_bad_protocol(self, reason: str) -> None:
        self._end(errors.CLIENT_BAD_PROTOCOL, reason, None)

    def _drop_connection(self, next_phase: ConnectionPhase) -> None:
        if self._has_transport:
            self._has_transport = False
            self._turn.emit(effects.CloseTransport(NORMAL_CLOSE, ""))
        self._enter(next_phase)
        self._deadlines.clear()
        self._ping_timeout = None
        self._is_refreshing = False
        self._subscriptions.on_disconnected()
        self._commands.fail_all()

    # --- tokens

    def _on_token(self, event: events.TokenReceived) -> None:
        if event.channel is not None:
            self._subscriptions.on_token(event.channel, event.token)
        elif self.phase is ConnectionPhase.AUTHORIZING or self._is_refreshing:
            if not event.token:
                self._end(errors.CLIENT_UNAUTHORIZED, "get_token returned no token", None)
                return
            self._token = event.token
            if self._is_refreshing:
                request = RefreshRequest(event.token)
                self._commands.send(
                    "refresh", request, self._on_refresh_reply, lambda _: self._refresh_later()
                )
            else:
                self._connect()

    def _on_token_failed(self, event: events.TokenFailed) -> None:
        if event.channel is not None:
            self._subscriptions.on_token_failed(event.channel, event.reason, is_final=event.is_final)
        elif self.phase is ConnectionPhase.AUTHORIZING or self._is_refreshing:
            if event.is_final:
                self._end(errors.CLIENT_UNAUTHORIZED, event.reason, None)
            elif self._is_refreshing:
                self._refresh_later()
            else:
                self._schedule_reconnect(0, f"get_token failed: {event.reason}")

    def _on_refresh_reply(self, reply: Reply) -> None:
        error = reply.error
        if error is not None and not errors.is_temporary(error.code, error.temporary):
            self._end(error.code, error.message, errors.disconnect_error(error.code, error.message))
        elif reply.refresh is None:
            self._refresh_later()
        else:
            self._is_refreshing = False
            if reply.refresh.expires:
                self._refresh_after(reply.refresh.ttl)

    def _refresh_after(self, ttl: int) -> None:
        delay = backoff.refresh_delay(ttl, self._early_refreshes)
        self._early_refreshes = self._early_refreshes + 1 if ttl < delay else 0
        self._deadlines["refresh"] = self._turn.now + delay

    def _refresh_later(self) -> None:
        if self.phase is ConnectionPhase.CONNECTED:
            self._is_refreshing = False
            self._deadlines["refresh"] = self._turn.now + REFRESH_RETRY_SECONDS * (1 + self._random())

    # --- commands and deadlines

    def _on_issue_command(self, command: events.IssueCommand) -> None:
        self._send_or_wait(self._waiting.new(command))

    def _send_or_wait(self, waiting: WaitingCommand) -> None:
        if self.phase is ConnectionPhase.CONNECTED:
            self._send_command(waiting)
        else:
            self._waiting.add(waiting)

    def _send_command(self, waiting: WaitingCommand) -> None:
        command = waiting.command

        def on_reply(reply: Reply) -> None:
            is_refused_now = reply.error is not None and reply.error.code == errors.TOO_MANY_REQUESTS
            if is_refused_now and self._waiting.delay(waiting):
                return
            result: Any = getattr(reply, command.method)
            error: TocsinError | None = None
            if reply.error is not None:
                error = errors.call_error(reply.error.code, reply.error.message, reply.error.temporary)
            elif result is None:
                error = errors.BadProtocol(f"the reply to {command.method} has no result")
            self._turn.emit(effects.CommandFinished(command.key, result, error))

        def on_failure(error: TocsinError) -> None:
            self._turn.emit(effects.CommandFinished(command.key, None, error))

        self._commands.send(command.method, command.request, on_reply, on_failure)

    def _expire(self) -> None:
        now = self._turn.now
        self._commands.expire()
        self._subscriptions.expire()
        for waiting in self._waiting.take_delayed():
            self._send_or_wait(waiting)
        self._waiting.expire()
        for name in [name for name, deadline in self._deadlines.items() if deadline <= now]:
            if self._deadlines.pop(name, None) is not None:
                self._on_deadline(name)

    def _on_deadline(self, name: str) -> None:
        if name == "ping":
            self._schedule_reconnect(0, "no ping from the server")
        elif name == "connect":
            self._connect()
        else:
            self._is_refreshing = True
            self._turn.emit(effects.FetchToken(None))
