"""Which hook answers which event: the application's functions, and proxies that the configuration names.

    hooks = app.hooks

    @hooks.connect
    async def connect(event: ConnectEvent) -> Connected | Refusal: ...

A function comes first. Where it answers None, the proxy of the section is asked, if it names one: of the
channel's namespace, or for connect, refresh and RPC events of `[client]`.

The mutable state is the hooks. They are added before the node starts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast, overload

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.hooks.answers import (
    Answer,
    Connected,
    Disconnect,
    Hook,
    Published,
    Refreshed,
    Refusal,
    RpcAnswer,
    Subscribed,
)
from tocsin_server.hooks.event_handlers import EventHandlers
from tocsin_server.hooks.events import (
    ConnectEvent,
    HookKind,
    PublishEvent,
    RefreshEvent,
    RpcEvent,
    SubRefreshEvent,
    SubscribeEvent,
)
from tocsin_server.hooks.threads import is_async
from tocsin_server.node.client_request import KeptHeaders

Refused: TypeAlias = "Refusal | Disconnect | None"

ConnectFunction = Callable[[ConnectEvent], "Awaitable[Connected | Refused] | Connected | Refused"]
RefreshFunction = Callable[[RefreshEvent], "Awaitable[Refreshed | Refused] | Refreshed | Refused"]
SubscribeFunction = Callable[[SubscribeEvent], "Awaitable[Subscribed | Refused] | Subscribed | Refused"]
SubRefreshFunction = Callable[[SubRefreshEvent], "Awaitable[Refreshed | Refused] | Refreshed | Refused"]
PublishFunction = Callable[[PublishEvent], "Awaitable[Published | Refused] | Published | Refused"]
RpcFunction = Callable[[RpcEvent], "Awaitable[RpcAnswer | Refused] | RpcAnswer | Refused"]

ConnectF = TypeVar("ConnectF", bound=ConnectFunction)
RefreshF = TypeVar("RefreshF", bound=RefreshFunction)
SubscribeF = TypeVar("SubscribeF", bound=SubscribeFunction)
SubRefreshF = TypeVar("SubRefreshF", bound=SubRefreshFunction)
PublishF = TypeVar("PublishF", bound=PublishFunction)
RpcF = TypeVar("RpcF", bound=RpcFunction)

Section: TypeAlias = "ChannelOptions | ClientOptions"


@dataclass(frozen=True, slots=True)
class RegisteredHook:
    """One hook, as the dispatcher asks it."""

    name: str
    """What it is called in metrics and logs."""
    call: Hook | Callable[[Any], Answer]
    is_plain: bool = False
    """It is a plain function, which runs in a thread."""
    with_token: bool = False
    """It is also asked about connect and subscribe commands that have a token."""
    seconds: float | None = None
    """How long it may take; None: `client.hook_timeout`."""


class Hooks:
    """The hooks of one node. Its decorators are used before the node runs."""

    events: EventHandlers
    """The decorator of handlers of lifecycle events. `create_app` sets it."""

    def __init__(self) -> None:
        self._functions: dict[HookKind, RegisteredHook] = {}
        self._proxies: dict[str, RegisteredHook] = {}
        self._proxy_headers: set[str] = set()
        self._kept_names: set[str] | None = None
        self._has_started = False

    # -------------------------------------------------------------------------------------------- decorators

    @overload
    def connect(self, function: ConnectF, /) -> ConnectF: ...
    @overload
    def connect(self, /, *, with_token: bool) -> Callable[[ConnectF], ConnectF]: ...
    def connect(self, function: ConnectF | None = None, /, *, with_token: bool = False) -> Any:
        """Decide which clients without a token may connect, and as which users.

        With `with_token` it is also asked about clients that have one. It sees the token unverified, and its
        answer takes the place of the token's claims.
        """
        return self._add(HookKind.CONNECT, function, with_token=with_token)

    def refresh(self, function: RefreshF, /) -> RefreshF:
        """Decide whether a connection goes on that the connect hook has admitted, before it expires."""
        return cast("RefreshF", self._add(HookKind.REFRESH, function))

    @overload
    def subscribe(self, function: SubscribeF, /) -> SubscribeF: ...
    @overload
    def subscribe(self, /, *, with_token: bool) -> Callable[[SubscribeF], SubscribeF]: ...
    def subscribe(self, function: SubscribeF | None = None, /, *, with_token: bool = False) -> Any:
        """Decide which clients may subscribe to a channel without a token.

        It is not asked about private and user-limited channels: their names decide. With `with_token` it is
        also asked about subscriptions to any channel that have a token, which it sees unverified.
        """
        return self._add(HookKind.SUBSCRIBE, function, with_token=with_token)

    def sub_refresh(self, function: SubRefreshF, /) -> SubRefreshF:
        """Decide whether a subscription goes on that the subscribe hook has admitted, before it expires."""
        return cast("SubRefreshF", self._add(HookKind.SUB_REFRESH, function))

    def publish(self, function: PublishF, /) -> PublishF:
        """Decide what clients may publish, instead of the permissions of the channel."""
        return cast("PublishF", self._add(HookKind.PUBLISH, function))

    def rpc(self, function: RpcF, /) -> RpcF:
        """Answer calls of methods that `rpc_methods` does not have."""
        return cast("RpcF", self._add(HookKind.RPC, function))

    def _add(self, kind: HookKind, function: Callable[[Any], Any] | None, *, with_token: bool = False) -> Any:
        if function is None:
            return partial(self._add, kind, with_token=with_token)
        self._require_not_started()
        if kind in self._functions:
            raise ValueError(f"there is a {kind.value} hook already: {self._functions[kind].name}")
        name = getattr(function, "__name__", type(function).__name__)
        hook = RegisteredHook(name, function, is_plain=not is_async(function), with_token=with_token)
        self._functions[kind] = hook
        return function

    def keep_headers(self, *names: str) -> None:
        """Let connections keep only these headers of their requests. By default functions get all of them."""
        self._require_not_started()
        self._kept_names = (self._kept_names or set()) | set(names)

    # ----------------------------------------------------------------------------------------------- proxies

    def add_proxy(self, name: str, hook: Hook, *, seconds: float, headers: Collection[str]) -> None:
        """Add what answers the events of the sections that name it, as in `subscribe_proxy = "NAME"`.

        `seconds` is how long it may take, and `headers` are those that it wants of requests.
        """
        self._require_not_started()
        self._proxies[name] = RegisteredHook(name, hook, seconds=seconds)
        self._proxy_headers.update(headers)

    # ------------------------------------------------------------------------------------ for the dispatcher

    def start(self) -> None:
        """Take no further hooks."""
        self._has_started = True

    def _require_not_started(self) -> None:
        if self._has_started:
            raise RuntimeError("hooks are added before the node runs")

    def longest_seconds(self, function_seconds: float) -> float:
        """How long an event may take: its function, and then its proxy."""
        seconds = function_seconds if self._functions else 0.0
        return seconds + max((hook.seconds or 0.0 for hook in self._proxies.values()), default=0.0)

    @property
    def kept_headers(self) -> KeptHeaders:
        """The headers that hooks want."""
        if self._functions and self._kept_names is None:
            return KeptHeaders()
        return KeptHeaders(self._proxy_headers | (self._kept_names or set()))

    def hooks_for(self, kind: HookKind, section: Section) -> tuple[RegisteredHook, ...]:
        """The hooks that answer an event of a section, in the order in which they are asked."""
        function = self._functions.get(kind)
        proxy = self._proxies.get(getattr(section, f"{kind.value}_proxy", "")) if self._proxies else None
        return tuple(hook for hook in (function, proxy) if hook is not None)
