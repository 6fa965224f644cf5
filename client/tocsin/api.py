"""Calls of the HTTP API (protocol §14) as values: what to send, and how to read the answer.

The functions here are what ``Publisher`` and ``AsyncPublisher`` offer as methods; ``batch`` takes their
values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar
from uuid import uuid4

import msgspec

from .errors import CallError, call_error
from .protocol import HistoryResult, PresenceResult, decode_as, payload
from .values import ClientInfo, History, Position, PresenceStats, Publication

T = TypeVar("T")
_anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
Outcome = Any  # of one call in a batch or broadcast: its result, or the CallError that it alone got


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call.

    Sending it twice has the effect of sending it once, so it may be repeated when no answer came.
    """

    method: str
    body: dict[str, Any]
    read: Callable[[Any], T]


def publish(
    channel: str,
    data: Any,
    *,
    tags: Mapping[str, str] | None = None,
    skip_history: bool = False,
    idempotency_key: str | None = None,
    version: int = 0,
    version_epoch: str = "",
) -> Call[Position | None]:
    """Publish to a channel; gives the position, or None in a channel without a log.

    Without an ``idempotency_key`` one is made, so that a repetition after a lost answer publishes nothing
    twice.
    """
    body = {
        "channel": channel,
        "data": payload(data),
        "tags": tags,
        "skip_history": skip_history,
        "idempotency_key": idempotency_key or uuid4().hex,
        "version": version,
        "version_epoch": version_epoch,
    }
    return _call("publish", _position, **body)


def broadcast(
    channels: Sequence[str],
    data: Any,
    *,
    tags: Mapping[str, str] | None = None,
    skip_history: bool = False,
    idempotency_key: str | None = None,
) -> Call[list[Outcome]]:
    """Publish the same to several channels; gives, in order, each position, None or ``CallError``."""
    body = {
        "channels": list(channels),
        "data": payload(data),
        "tags": tags,
        "skip_history": skip_history,
        "idempotency_key": idempotency_key or uuid4().hex,
    }
    return _call("broadcast", _positions, **body)


def batch(calls: Iterable[Call[Any]], *, parallel: bool = False) -> Call[list[Outcome]]:
    """Send several calls at once; gives, in their order, each one's result or its ``CallError``."""
    wanted = list(calls)

    def read(answer: Any) -> list[Outcome]:
        return [
            _outcome(reply, one.method, one.read)
            for reply, one in zip(answer["replies"], wanted, strict=True)
        ]

    return Call("batch", {"commands": [{one.method: one.body} for one in wanted], "parallel": parallel}, read)


def presence(channel: str) -> Call[dict[str, ClientInfo]]:
    """Say who is in a channel, by client id."""
    return _call("presence", _clients, channel=channel)


def presence_stats(channel: str) -> Call[PresenceStats]:
    """Say how many connections and users are in a channel."""
    return _call("presence_stats", lambda result: msgspec.convert(result, PresenceStats), channel=channel)


def history(
    channel: str, *, limit: int = -1, since: Position | None = None, reverse: bool = False
) -> Call[History]:
    """Read the log: ``limit`` 0 gives only its top, -1 everything kept."""
    read = partial(_history, channel)
    return _call("history", read, channel=channel, limit=limit, since=since, reverse=reverse)


def history_remove(channel: str) -> Call[None]:
    """Forget what a channel's log keeps; its top stays."""
    return _call("history_remove", _nothing, channel=channel)


def channels(pattern: str = "") -> Call[dict[str, int]]:
    """List channels that have subscribers, with how many; ``pattern`` is a glob."""
    return _call("channels", _counts, pattern=pattern)


def info() -> Call[list[dict[str, Any]]]:
    """Say which nodes there are, and what each holds (protocol §14)."""
    return _call("info", lambda result: list(result["nodes"]))


def drain(node: str) -> Call[None]:
    """Have a node leave on purpose, by its uid or name: its clients go to the others, then it stops."""
    return _call("drain", _nothing, node=node)


def disconnect(
    user: str, *, client: str = "", whitelist: Sequence[str] = (), code: int = 0, reason: str = ""
) -> Call[None]:
    """Close a user's connections, except those in ``whitelist``; by default with 3503: don't come back."""
    told = {"code": code, "reason": reason} if code else None
    return _call("disconnect", _nothing, user=user, client=client, whitelist=list(whitelist), disconnect=told)


def unsubscribe(user: str, channel: str, *, client: str = "") -> Call[None]:
    """End a user's subscriptions to a channel (code 2000: don't come back)."""
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
    """Subscribe a user's connections to a channel, as the server's doing; ``expire_at`` in Unix seconds."""
    body = {"recover_since": recover_since, "expire_at": expire_at, **_payloads(info=info, data=data)}
    return _call("subscribe", _nothing, user=user, channel=channel, client=client, **body)


def refresh(
    user: str, *, client: str = "", expired: bool = False, expire_at: int = 0, info: Any = None
) -> Call[None]:
    """Give a user's connections a new expiry, or end it now."""
    body = {"expired": expired, "expire_at": expire_at, **_payloads(info=info)}
    return _call("refresh", _nothing, user=user, client=client, **body)


def read_answer(call: Call[T], text: str) -> T:
    """Read an answer of status 200; raises the ``CallError`` it carries, or ``BadProtocol``."""
    answer = decode_as(_anything, text)
    if call.method == "batch" and "replies" in answer:
        return call.read(answer)
    outcome = _outcome(answer, "result", call.read)
    if isinstance(outcome, CallError):
        raise outcome
    result: T = outcome
    return result


def _call(method: str, read: Callable[[Any], T], **body: Any) -> Call[T]:
    """Leave out what has its zero value (protocol §1); a payload is never one."""
    said = {key: value for key, value in body.items() if value or isinstance(value, msgspec.Raw)}
    return Call(method, said, read)


def _payloads(**values: Any) -> dict[str, msgspec.Raw]:
    return {name: payload(value) for name, value in values.items() if value is not None}


def _outcome(reply: Any, key: str, read: Callable[[Any], Any]) -> Outcome:
    error = reply.get("error")
    if error:
        return call_error(error["code"], error["message"])
    return read(reply[key])


def _clients(result: Any) -> dict[str, ClientInfo]:
    return msgspec.convert(result, PresenceResult).presence or {}


def _nothing(_: Any) -> None:
    return None


def _position(result: Any) -> Position | None:
    return Position(result["offset"], result["epoch"]) if result.get("offset") else None


def _positions(result: Any) -> list[Outcome]:
    return [_outcome(reply, "result", _position) for reply in result["responses"]]


def _counts(result: Any) -> dict[str, int]:
    return {name: channel["num_clients"] for name, channel in result["channels"].items()}


def _history(channel: str, result: Any) -> History:
    page = msgspec.convert(result, HistoryResult)
    publications = [
        Publication(channel, one.data, one.offset, page.epoch, one.info, one.tags or {}, one.time)
        for one in page.publications or ()
    ]
    return History(publications, Position(page.offset, page.epoch))
