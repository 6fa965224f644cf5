"""What the answer of a hook means for the request that it is about. This module is pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from msgspec import Raw

from tocsin_server import errors
from tocsin_server.core.capabilities import Capability, Right
from tocsin_server.core.events import Approval, AuthorizedOutcome, Renewal
from tocsin_server.core.tokens import (
    ConnectionClaims,
    ExpiringGrant,
    Override,
    SubscriptionClaims,
    SubscriptionGrant,
)
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.hooks.answers import (
    Answer,
    Connected,
    Published,
    Refreshed,
    RpcAnswer,
    Subscribed,
    Undecided,
)
from tocsin_server.protocol.json_text import compact
from tocsin_server.protocol.messages import (
    NO_JSON,
    ConnectRequest,
    PublishRequest,
    RefreshRequest,
    Request,
    RpcRequest,
    RpcResult,
    SubRefreshRequest,
    SubscribeRequest,
)
from tocsin_server.protocol.payloads import Payload, payload_of

REFUSAL_CODES = range(400, 2000)
"""The codes of an application's own refusals."""

DISCONNECT_CODES = range(4000, 5000)
"""The codes of an application's own disconnects. From 4500 on, the client does not reconnect."""

REASON_BYTES = 123
"""What a close frame has room for (RFC 6455 §5.5)."""

_KNOWN = {
    (isinstance(why, Refusal), why.code)
    for why in vars(errors).values()
    if isinstance(why, Refusal | Disconnect)
}


class InvalidAnswer(Exception):
    """A hook answered what is not valid. The message says why, for the application's author."""


def checked_refusal(why: Refusal | Disconnect) -> Refusal | Disconnect:
    """Return a refusal or a disconnect with values that every codec encodes, such as an int for an IntEnum.

    Besides an application's own codes, those of `errors` are valid. Raises InvalidAnswer for a code or a text
    that clients do not understand.
    """
    is_refusal = isinstance(why, Refusal)
    kind = "an error" if is_refusal else "a disconnect"
    own = REFUSAL_CODES if is_refusal else DISCONNECT_CODES
    code = _code(why.code, f"the code of {kind}")
    if code not in own and (is_refusal, code) not in _KNOWN:
        raise InvalidAnswer(f"the code of {kind} must be from {own[0]} to {own[-1]}, not {code}")
    try:
        text = _checked_text(why)
    except (TypeError, ValueError) as error:
        raise InvalidAnswer(str(error)) from error
    if type(why.code) is int and type(why.message if isinstance(why, Refusal) else why.reason) is str:
        return why
    if isinstance(why, Refusal):
        return replace(why, code=code, message=text)
    return replace(why, code=code, reason=text)


def _code(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidAnswer(f"{name} must be an int, not {type(value).__name__}")
    return int(value)


def _checked_text(why: Refusal | Disconnect) -> str:
    """The message of an error, or the reason of a disconnect. Raises TypeError or ValueError."""
    if isinstance(why, Refusal):
        if type(why.temporary) is not bool:
            raise TypeError(f"temporary must be a bool, not {type(why.temporary).__name__}")
        return _text(why.message, "the message of an error")
    reason = _text(why.reason, "the reason of a disconnect")
    if not 0 < len(reason.encode()) <= REASON_BYTES:
        raise ValueError(f"the reason of a disconnect must have 1 to {REASON_BYTES} bytes")
    return reason


def outcome_of(
    request: Request, user: str, answer: Answer, asked_at: float | None = None
) -> AuthorizedOutcome:
    """Return what becomes of a request that a hook was asked about at unix second `asked_at`.

    Claims count as issued then. Raises InvalidAnswer.
    """
    if answer is None:
        return Approval(request)
    kind, convert = _KINDS[type(request)]
    if not isinstance(answer, kind):
        if isinstance(answer, Refusal | Disconnect):
            return checked_refusal(answer)
        raise InvalidAnswer(f"{type(answer).__name__} does not answer {type(request).__name__}")
    try:
        return convert(request, user, answer, asked_at)
    except (TypeError, ValueError, OverflowError) as error:  # such as info that is no JSON
        raise InvalidAnswer(str(error)) from error


def payload(value: Any) -> Payload:
    """A value of an answer as a payload. NO_JSON for None."""
    if value is None:
        return NO_JSON
    if isinstance(value, Raw):
        return compact(value) if value else NO_JSON
    if isinstance(value, bytes):
        return payload_of(value) if value else NO_JSON
    return compact(msgspec.json.encode(value))


def _json(value: Any) -> Raw:
    """A value of an answer that must be JSON. Raises ValueError."""
    if value is None:
        return NO_JSON
    made = compact(value) if isinstance(value, bytes) and value else Raw(bytes(payload(value)))
    return made or NO_JSON


def _text(value: Any, name: str) -> str:
    """Return a string as codecs encode it: as a `str`, and no subclass, without lone surrogates."""
    if type(value) is str and value.isascii():
        return value
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    try:
        return str.encode(value).decode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} has half of a surrogate pair, which UTF-8 does not have") from None


def _unix(value: Any) -> float:
    if value == 0:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise TypeError(f"expire_at must be a unix second, or 0 for never, not {value!r}")
    return float(value)


def _validated(value: Any, kind: Any) -> Any:
    """Return a value of an answer as this type. Raises ValidationError. Constructors do not check types."""
    return msgspec.convert(msgspec.to_builtins(value), kind)


def _override(value: Override | None) -> Override | None:
    return None if value is None else _validated(value, Override)


def _rights(value: Sequence[Right]) -> tuple[Right, ...]:
    return _validated([*value], tuple[Right, ...]) if value else ()


def _capabilities(value: Sequence[Capability]) -> tuple[Capability, ...]:
    entries: tuple[Capability, ...] = _validated([*value], tuple[Capability, ...]) if value else ()
    for entry in entries:
        for pattern in entry.channels:
            _text(pattern, "a pattern of capabilities")
    return entries


def _connected(request: ConnectRequest, _user: str, answer: Connected, asked_at: float | None) -> Approval:
    subscriptions: dict[str, SubscriptionGrant] = {}
    for channel, granted in answer.subscriptions.items():
        name = _text(channel, "a channel")
        if not name:
            raise ValueError("a channel of subscriptions has no name")
        if not isinstance(granted, Subscribed):
            raise TypeError(f"subscriptions has a {type(granted).__name__}, not Subscribed")
        subscriptions[name] = _grant(granted)
    claims = ConnectionClaims(
        iat=asked_at,
        expire_at=_unix(answer.expire_at),
        info=_json(answer.info),
        sub=_text(answer.user, "user"),
        subs=subscriptions,
        caps=_capabilities(answer.capabilities),
    )
    return Approval(request, claims, data=payload(answer.data))


def _grant(answer: Subscribed) -> ExpiringGrant:
    return ExpiringGrant(
        info=_json(answer.info),
        override=_override(answer.override),
        payload=payload(answer.data),
        expire_at=_unix(answer.expire_at),
        allow=_rights(answer.allow),
    )


def _subscribed(request: SubscribeRequest, user: str, answer: Subscribed, asked_at: float | None) -> Approval:
    claims = SubscriptionClaims(
        iat=asked_at,
        channel=request.channel,
        sub=user,
        expire_at=_unix(answer.expire_at),
        info=_json(answer.info),
        override=_override(answer.override),
        allow=_rights(answer.allow),
    )
    return Approval(request, claims, data=payload(answer.data))


def _published(request: PublishRequest, _user: str, answer: Published, _asked_at: object) -> Approval:
    data = request.data if answer.data is None else payload(answer.data)
    changed = PublishRequest(request.channel, data)
    return Approval(changed, is_permitted=True, skip_history=bool(answer.skip_history))


def _refreshed(_request: Request, _user: str, answer: Refreshed, _asked_at: object) -> Renewal | Refusal:
    if answer.is_expired:
        return errors.EXPIRED
    return Renewal(_unix(answer.expire_at), _json(answer.info), not isinstance(answer, Undecided))


def _called(_request: RpcRequest, _user: str, answer: RpcAnswer, _asked_at: object) -> RpcResult:
    return RpcResult(Raw(b"null") if answer.data is None else payload(answer.data))


_KINDS: Mapping[type, tuple[type, Callable[[Any, str, Any, float | None], AuthorizedOutcome]]] = {
    ConnectRequest: (Connected, _connected),
    RefreshRequest: (Refreshed, _refreshed),
    SubscribeRequest: (Subscribed, _subscribed),
    SubRefreshRequest: (Refreshed, _refreshed),
    PublishRequest: (Published, _published),
    RpcRequest: (RpcAnswer, _called),
}
"""The answer that admits each kind of request, and what it means."""
