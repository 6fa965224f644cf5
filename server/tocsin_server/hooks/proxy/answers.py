"""What a back end answered: its status and JSON body as the answer to an event, or why it is none (pure).

    {"result": {…}}  {"error": {"code": 1000, "message": "…"}}  {"disconnect": {"code": 4501, "reason": "…"}}

The shapes are those that Centrifugo accepts. A member that is null, or unknown, counts as missing. An object
without any of the three is an empty result, which permits what was asked. But a connect without a result goes
on as if no back end were asked, and a refresh without one has expired.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct

from tocsin_server.core.capabilities import Capability, Right
from tocsin_server.core.tokens import Override
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.hooks.answers import (
    EXPIRED,
    Answer,
    Connected,
    Published,
    Refreshed,
    RpcAnswer,
    Subscribed,
)
from tocsin_server.hooks.events import HookKind
from tocsin_server.hooks.outcomes import REASON_BYTES, InvalidAnswer, checked_refusal
from tocsin_server.hooks.proxy.faults import ProxyFault
from tocsin_server.protocol.canonical import is_set
from tocsin_server.protocol.json_text import compact
from tocsin_server.protocol.messages import NO_JSON
from tocsin_server.protocol.payloads import Payload, payload_of

OK = 200

DEFAULT_REASON = "disconnected by the application"

Result = TypeVar("Result", bound=Struct)


class _Error(Struct, frozen=True):
    code: int
    message: str | None = None
    temporary: bool | None = None


class _Disconnect(Struct, frozen=True):
    code: int
    reason: str | None = None


class _Reply(Struct, Generic[Result], frozen=True):
    result: Result | None = None
    error: _Error | None = None
    disconnect: _Disconnect | None = None


class _SubscribeResult(Struct, frozen=True):
    info: Raw = NO_JSON
    b64info: str | None = None
    data: Raw = NO_JSON
    b64data: str | None = None
    expire_at: int | None = None
    override: Override | None = None
    allow: tuple[Right, ...] | None = None


class _ConnectResult(Struct, frozen=True):
    user: str | None = None
    expire_at: int | None = None
    info: Raw = NO_JSON
    b64info: str | None = None
    data: Raw = NO_JSON
    b64data: str | None = None
    channels: tuple[str, ...] | None = None
    subs: dict[str, _SubscribeResult | None] | None = None
    caps: tuple[Capability, ...] | None = None


class _RefreshResult(Struct, frozen=True):
    expired: bool | None = None
    expire_at: int | None = None
    info: Raw = NO_JSON
    b64info: str | None = None


class _PublishResult(Struct, frozen=True):
    data: Raw = NO_JSON
    b64data: str | None = None
    skip_history: bool | None = None


class _RpcResult(Struct, frozen=True):
    data: Raw = NO_JSON
    b64data: str | None = None


def _info(json: Raw, base64: str | None) -> Raw | None:
    """What presence says about a client. Raises ValueError if it is no JSON."""
    if not base64:
        return compact(json) if is_set(json) else None
    try:
        return compact(_decoded(base64, "b64info"))
    except ValueError as error:
        raise ValueError(f"b64info is not JSON in base64 ({error})") from None


def _data(json: Raw, base64: str | None) -> Payload | None:
    """A payload. Raises ValueError."""
    if base64:
        return payload_of(_decoded(base64, "b64data"))
    return compact(json) if is_set(json) else None


def _decoded(base64: str, name: str) -> bytes:
    try:
        return b64decode(base64, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{name} is not base64") from None


def _subscribed(result: _SubscribeResult | None) -> Subscribed:
    if result is None:
        return Subscribed()
    return Subscribed(
        info=_info(result.info, result.b64info),
        data=_data(result.data, result.b64data),
        expire_at=result.expire_at or 0,
        override=result.override,
        allow=result.allow or (),
    )


def _connected(result: _ConnectResult | None) -> Connected | None:
    if result is None:
        return None
    subscriptions = {channel: Subscribed() for channel in result.channels or ()}
    subscriptions |= {channel: _subscribed(options) for channel, options in (result.subs or {}).items()}
    return Connected(
        user=result.user or "",
        info=_info(result.info, result.b64info),
        data=_data(result.data, result.b64data),
        expire_at=result.expire_at or 0,
        subscriptions=subscriptions,
        capabilities=result.caps or (),
    )


def _refreshed(result: _RefreshResult | None) -> Refreshed:
    if result is None or result.expired:
        return EXPIRED
    return Refreshed(expire_at=result.expire_at or 0, info=_info(result.info, result.b64info))


def _published(result: _PublishResult | None) -> Published:
    if result is None:
        return Published()
    return Published(data=_data(result.data, result.b64data), skip_history=bool(result.skip_history))


def _rpc(result: _RpcResult | None) -> RpcAnswer:
    return RpcAnswer() if result is None else RpcAnswer(_data(result.data, result.b64data))


def _reader(result: type[Result], read: Callable[[Result | None], Answer]) -> Callable[[bytes], Answer]:
    decode = msgspec.json.Decoder(_Reply[result]).decode  # type: ignore[valid-type]

    def answer_of(body: bytes) -> Answer:
        reply: _Reply[Any] = decode(body)
        if reply.disconnect is not None:
            return _checked(_disconnect(reply.disconnect))
        if (error := reply.error) is None:
            return read(reply.result)
        refusal = Refusal(error.code, error.message or "", temporary=bool(error.temporary))
        return EXPIRED if result is _RefreshResult else _checked(refusal)

    return answer_of


def _checked(why: Refusal | Disconnect) -> Refusal | Disconnect:
    """Raise ValueError for a code that clients do not understand."""
    try:
        return checked_refusal(why)
    except InvalidAnswer as error:
        raise ValueError(str(error)) from None


def _disconnect(found: _Disconnect) -> Disconnect:
    reason = (found.reason or DEFAULT_REASON).encode()[:REASON_BYTES]
    return Disconnect(found.code, reason.decode(errors="ignore"))


_READERS: Mapping[HookKind, Callable[[bytes], Answer]] = {
    HookKind.CONNECT: _reader(_ConnectResult, _connected),
    HookKind.REFRESH: _reader(_RefreshResult, _refreshed),
    HookKind.SUBSCRIBE: _reader(_SubscribeResult, _subscribed),
    HookKind.SUB_REFRESH: _reader(_RefreshResult, _refreshed),
    HookKind.PUBLISH: _reader(_PublishResult, _published),
    HookKind.RPC: _reader(_RpcResult, _rpc),
}


def read_answer(kind: HookKind, status: int, body: bytes) -> Answer:
    """Return what a back end answered to an event of this kind. Raises ProxyFault."""
    if status != OK:
        raise ProxyFault(f"it answered with status {status}", "status")
    try:
        return _READERS[kind](body)
    except (ValueError, RecursionError) as error:  # msgspec's errors name a place, and no value
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ProxyFault(f"its answer is malformed: {reason}", "malformed") from None
