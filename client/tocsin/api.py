"""Calls of the HTTP API (protocol §14) as values: what to send, and how to read the response.

``Publisher`` and ``AsyncPublisher`` have these functions as methods. ``batch`` takes the calls that they
return.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar
from uuid import uuid4

import msgspec

from .errors import CallError, call_error
from .models import ClientInfo, History, Position, PresenceStats, Publication
from .protocol.codec import decode_json, encode_payload
from .protocol.messages import HistoryResult, PresenceResult, WirePublication

T = TypeVar("T")
_anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
Outcome = Any  # of one call in a batch or broadcast: its result, or its CallError


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call. Sent twice, it has the effect of once, so it may be repeated when there was no response."""

    method: str
    body: dict[str, Any]
    read: Callable[[Any], T]


def publish(  # noqa: PLR0913 - the members of the call
    channel: str,
    data: Any,
    *,
    tags: Mapping[str, str] | None = None,
    skip_history: bool = False,
    idempotency_key: str | None = None,
    version: int = 0,
    version_epoch: str = "",
    delta: bool = False,
) -> Call[Position | None]:
    """Publish to a channel. Returns the position, or None in a channel without history.

    Without an ``idempotency_key`` a random one is used, so that a repeated call publishes only once. With
    ``delta`` subscribers that request it get only the difference from the publication before.
    """
    body = {
        "channel": channel,
        "data": encode_payload(data),
        "tags": tags,
        "skip_history": skip_history,
        "idempotency_key": idempotency_key or uuid4().hex,
        "version": version,
        "version_epoch": version_epoch,
        "delta": delta,
    }
    return _call("publish", _position, **body)


def broadcast(
    channels: Sequence[str],
    data: Any,
    *,
    tags: Mapping[str, str] | None = None,
    skip_history: bool = False,
    idempotency_key: str | None = None,
    delta: bool = False,
) -> Call[list[Outcome]]:
    """Publish the same data to several channels. Returns each position, None or ``CallError``, in order."""
    body = {
        "channels": list(channels),
        "data": encode_payload(data),
        "tags": tags,
        "skip_history": skip_history,
        "idempotency_key": idempotency_key or uuid4().hex,
        "delta": delta,
    }
    return _call("broadcast", _positions, **body)


def batch(calls: Iterable[Call[Any]], *, parallel: bool = False) -> Call[list[Outcome]]:
    """Send several calls in one request. Returns each result or ``CallError``, in order."""
    batched = list(calls)

    def read(response: Any) -> list[Outcome]:
        return [
            _outcome(reply, one.method, one.read)
            for reply, one in zip(response["replies"], batched, strict=True)
        ]

    return Call(
        "batch", {"commands": [{one.method: one.body} for one in batched], "parallel": parallel}, read
    )


def presence(channel: str) -> Call[dict[str, ClientInfo]]:
    """Return the clients that are subscribed to a channel, by client id."""
    return _call("presence", _clients, channel=channel)


def presence_stats(channel: str) -> Call[PresenceStats]:
    """Return how many connections and users are subscribed to a channel."""
    return _call("presence_stats", lambda result: msgspec.convert(result, PresenceStats), channel=channel)


def history(
    channel: str, *, limit: int = -1, since: Position | None = None, reverse: bool = False
) -> Call[History]:
    """Read a channel's history. ``limit`` 0 returns only its top, -1 all publications kept.

    The data of a publication that is no JSON is ``bytes``.
    """
    read = partial(_history, channel)
    return _call("history", read, channel=channel, limit=limit, since=since, reverse=reverse)


def history_remove(channel: str) -> Call[None]:
    """Remove the publications of a channel's history. Its top stays."""
    return _call("history_remove", _nothing, channel=channel)


def channels(pattern: str = "") -> Call[dict[str, int]]:
    """Return the channels that have subscribers, and how many. ``pattern`` is a glob."""
    return _call("channels", _counts, pattern=pattern)


def info() -> Call[list[dict[str, Any]]]:
    """Return the nodes, with the figures of each (protocol §14).

    The state of a node is ``ready``, ``deaf``, ``draining`` or ``silent``.
    """
    return _call("info", lambda result: list(result["nodes"]))


def drain(node: str) -> Call[None]:
    """Drain a node, named by its uid or name. Its clients reconnect to other nodes, then it stops."""
    return _call("drain", _nothing, node=node)


def disconnect(
    user: str, *, client: str = "", whitelist: Sequence[str] = (), code: int = 0, reason: str = ""
) -> Call[None]:
    """Close a user's connections, except those in ``whitelist``.

    The default code is 3503, after which clients do not reconnect.
    """
    given = {"code": code, "reason": reason} if code else None
    return _call(
        "disconnect", _nothing, user=user, client=client, whitelist=list(whitelist), disconnect=given
    )


def unsubscribe(user: str, channel: str, *, client: str = "") -> Call[None]:
    """Unsubscribe a user's connections from a channel (code 2000: they do not subscribe again)."""
    return _call("unsubscribe", _nothing, user=user, channel=channel, client=client)


def subscribe(
    user: str,
    channel: str,
    *,
    client: str = "",
    info: Any = None,
    data: Any = None,
    recover_since: Position | None = None,
    expire_at: int = 0,
) -> Call[None]:
    """Subscribe a user's connections to a channel, server-side. ``expire_at`` is in Unix seconds."""
    body = {"recover_since": recover_since, "expire_at": expire_at, **_payloads(info=info, data=data)}
    return _call("subscribe", _nothing, user=user, channel=channel, client=client, **body)


def refresh(
    user: str, *, client: str = "", expired: bool = False, expire_at: int = 0, info: Any = None
) -> Call[None]:
    """Set a new expiry time for a user's connections, or close them now (``expired``)."""
    body = {"expired": expired, "expire_at": expire_at, **_payloads(info=info)}
    return _call("refresh", _nothing, user=user, client=client, **body)


def revoke_token(uid: str, *, expire_at: int = 0) -> Call[None]:
    """Revoke the token with this ``jti``, until Unix second ``expire_at``, when it has expired.

    Connections and subscriptions that were made with it end, and the clients get new tokens.
    """
    return _call("revoke_token", _nothing, uid=uid, expire_at=expire_at)


def invalidate_user_tokens(
    user: str, *, issued_before: int = 0, expire_at: int = 0, channel: str = ""
) -> Call[None]:
    """Revoke a user's tokens that were issued before a Unix second, by default before now.

    With ``channel`` only subscription tokens for that channel. The revocation is kept until ``expire_at``.
    """
    body = {"issued_before": issued_before, "expire_at": expire_at, "channel": channel}
    return _call("invalidate_user_tokens", _nothing, user=user, **body)


def webhooks() -> Call[list[dict[str, Any]]]:
    """Return the webhooks: whether their deliveries fail and why, and how many dead letters they have."""
    return _call("webhooks", lambda result: list(result["webhooks"]))


def dead_letters(webhook: str, *, limit: int = 100, after: str = "") -> Call[list[dict[str, Any]]]:
    """Return the oldest dead letters of a webhook, or those that follow the one with the id ``after``."""
    return _call("dead_letters", _letters, webhook=webhook, limit=limit, after=after)


def replay_dead_letters(webhook: str, *, ids: Sequence[str] = ()) -> Call[dict[str, Any]]:
    """Send dead letters to their webhook again, by default the oldest ones, and remove those it takes.

    The result has ``replayed`` (how many), ``outcome`` and ``error``.
    """
    return _call("replay_dead_letters", dict, webhook=webhook, ids=list(ids))


def discard_dead_letters(webhook: str, *, ids: Sequence[str] = ()) -> Call[int]:
    """Remove dead letters of a webhook, by default the oldest 1000. Return how many there were."""
    return _call("discard_dead_letters", _discarded, webhook=webhook, ids=list(ids))


def read_response(call: Call[T], text: str) -> T:
    """Read the body of a response with status 200. Raises its ``CallError``, or ``BadProtocol``."""
    response = decode_json(_anything, text)
    if call.method == "batch" and "replies" in response:
        return call.read(response)
    outcome = _outcome(response, "result", call.read)
    if isinstance(outcome, CallError):
        raise outcome
    result: T = outcome
    return result


def _call(method: str, read: Callable[[Any], T], **body: Any) -> Call[T]:
    """Build a call. Zero values are left out (protocol §1), except payloads."""
    fields = {key: value for key, value in body.items() if value or isinstance(value, msgspec.Raw)}
    return Call(method, fields, read)


def _payloads(**values: Any) -> dict[str, msgspec.Raw]:
    return {name: encode_payload(value) for name, value in values.items() if value is not None}


def _outcome(reply: Any, key: str, read: Callable[[Any], Any]) -> Outcome:
    error = reply.get("error")
    if error:
        return call_error(error["code"], error["message"])
    return read(reply[key])


def _clients(result: Any) -> dict[str, ClientInfo]:
    return msgspec.convert(result, PresenceResult).presence or {}


def _discarded(result: Any) -> int:
    return int(result["discarded"])


def _letters(result: Any) -> list[dict[str, Any]]:
    return list(result["dead_letters"])


def _nothing(_: Any) -> None:
    return None


def _position(result: Any) -> Position | None:
    return msgspec.convert(result, Position) if result.get("offset") else None


def _positions(result: Any) -> list[Outcome]:
    return [_outcome(reply, "result", _position) for reply in result["responses"]]


def _counts(result: Any) -> dict[str, int]:
    return {
        name: msgspec.convert(channel["num_clients"], int) for name, channel in result["channels"].items()
    }


def _history(channel: str, result: Any) -> History:
    page = msgspec.convert(result, HistoryResult)
    publications = [
        Publication(channel, _data(one), one.offset, page.epoch, one.info, one.tags or {}, one.time)
        for one in page.publications or ()
    ]
    return History(publications, Position(page.offset, page.epoch))


def _data(publication: WirePublication) -> Any:
    return publication.data if publication.b64data is None else publication.b64data
