"""One client's connection, as a value: told what happened and what time it is, it says what to do (pure).

connecting [authorizing → opening → greeting] → connected → connecting [waiting → …] … → disconnected for good
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from itertools import chain
from typing import Any

from . import backoff, effects, errors, protocol
from .effects import Effect
from .errors import TocsinError
from .ledger import Ledger
from .protocol import ConnectRequest, ConnectResult, RefreshRequest, Reply
from .subscriptions import REFRESH_RETRY_SECONDS, Subscriptions
from .values import State, StateChanged

COMMAND_SECONDS = 5.0
PING_GRACE_SECONDS = 10.0  # both as the protocol's other clients (protocol §15)
STEADY_SECONDS = 10.0  # connected for this long, a connection's past failures are forgotten
NORMAL_CLOSE = 1000


class Phase(Enum):
    """What a connection waits for."""

    NEW = auto()
    WAITING = auto()
    AUTHORIZING = auto()
    OPENING = auto()
    GREETING = auto()
    CONNECTED = auto()
    ENDED = auto()


class Session:
    """The state machine of a client: ``handle`` every event, and a ``Tick`` at the ``deadline``.

    ``random`` gives numbers in [0, 1). ``token`` is used until it expires; with ``has_provider`` the shell
    is asked for tokens. ``data`` and ``headers`` go with every connect command. After ``End`` a session is
    over.
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
        self._ledger = Ledger(COMMAND_SECONDS)
        self._subscriptions = Subscriptions(self._ledger, random, self._reconnect)
        self._random = random
        self._token = token
        self._has_provider = has_provider
        self._greeting = ConnectRequest(data=data, name=name, headers=headers or {})
        self._phase = Phase.NEW
        self._attempt = 0
        self._connected_at = 0.0
        self._is_refreshing = False
        self._silence: float | None = None  # seconds without a frame after which the server counts as gone
        self._must_pong = False
        self._due: dict[str, float] = {}
        self._has_transport = False
        self._waiting_calls: dict[float, list[effects.Call]] = {}
        self._reactions: dict[type, Callable[[Any], None]] = {
            effects.Start: self._start,
            effects.Opened: self._opened,
            effects.Received: self._received,
            effects.Lost: self._lost,
            effects.Refused: self._refused,
            effects.TokenFound: self._token_found,
            effects.TokenFailed: self._token_failed,
            effects.Tick: lambda _: None,
            effects.Subscribe: lambda event: self._subscriptions.add(event.channel),
            effects.Unsubscribe: lambda event: self._subscriptions.remove(event.channel),
            effects.Pause: lambda event: self._subscriptions.pause(event.channel),
            effects.Resume: lambda event: self._subscriptions.resume(event.channel),
            effects.Reconnect: lambda event: self._reconnect(event.reason),
            effects.Call: self._call,
            effects.Stop: lambda _: self._end(errors.CLIENT_CLOSED, "closed", None),
        }

    @property
    def deadline(self) -> float | None:
        """When to call ``handle`` at the latest, on the clock of its ``now``; None: nothing is due."""
        due = [*self._due.values(), *self._waiting_calls]
        due += [at for at in (self._ledger.deadline, self._subscriptions.deadline) if at is not None]
        return min(due, default=None)

    def handle(self, event: effects.Event, now: float) -> list[Effect]:
        """Take in one event; carry the effects out in order. Raises for nothing a server sends."""
        self._ledger.now = now
        if self._phase is not Phase.ENDED:
            self._reactions[type(event)](event)
            self._expire()
        elif isinstance(event, effects.Call):
            error = errors.Disconnected(errors.CLIENT_CLOSED, "the client is closed")
            self._ledger.emit(effects.Answer(event.key, None, error))
        return self._ledger.take()

    # --- connecting

    def _start(self, _: effects.Start) -> None:
        if self._phase is Phase.NEW:
            self._ledger.tell(StateChanged(State.CONNECTING, 0, "connect called"))
            self._dial()

    def _dial(self) -> None:
        if self._has_provider and not self._token:
            self._phase = Phase.AUTHORIZING
            self._ledger.emit(effects.AskToken(None))
        else:
            self._phase = Phase.OPENING
            self._has_transport = True
            self._ledger.emit(effects.Open())

    def _opened(self, _: effects.Opened) -> None:
        if self._phase is not Phase.OPENING:
            return
        self._phase = Phase.GREETING
        greeting = self._greeting
        greeting.token = self._token
        greeting.subs = {
            name: channel.request() for name, channel in self._subscriptions.recovery_requests().items()
        }
        self._ledger.ask("connect", greeting, self._greeted, self._not_greeted)

    def _greeted(self, reply: Reply) -> None:
        if reply.error is not None:
            self._rejected(reply.error)
        elif reply.connect is None:
            self._end_on_bad_protocol("the answer to connect has no result")
        else:
            self._connected(reply.connect)

    def _rejected(self, error: protocol.WireError) -> None:
        if error.code == errors.TOKEN_EXPIRED:
            self._token = ""
            if not self._has_provider:
                self._end(errors.CLIENT_UNAUTHORIZED, "the token is expired", None)
                return
        if errors.is_temporary(error.code, error.temporary):
            self._retreat(error.code, error.message)
        else:
            self._end(error.code, error.message, errors.disconnect_error(error.code, error.message))

    def _not_greeted(self, error: TocsinError) -> None:
        if self._phase is Phase.GREETING:
            self._retreat(0, str(error))

    def _connected(self, result: ConnectResult) -> None:
        self._phase = Phase.CONNECTED
        self._connected_at = self._ledger.now
        self._must_pong = result.pong
        self._silence = result.ping + PING_GRACE_SECONDS if result.ping else None
        self._heard()
        if result.expires and self._has_provider:
            self._due["refresh"] = self._ledger.now + result.ttl
        self._ledger.tell(StateChanged(State.CONNECTED, 0, "connected"))
        self._subscriptions.connected(result.subs or {})
        waiting, self._waiting_calls = self._waiting_calls, {}
        for call in chain.from_iterable(waiting.values()):
            self._send_call(call)

    # --- listening

    def _received(self, event: effects.Received) -> None:
        if self._phase not in (Phase.GREETING, Phase.CONNECTED):
            return
        self._heard()
        try:
            replies = protocol.decode(event.frame)
        except errors.BadProtocol as error:
            self._end_on_bad_protocol(str(error))
            return
        for reply in replies:
            if self._has_transport:  # else a reply ended this connection: the rest is recovered on the next
                self._take(reply)

    def _take(self, reply: Reply) -> None:
        if reply.push is not None:
            if reply.push.disconnect is not None:
                self._closed(reply.push.disconnect.code, reply.push.disconnect.reason)
            elif self._phase is Phase.CONNECTED:
                self._subscriptions.take(reply.push)
        elif not reply.is_ping:
            self._ledger.settle(reply)
        elif self._must_pong:
            self._ledger.emit(effects.Send(protocol.PONG))

    def _heard(self) -> None:
        if self._silence is not None:
            self._due["ping"] = self._ledger.now + self._silence

    # --- losing the connection

    def _lost(self, event: effects.Lost) -> None:
        if self._has_transport:
            self._has_transport = False
            self._closed(event.code, event.reason)

    def _closed(self, code: int, reason: str) -> None:
        if code == errors.STATE_INVALIDATED:
            self._subscriptions.invalidate()
            self._token = "" if self._has_provider else self._token
        if errors.may_come_back(code):
            self._retreat(code, reason)
        else:
            self._end(code, reason, None)

    def _refused(self, event: effects.Refused) -> None:
        self._has_transport = False
        self._end(errors.CLIENT_UNAUTHORIZED, str(event.error), event.error)

    def _reconnect(self, reason: str) -> None:
        self._retreat(0, reason)

    def _retreat(self, code: int, reason: str) -> None:
        """Give the transport up and come back after a while."""
        if self._phase in (Phase.NEW, Phase.WAITING, Phase.ENDED):
            return
        now = self._ledger.now
        if self._phase is Phase.CONNECTED and now - self._connected_at >= STEADY_SECONDS:
            self._attempt = 0
        self._disconnect(Phase.WAITING)
        self._due["connect"] = now + backoff.delay(self._attempt, self._random())
        self._attempt += 1
        self._ledger.tell(StateChanged(State.CONNECTING, code, reason))

    def _end(self, code: int, reason: str, error: TocsinError | None) -> None:
        """Stop for good; an error for the owner unless the owner wanted it."""
        if code != errors.CLIENT_CLOSED and error is None:
            error = errors.disconnect_error(code, reason)
        self._disconnect(Phase.ENDED)
        gone = error or errors.Disconnected(code, reason)
        for call in chain.from_iterable(self._waiting_calls.values()):
            self._ledger.emit(effects.Answer(call.key, None, gone))
        self._waiting_calls.clear()
        self._ledger.tell(StateChanged(State.DISCONNECTED, code, reason))
        self._ledger.emit(effects.End(error))

    def _end_on_bad_protocol(self, reason: str) -> None:
        self._end(errors.CLIENT_BAD_PROTOCOL, reason, None)

    def _disconnect(self, next_phase: Phase) -> None:
        self._hang_up()
        self._phase = next_phase
        self._due.clear()
        self._silence = None
        self._is_refreshing = False
        self._subscriptions.disconnected()
        self._ledger.lose()

    def _hang_up(self) -> None:
        if self._has_transport:
            self._has_transport = False
            self._ledger.emit(effects.Hangup(NORMAL_CLOSE, ""))

    # --- tokens

    def _token_found(self, event: effects.TokenFound) -> None:
        if event.channel is not None:
            self._subscriptions.token_found(event.channel, event.token)
        elif self._phase is Phase.AUTHORIZING or self._is_refreshing:
            if not event.token:
                self._end(errors.CLIENT_UNAUTHORIZED, "get_token gave no token", None)
                return
            self._token = event.token
            if self._is_refreshing:
                request = RefreshRequest(event.token)
                self._ledger.ask("refresh", request, self._refreshed, lambda _: self._refresh_later())
            else:
                self._dial()

    def _token_failed(self, event: effects.TokenFailed) -> None:
        if event.channel is not None:
            self._subscriptions.token_failed(event.channel, event.reason, is_final=event.is_final)
        elif self._phase is Phase.AUTHORIZING or self._is_refreshing:
            if event.is_final:
                self._end(errors.CLIENT_UNAUTHORIZED, event.reason, None)
            elif self._is_refreshing:
                self._refresh_later()
            else:
                self._retreat(0, f"get_token failed: {event.reason}")

    def _refreshed(self, reply: Reply) -> None:
        error = reply.error
        if error is not None and not errors.is_temporary(error.code, error.temporary):
            self._end(error.code, error.message, errors.disconnect_error(error.code, error.message))
        elif reply.refresh is None:
            self._refresh_later()
        else:
            self._is_refreshing = False
            if reply.refresh.expires:
                self._due["refresh"] = self._ledger.now + reply.refresh.ttl

    def _refresh_later(self) -> None:
        if self._phase is Phase.CONNECTED:
            self._is_refreshing = False
            self._due["refresh"] = self._ledger.now + REFRESH_RETRY_SECONDS * (1 + self._random())

    # --- calls and deadlines

    def _call(self, call: effects.Call) -> None:
        if self._phase is Phase.CONNECTED:
            self._send_call(call)
        else:
            self._waiting_calls.setdefault(self._ledger.now + COMMAND_SECONDS, []).append(call)

    def _send_call(self, call: effects.Call) -> None:
        def answered(reply: Reply) -> None:
            result: Any = getattr(reply, call.method)
            error: TocsinError | None = None
            if reply.error is not None:
                error = errors.call_error(reply.error.code, reply.error.message, reply.error.temporary)
            elif result is None:
                error = errors.BadProtocol(f"the answer to {call.method} has no result")
            self._ledger.emit(effects.Answer(call.key, result, error))

        def failed(error: TocsinError) -> None:
            self._ledger.emit(effects.Answer(call.key, None, error))

        self._ledger.ask(call.method, call.request, answered, failed)

    def _expire(self) -> None:
        now = self._ledger.now
        self._ledger.expire()
        self._subscriptions.expire()
        for deadline in [deadline for deadline in self._waiting_calls if deadline <= now]:
            for call in self._waiting_calls.pop(deadline):
                error = errors.TimedOut(f"not connected within {COMMAND_SECONDS:g} s to {call.method}")
                self._ledger.emit(effects.Answer(call.key, None, error))
        for name in [name for name, deadline in self._due.items() if deadline <= now]:
            if self._due.pop(name, None) is not None:
                self._came_due(name)

    def _came_due(self, name: str) -> None:
        if name == "ping":
            self._retreat(0, "no ping from the server")
        elif name == "connect":
            self._dial()
        else:
            self._is_refreshing = True
            self._ledger.emit(effects.AskToken(None))
