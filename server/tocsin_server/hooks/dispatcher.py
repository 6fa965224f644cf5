"""Asks hooks on behalf of sessions: the one place with deadlines, limits, errors and metrics of hooks.

    request --> event --> slot --> hook, in time --> answer --> outcome for the session

Every hook has one deadline, the wait for a slot included. It is a fault if a hook raises, takes too long, or
answers what is not valid: the request is refused with error 100, and a connect command closes with 3004, so
that the client reconnects. If too many events wait already, the request is refused at once: 111, or 3004.

The mutable state is how many events wait or are asked about. Only `HookDispatcher` changes it.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tocsin_server import errors
from tocsin_server.config.loading import Settings
from tocsin_server.core.channel_names import Kind
from tocsin_server.core.events import Approval, Authorize, AuthorizedOutcome
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.hooks.answers import Answer
from tocsin_server.hooks.events import (
    ClientRequest,
    ConnectEvent,
    Event,
    HookKind,
    PublishEvent,
    RefreshEvent,
    RpcEvent,
    SubRefreshEvent,
    SubscribeEvent,
)
from tocsin_server.hooks.outcomes import InvalidAnswer, outcome_of
from tocsin_server.hooks.registry import Hooks, RegisteredHook, Section
from tocsin_server.hooks.threads import Threads
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.channel_rules import channel_rules
from tocsin_server.node.client_request import KeptHeaders
from tocsin_server.node.sampled_log import SampledLog
from tocsin_server.node.slots import Slots
from tocsin_server.protocol.messages import (
    ConnectRequest,
    PublishRequest,
    RefreshRequest,
    Request,
    RpcRequest,
    SubRefreshRequest,
    SubscribeRequest,
)

WAITING_FACTOR = 20
"""So many times `limits.hooks_at_once` events may wait."""

OWNER_SHARE = 8
"""One connection has at most this part of `limits.hooks_at_once`, so that it does not hold up the others."""

GRACE_SECONDS = 1.0
"""How much longer a session waits, for a hook that goes on although it was cancelled."""

KINDS: Mapping[type, HookKind] = {
    ConnectRequest: HookKind.CONNECT,
    RefreshRequest: HookKind.REFRESH,
    SubscribeRequest: HookKind.SUBSCRIBE,
    SubRefreshRequest: HookKind.SUB_REFRESH,
    PublishRequest: HookKind.PUBLISH,
    RpcRequest: HookKind.RPC,
}


class TooManyHooks(Exception):
    """More events wait for hooks than `limits.hooks_at_once` allows."""


class HookDispatcher:
    """The authorizer of a node whose application has hooks."""

    def __init__(
        self, hooks: Hooks, settings: Settings, metrics: Metrics, rpc_methods: Collection[str] = ()
    ) -> None:
        self.hooks = hooks
        self._settings = settings
        self._rules = channel_rules(settings)
        self._rpc_methods = frozenset(rpc_methods)
        self._metrics = metrics
        self._log = SampledLog()
        limit = settings.limits.hooks_at_once
        self._slots: Slots[str] = Slots(limit, max(1, limit // OWNER_SHARE))
        self._unanswered = 0
        self._unanswered_limit = limit * (1 + WAITING_FACTOR)
        self._threads: Threads | None = None
        self._asked: Mapping[type, Callable[[Any], bool]] = {}
        metrics.hooks_in_flight.set_function(lambda: len(self._slots))

    def __len__(self) -> int:
        """Return how many events wait for a slot, or for an answer."""
        return self._unanswered

    # ------------------------------------------------------------------------------------------ for the node

    @property
    def authorization_seconds(self) -> float:
        """How long a session waits at most."""
        return self.hooks.longest_seconds(self._settings.client.hook_timeout) + GRACE_SECONDS

    @property
    def kept_headers(self) -> KeptHeaders | None:
        """The headers that hooks want."""
        return self.hooks.kept_headers

    def start(self) -> bool:
        """Take no further hooks. Returns whether there is one."""
        self.hooks.start()
        sections = {"": self._settings.channels, **self._settings.namespaces}
        client = {"": self._settings.client}
        checks: Mapping[type, tuple[Mapping[str, Section], Callable[[Any], bool]]] = {
            ConnectRequest: (client, self._asks_about_connect),
            RefreshRequest: (client, lambda request: not request.token),
            SubscribeRequest: (sections, self._asks_about_subscribe),
            SubRefreshRequest: (sections, self._asks_about_sub_refresh),
            PublishRequest: (sections, self._asks_about_publish),
            RpcRequest: (client, lambda request: request.method not in self._rpc_methods),
        }
        self._asked = {
            request: check
            for request, (named, check) in checks.items()
            if self.hooks.are_hooks_for(KINDS[request], named)
        }
        return bool(self._asked)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have threads for plain functions, while the node runs."""
        self._threads = Threads(self._settings.limits.hook_threads)
        try:
            yield
        finally:
            self._threads.close()
            self._threads = None

    def needs_authorization(self, request: Request) -> bool:
        """Whether a hook decides about a request."""
        asks = self._asked.get(type(request))
        return asks is not None and asks(request)

    def _asks_about_connect(self, request: ConnectRequest) -> bool:
        return bool(self._hooks_for(request))

    def _asks_about_subscribe(self, request: SubscribeRequest) -> bool:
        options = self._rules.options_for(request.channel)
        if options is None or not self._hooks_for(request):
            return False
        return bool(request.token) or self._rules.kind_of(request.channel, options) is Kind.PLAIN

    def _asks_about_sub_refresh(self, request: SubRefreshRequest) -> bool:
        return not request.token and bool(self._hooks_for(request))

    def _asks_about_publish(self, request: PublishRequest) -> bool:
        return bool(self._hooks_for(request))

    def _hooks_for(self, request: Request) -> tuple[RegisteredHook, ...]:
        """The hooks that are asked about a request, in their order."""
        channel = getattr(request, "channel", None)
        section = self._settings.client if channel is None else self._rules.options_for(channel)
        if section is None:
            return ()
        found = self.hooks.hooks_for(KINDS[type(request)], section)
        if getattr(request, "token", ""):
            found = tuple(hook for hook in found if hook.with_token)
        return found

    # ---------------------------------------------------------------------------------------------- questions

    async def authorize(self, authorize: Authorize, request: ClientRequest | None) -> AuthorizedOutcome:
        """Ask the hooks about a request, and return what becomes of it. Raises nothing."""
        asked = authorize.request
        kind = KINDS[type(asked)]
        event = event_of(authorize, request or UNKNOWN_REQUEST)
        for hook in self._hooks_for(asked):
            answered = await self._ask(kind, hook, event, asked)
            if answered is not None:
                return answered
        return Approval(asked)

    async def _ask(
        self, kind: HookKind, hook: RegisteredHook, event: Event, asked: Request
    ) -> AuthorizedOutcome | None:
        """Ask one hook. None: it has no opinion."""
        user = getattr(event, "user", "")
        started = time.perf_counter()
        outcome: AuthorizedOutcome | None = None
        try:
            answer = await self._answer(hook, event)
            outcome = None if answer is None else outcome_of(asked, user, answer)
            result = _result(outcome)
        except TooManyHooks:
            result, outcome = "too_many", errors.TOO_MANY_REQUESTS
            self._metrics.limits_reached.add("limits.hooks_at_once")
            self._log.write("limit_reached", limit="limits.hooks_at_once", **_fields(kind, hook, event))
        except _DeadlinePassed:
            result, outcome = "timeout", errors.INTERNAL_ERROR
            self._log.write("hook_timed_out", level="warning", **_fields(kind, hook, event))
        except InvalidAnswer as error:
            result, outcome = "error", errors.INTERNAL_ERROR
            fields = _fields(kind, hook, event)
            self._log.write("hook_answer_invalid", level="error", error=str(error), **fields)
        except Exception:  # noqa: BLE001 - logged as an error
            result, outcome = "error", errors.INTERNAL_ERROR
            self._log.write("hook_raised", level="error", exc_info=True, **_fields(kind, hook, event))
        if result in _FAULTS and kind is HookKind.CONNECT:
            outcome = errors.SERVER_ERROR
        self._metrics.hook_calls.add(kind.value, hook.name, result)
        self._metrics.hook_seconds.of(kind.value).observe(time.perf_counter() - started)
        return outcome

    async def _answer(self, hook: RegisteredHook, event: Event) -> Answer:
        """The hook's answer. Raises what the hook raises, TooManyHooks, or _DeadlinePassed."""
        if self._unanswered >= self._unanswered_limit:
            raise TooManyHooks
        self._unanswered += 1
        deadline = asyncio.timeout(hook.seconds or self._settings.client.hook_timeout)
        try:
            async with deadline:
                return await self._call(hook, event)
        except TimeoutError:
            if deadline.expired():
                raise _DeadlinePassed from None
            raise
        except errors.Refused as error:
            return error.refusal
        finally:
            self._unanswered -= 1

    async def _call(self, hook: RegisteredHook, event: Event) -> Answer:
        slots, client = self._slots, event.client
        if not slots.take_now(client):
            await slots.wait(client)
        try:
            if hook.is_plain and self._threads is not None:
                answered: Any = await self._threads.run(hook.call, event)
            else:
                answered = hook.call(event)
            answer: Answer = await answered if inspect.isawaitable(answered) else answered
            return answer
        finally:
            slots.give_back(client)


def _fields(kind: HookKind, hook: RegisteredHook, event: Event) -> dict[str, Any]:
    """The fields of a line of the log about a hook: also the client, and nothing that it sent."""
    return {
        "kind": kind.value,
        "hook": hook.name,
        "client": event.client,
        "user": getattr(event, "user", ""),
        "address": event.request.address,
        "transport": event.request.transport,
    }


class _DeadlinePassed(Exception):
    """A hook did not answer in time."""


UNKNOWN_REQUEST = ClientRequest("", "", "", {}, {})
"""The request of a connection that has none."""

_FAULTS = ("too_many", "timeout", "error")


def _result(outcome: AuthorizedOutcome | None) -> str:
    """What metrics call the answer of a hook."""
    if outcome is None:
        return "no_opinion"
    if isinstance(outcome, Refusal):
        return "refused"
    return "disconnected" if isinstance(outcome, Disconnect) else "admitted"


def event_of(authorize: Authorize, request: ClientRequest) -> Event:
    """Return the event of a request that waits for an answer."""
    client, user = authorize.info.client, authorize.info.user
    match authorize.request:
        case ConnectRequest(token, data, subs, name, version):
            return ConnectEvent(
                client=client,
                request=request,
                token=token,
                data=data,
                name=name,
                version=version,
                channels=tuple(subs),
            )
        case RefreshRequest():
            return RefreshEvent(client=client, user=user, request=request)
        case SubscribeRequest(channel, token, data=data):
            return SubscribeEvent(
                client=client, user=user, channel=channel, token=token, data=data, request=request
            )
        case SubRefreshRequest(channel):
            return SubRefreshEvent(client=client, user=user, channel=channel, request=request)
        case PublishRequest(channel, data):
            return PublishEvent(client=client, user=user, channel=channel, data=data, request=request)
        case RpcRequest(method, data):
            return RpcEvent(client=client, user=user, method=method, data=data, request=request)
        case _:
            raise TypeError(f"no hook is asked about {type(authorize.request).__name__}")
