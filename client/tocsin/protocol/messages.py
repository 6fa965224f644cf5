"""The messages of the Centrifuge client protocol: commands, replies and pushes (protocol §1 to §5; pure)."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from tocsin.models import ClientInfo, Offset, Position, PresenceStats


class Empty(Struct):
    """A request or result without fields."""


class WireError(Struct):
    """The ``error`` of a reply."""

    code: int = 0
    message: str = ""
    temporary: bool = False


class WirePublication(Struct):
    """A publication in a push or result, which itself names the channel."""

    data: Any = None
    offset: Offset = 0
    info: ClientInfo | None = None
    tags: dict[str, str] | None = None
    time: int = 0
    b64data: bytes | None = None
    """In place of ``data``, in the HTTP API: a payload that is no JSON."""


class SubscribeRequest(Struct, omit_defaults=True):
    """The ``subscribe`` command. In ``connect`` it carries the positions of server-side subscriptions."""

    channel: str = ""
    token: str = ""
    data: Any = None
    recover: bool = False
    offset: Offset = 0
    epoch: str = ""
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False


class SubscribeResult(Struct):
    """The reply to ``subscribe``, and the body of a ``subscribe`` push. ``ttl`` is in seconds."""

    recoverable: bool = False
    positioned: bool = False
    epoch: str = ""
    offset: Offset = 0
    recovered: bool = False
    was_recovering: bool = False
    publications: list[WirePublication] | None = None
    expires: bool = False
    ttl: int = 0
    data: Any = None


class ConnectRequest(Struct, omit_defaults=True):
    """The first command of every connection."""

    token: str = ""
    data: Any = None
    subs: dict[str, SubscribeRequest] = {}
    name: str = ""
    version: str = ""
    headers: dict[str, str] = {}


class ConnectResult(Struct):
    """The reply to ``connect``. ``ping`` and ``ttl`` are in seconds; without pings ``ping`` is 0."""

    client: str
    version: str = ""
    expires: bool = False
    ttl: int = 0
    data: Any = None
    subs: dict[str, SubscribeResult] | None = None
    ping: int = 0
    pong: bool = False


class ChannelRequest(Struct, omit_defaults=True):
    """The ``unsubscribe``, ``presence`` and ``presence_stats`` commands."""

    channel: str


class PublishRequest(Struct):
    """The ``publish`` command. ``data`` is sent even when it is null."""

    channel: str
    data: Any


class HistoryRequest(Struct, omit_defaults=True):
    """The ``history`` command. Without a limit, the reply has only the position."""

    channel: str
    limit: int = 0
    since: Position | None = None
    reverse: bool = False


class RpcRequest(Struct, omit_defaults=True):
    """The ``rpc`` command."""

    method: str
    data: Any = None


class RefreshRequest(Struct, omit_defaults=True):
    """The ``refresh`` command, and with a channel the ``sub_refresh`` command."""

    token: str
    channel: str = ""


class RefreshResult(Struct):
    """The reply to a refresh. ``ttl`` is the seconds until the next one is due."""

    expires: bool = False
    ttl: int = 0


class HistoryResult(Struct):
    """A page of history, and the position of its top."""

    publications: list[WirePublication] | None = None
    epoch: str = ""
    offset: Offset = 0


class PresenceResult(Struct):
    """The clients that are subscribed to a channel, by client id."""

    presence: dict[str, ClientInfo] | None = None


class RpcResult(Struct):
    """The return value of a procedure."""

    data: Any = None


class WireInfo(Struct):
    """The body of ``join`` and ``leave`` pushes."""

    info: ClientInfo


class WireCode(Struct):
    """The body of ``unsubscribe`` and ``disconnect`` pushes."""

    code: int = 0
    reason: str = ""


class Push(Struct):
    """A message that is not a reply. Other kinds of push are ignored."""

    channel: str = ""
    pub: WirePublication | None = None
    join: WireInfo | None = None
    leave: WireInfo | None = None
    unsubscribe: WireCode | None = None
    subscribe: SubscribeResult | None = None
    disconnect: WireCode | None = None


Request = (
    ConnectRequest
    | SubscribeRequest
    | ChannelRequest
    | PublishRequest
    | HistoryRequest
    | RpcRequest
    | RefreshRequest
)


Command = dict[str, Any]  # an id and exactly one method


class Reply(Struct):
    """One object from the server: a reply (with an id), a push, or a ping (empty)."""

    id: int = 0
    error: WireError | None = None
    push: Push | None = None
    connect: ConnectResult | None = None
    subscribe: SubscribeResult | None = None
    unsubscribe: Empty | None = None
    publish: Empty | None = None
    presence: PresenceResult | None = None
    presence_stats: PresenceStats | None = None
    history: HistoryResult | None = None
    rpc: RpcResult | None = None
    refresh: RefreshResult | None = None
    sub_refresh: RefreshResult | None = None

    @property
    def is_ping(self) -> bool:
        """True for an object without id and push: the server's ping (protocol §6)."""
        return self.id == 0 and self.push is None
