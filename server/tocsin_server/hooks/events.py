"""What hooks are asked: an event for each kind, with what the client sent and who it is.

`data` is what the client sent: `bytes(event.data)` are exactly these bytes, and `event.json()` is the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from tocsin_server.node.client_request import ClientRequest
from tocsin_server.protocol.messages import NO_JSON
from tocsin_server.protocol.payloads import Payload, json_of

__all__ = [
    "ClientRequest",
    "ConnectEvent",
    "Event",
    "HookKind",
    "PublishEvent",
    "RefreshEvent",
    "RpcEvent",
    "SubRefreshEvent",
    "SubscribeEvent",
]


class HookKind(Enum):
    """The kinds of hooks. Each has an event of its own."""

    CONNECT = "connect"
    REFRESH = "refresh"
    SUBSCRIBE = "subscribe"
    SUB_REFRESH = "sub_refresh"
    PUBLISH = "publish"
    RPC = "rpc"


_SHOWN = ("client", "user", "channel", "method", "request")
"""The members that a traceback with the values of variables may show: no tokens, and no payloads."""


class _Event(Struct, frozen=True, kw_only=True):
    """An event, as a text without its secrets."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same on consoles that show values in colors."""
        return [(name, getattr(self, name)) for name in _SHOWN if hasattr(self, name)]


class _WithData(_Event, frozen=True, kw_only=True):
    """An event with a payload of the client."""

    data: Payload = NO_JSON

    def json(self) -> Any:
        """Return the payload as a JSON value; None if there is none. Raises ValueError if it is no JSON."""
        return msgspec.json.decode(json_of(self.data)) if self.data else None


class ConnectEvent(_WithData, frozen=True, kw_only=True):
    """A client connects. It has no user yet."""

    client: str
    request: ClientRequest
    token: str = ""
    """Its connection token, which is not verified. Only hooks with `with_token` see one."""
    name: str = ""
    """The name and version of the application, or of its SDK, as the client says."""
    version: str = ""
    channels: Sequence[str] = ()
    """The server-side subscriptions that a returning client had."""


class RefreshEvent(_Event, frozen=True, kw_only=True):
    """The connection of a user expires soon."""

    client: str
    user: str
    request: ClientRequest


class SubscribeEvent(_WithData, frozen=True, kw_only=True):
    """A client subscribes to a channel."""

    client: str
    user: str
    channel: str
    token: str = ""
    """Its subscription token, which is not verified. Only hooks with `with_token` see one."""
    request: ClientRequest


class SubRefreshEvent(_Event, frozen=True, kw_only=True):
    """A subscription expires soon."""

    client: str
    user: str
    channel: str
    request: ClientRequest


class PublishEvent(_WithData, frozen=True, kw_only=True):
    """A client publishes into a channel."""

    client: str
    user: str
    channel: str
    request: ClientRequest


class RpcEvent(_WithData, frozen=True, kw_only=True):
    """A client calls a method that `rpc_methods` does not have."""

    client: str
    user: str
    method: str
    request: ClientRequest


Event: TypeAlias = ConnectEvent | RefreshEvent | SubscribeEvent | SubRefreshEvent | PublishEvent | RpcEvent
