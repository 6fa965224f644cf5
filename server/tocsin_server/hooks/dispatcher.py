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
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager
from types import CoroutineType
from typing import Any, cast

import structlog

from tocsin_server import errors
from tocsin_server.cancellation import current_task, is_cancelled
from tocsin_server.config.loading import Settings
from tocsin_server.core.channel_names import PLAIN
from tocsin_server.core.events import Approval, Authorize, AuthorizedOutcome
from tocsin_server.equal_deadlines import EqualDeadlines
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
from tocsin_server.hooks.waiting_call import DeadlinePassed, WaitingCall, as_coroutine, resumed
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

_OF_CHANNELS = {HookKind.SUBSCRIBE, HookKind.SUB_REFRESH, HookKind.PUBLISH}

log = structlog.get_logger()


class TooManyHooks(Exception):
    """More events wait for hooks than `limits.hooks_at_once` allows."""


class CancelledByHook(Exception):
    """The hook awaited something that was cancelled. Its own task was not."""


class _Queue:
    """The events of one kind that one hook is asked about: a hook that is slow holds up no other."""

    __slots__ = (
        "deadlines",
        "durations",
        "hook",
        "kind",
        "labels",
        "slots",
        "unanswered",
        "unanswered_limit",
    )

    def __init__(self, kind: HookKind, hook: RegisteredHook, settings: Settings, metrics: Metrics) -> None:
        limit = settings.limits.hooks_at_once
        self.hook = hook
        self.kind = kind.value  # a string, because members of enums are slow to read in Python 3.11
        self.slots: Slots[str] = Slots(limit, max(1, limit // OWNER_SHARE))
        seconds = hook.seconds or settings.client.hook_timeout
        self.deadlines: EqualDeadlines[WaitingCall] = EqualDeadlines(seconds, WaitingCall.cancel)
        self.durations = metrics.hook_seconds.of(self.kind)
        self.labels = {result: (self.kind, hook.name, result) for result in _RESULTS}
        """The labels of each result in metrics."""
        self.unanswered = 0
        """How many wait for a slot, or for an answer."""
        self.unanswered_limit = limit * (1 + WAITING_FACTOR)


NO_QUEUES: tuple[_Queue, ...] = ()


class HookDispatcher:
    """The authorizer of a node whose application has hooks."""

    def __init__(
        self, hooks: Hooks, settings: Settings, metrics: Metrics, rpc_methods: Collection[str] = ()
    ) -> None:
        self.hooks = hooks
        self._settings = settings
        self._rules = channel_rules(settings)
        self._function_seconds = settings.client.hook_timeout
        self._rpc_methods = frozenset(rpc_methods)
        self._metrics = metrics
        self._calls = metrics.hook_calls.counts
        self._log = SampledLog()
        self._queues: dict[tuple[str, int], _Queue] = {}
        """Of each kind of event and the hook with this identity."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads: Mapping[str, Threads] = {}
        self._chains: dict[tuple[type, int], tuple[_Queue, ...]] = {}
        """Which hooks are asked about a type of request, in the section with this identity."""
        self._checks: Mapping[type, Callable[[Any], bool]] = {}
        metrics.hooks_in_flight.set_function(lambda: sum(len(queue.slots) for queue in self._queues.values()))

    def __len__(self) -> int:
        """Return how many events wait for a slot, or for an answer."""
        return sum(queue.unanswered for queue in self._queues.values())

    def _queue_of(self, kind: HookKind, hook: RegisteredHook) -> _Queue:
        key = kind.value, id(hook)  # hooks live as long as the dispatcher
        if (queue := self._queues.get(key)) is None:
            queue = self._queues[key] = _Queue(kind, hook, self._settings, self._metrics)
        return queue

    # ------------------------------------------------------------------------------------------ for the node

    @property
    def authorization_seconds(self) -> float:
        """How long a session waits at most."""
        return self.hooks.longest_seconds(self._function_seconds) + GRACE_SECONDS

    @property
    def kept_headers(self) -> KeptHeaders | None:
        """The headers that hooks want."""
        return self.hooks.kept_headers

    def start(self) -> bool:
        """Take no further hooks. Returns whether there is one."""
        self.hooks.start()
        sections: list[Section] = [self._settings.channels, *self._settings.namespaces.values()]
        for request, kind in KINDS.items():
            of_kind = sections if kind in _OF_CHANNELS else [self._settings.client]
            for section in of_kind:
                if found := self.hooks.hooks_for(kind, section):
                    self._chains[request, id(section)] = tuple(self._queue_of(kind, hook) for hook in found)
        checks: Mapping[type, Callable[[Any], bool]] = {
            ConnectRequest: self._asks,
            RefreshRequest: self._asks_without_token,
            SubscribeRequest: self._asks_about_subscribe,
            SubRefreshRequest: self._asks_without_token,
            PublishRequest: self._asks,
            RpcRequest: self._asks_about_call,
        }
        self._checks = {request: checks[request] for request, _ in self._chains}
        return bool(self._checks)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have threads for plain functions, while the node runs: functions of one kind hold up no others."""
        self._loop = asyncio.get_running_loop()
        self._threads = {kind.value: Threads(self._settings.limits.hook_threads) for kind in HookKind}
        try:
            yield
        finally:
            for threads in self._threads.values():
                threads.close()
            self._threads, self._loop = {}, None
            for queue in self._queues.values():
                queue.deadlines.close()
                if queue.unanswered:
                    log.warning(
                        "hook_ignores_cancellation",
                        kind=queue.kind,
                        hook=queue.hook.name,
                        calls=queue.unanswered,
                    )

    def needs_authorization(self, request: Request) -> bool:
        """Whether a hook decides about a request."""
        check = self._checks.get(type(request))
        return check is not None and check(request)

    def _asks(self, request: ConnectRequest | PublishRequest) -> bool:
        return bool(self._hooks_for(request))

    def _asks_without_token(self, request: RefreshRequest | SubRefreshRequest) -> bool:
        return not request.token and bool(self._hooks_for(request))

    def _asks_about_call(self, request: RpcRequest) -> bool:
        return request.method not in self._rpc_methods

    def _asks_about_subscribe(self, request: SubscribeRequest) -> bool:
        options, _ = self._rules.find(request.channel)
        if options is None or not self._hooks_in(options, request):
            return False
        return bool(request.token) or self._rules.kind_of(request.channel, options) is PLAIN

    def _hooks_for(self, request: Request) -> tuple[_Queue, ...]:
        """The hooks that are asked about a request, in their order."""
        channel: Any = getattr(request, "channel", None)
        section = self._settings.client if channel is None else self._rules.find(channel)[0]
        return self._hooks_in(section, request)

    def _hooks_in(self, section: Section | None, request: Request) -> tuple[_Queue, ...]:
        found = self._chains.get((type(request), id(section)), NO_QUEUES)
        if found and getattr(request, "token", None):
            return tuple(queue for queue in found if queue.hook.with_token)
        return found

    # ---------------------------------------------------------------------------------------------- questions

    async def authorize(self, authorize: Authorize, request: ClientRequest | None) -> AuthorizedOutcome:
        """Ask the hooks about a request, and return what becomes of it. Raises nothing."""
        asked, info, asked_at = authorize.request, authorize.info, time.time()
        event = _EVENTS[type(asked)](asked, info.client, info.user, request or UNKNOWN_REQUEST)
        for queue in self._hooks_for(asked):
            began_at = time.perf_counter()
            outcome: AuthorizedOutcome | None = None
            try:
                answer = await self._answer(queue, event)
                if answer is not None:
                    outcome = outcome_of(asked, info.user, answer, asked_at)
                result = _result(outcome)
            except Exception as error:  # noqa: BLE001 - logged as an error
                result, outcome = self._fault(queue, event, error)
            self._calls[queue.labels[result]] += 1
            queue.durations.observe(time.perf_counter() - began_at)
            if outcome is not None:
                return outcome
        return Approval(asked)

    def _fault(self, queue: _Queue, event: Event, error: Exception) -> tuple[str, Refusal | Disconnect]:
        """Log why a hook gave no answer. Returns the label of metrics, and what becomes of the request."""
        fields = _fields(queue, event)
        result, outcome = "error", errors.INTERNAL_ERROR
        if isinstance(error, TooManyHooks):
            result, outcome = "too_many", errors.TOO_MANY_REQUESTS
            self._metrics.limits_reached.add("limits.hooks_at_once")
            self._log.write("limit_reached", limit="limits.hooks_at_once", **fields)
        elif isinstance(error, DeadlinePassed):
            result = "timeout"
            self._log.write("hook_timed_out", level="warning", **fields)
        elif isinstance(error, InvalidAnswer):
            self._log.write("hook_answer_invalid", level="error", error=str(error), **fields)
        else:
            self._log.write("hook_raised", level="error", exc_info=True, **fields)
        return result, errors.SERVER_ERROR if isinstance(event, ConnectEvent) else outcome

    async def _answer(self, queue: _Queue, event: Event) -> Answer:
        """The hook's answer. Raises what the hook raises, TooManyHooks, or DeadlinePassed."""
        if queue.unanswered >= queue.unanswered_limit:
            raise TooManyHooks
        slots, client = queue.slots, event.client
        try:
            if queue.hook.is_plain or not slots.is_free_for(client):
                return await self._within_deadline(queue, self._call_in_slot(queue, event))
            call = cast("Coroutine[Any, Any, Answer]", queue.hook.call(event))
            if type(call) is not CoroutineType:
                call = as_coroutine(call)
            try:
                waits_for = call.send(None)
            except StopIteration as answered:  # it did not wait: it needs neither a slot nor a deadline
                return cast("Answer", answered.value)
            slots.take(client)
            return await self._within_deadline(queue, _rest_in_slot(queue, event, call, waits_for))
        except errors.Refused as error:
            return error.refusal
        except asyncio.CancelledError as error:
            if is_cancelled(error):
                raise
            raise CancelledByHook from None

    async def _within_deadline(self, queue: _Queue, answer: Coroutine[Any, Any, Answer]) -> Answer:
        """Await the answer of a call that waits. Raises DeadlinePassed besides."""
        call = WaitingCall(current_task(self._loop))
        queue.unanswered += 1
        queue.deadlines.add(call)
        try:
            return await answer
        except asyncio.CancelledError:
            if call.end():
                raise DeadlinePassed from None
            raise
        finally:
            queue.unanswered -= 1
            queue.deadlines.remove(call)
            call.end()

    async def _call_in_slot(self, queue: _Queue, event: Event) -> Answer:
        slots, client = queue.slots, event.client
        if not slots.take_now(client):
            await slots.wait(client)
        try:
            call: Any = queue.hook.call
            threads = self._threads.get(queue.kind) if queue.hook.is_plain else None
            answered = call(event) if threads is None else await threads.run(call, event)
            return cast("Answer", await answered if inspect.isawaitable(answered) else answered)
        finally:
            slots.give_back(client)


async def _rest_in_slot(
    queue: _Queue, event: Event, call: Coroutine[Any, Any, Any], waits_for: object
) -> Answer:
    """Await what is left of a call that has a slot."""
    try:
        return cast("Answer", await resumed(call, waits_for))
    finally:
        queue.slots.give_back(event.client)


def _fields(queue: _Queue, event: Event) -> dict[str, Any]:
    """The fields of a line of the log about a hook: also the client, and nothing that it sent."""
    return {
        "kind": queue.kind,
        "hook": queue.hook.name,
        "client": event.client,
        "user": getattr(event, "user", ""),
        "address": event.request.address,
        "transport": event.request.transport,
    }


UNKNOWN_REQUEST = ClientRequest("", "", "", {}, {})
"""The request of a connection that has none."""

_RESULTS = ("admitted", "no_opinion", "refused", "disconnected", "too_many", "timeout", "error")


def _result(outcome: AuthorizedOutcome | None) -> str:
    """What metrics call the answer of a hook."""
    if type(outcome) is Approval:
        return "admitted"
    if outcome is None:
        return "no_opinion"
    if isinstance(outcome, Refusal):
        return "refused"
    return "disconnected" if isinstance(outcome, Disconnect) else "admitted"


def _connect_event(asked: ConnectRequest, client: str, _user: str, request: ClientRequest) -> ConnectEvent:
    return ConnectEvent(
        client=client,
        request=request,
        token=asked.token,
        data=asked.data,
        name=asked.name,
        version=asked.version,
        channels=tuple(asked.subs),
    )


def _refresh_event(_asked: RefreshRequest, client: str, user: str, request: ClientRequest) -> RefreshEvent:
    return RefreshEvent(client=client, user=user, request=request)


def _subscribe_event(
    asked: SubscribeRequest, client: str, user: str, request: ClientRequest
) -> SubscribeEvent:
    return SubscribeEvent(
        client=client,
        user=user,
        channel=asked.channel,
        token=asked.token,
        data=asked.data,
        request=request,
    )


def _sub_refresh_event(
    asked: SubRefreshRequest, client: str, user: str, request: ClientRequest
) -> SubRefreshEvent:
    return SubRefreshEvent(client=client, user=user, channel=asked.channel, request=request)


def _publish_event(asked: PublishRequest, client: str, user: str, request: ClientRequest) -> PublishEvent:
    return PublishEvent(client=client, user=user, channel=asked.channel, data=asked.data, request=request)


def _rpc_event(asked: RpcRequest, client: str, user: str, request: ClientRequest) -> RpcEvent:
    return RpcEvent(client=client, user=user, method=asked.method, data=asked.data, request=request)


_EVENTS: Mapping[type, Callable[[Any, str, str, ClientRequest], Event]] = {
    ConnectRequest: _connect_event,
    RefreshRequest: _refresh_event,
    SubscribeRequest: _subscribe_event,
    SubRefreshRequest: _sub_refresh_event,
    PublishRequest: _publish_event,
    RpcRequest: _rpc_event,
}
"""What makes the event of each kind of request."""
