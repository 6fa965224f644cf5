"""A request for an event stream, read from its query and headers (docs/sse.md).

An EventSource cannot send commands, so its request is turned into the commands that a WebSocket client sends.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from tocsin_server import errors
from tocsin_server.protocol.messages import (
    Command,
    ConnectRequest,
    Position,
    SubscribeRequest,
    SubscriptionPosition,
)
from tocsin_server.transports.sse.last_event_id import is_last_event_id, read_last_event_id
from tocsin_server.transports.sse.refusal import StreamRefused

CONNECT_ID = 1
FIRST_SUBSCRIBE_ID = 2
"""The channel at index `n` of the query is subscribed with command `FIRST_SUBSCRIBE_ID + n`."""

LAST_EVENT_ID = "last_event_id"
PADDING = "padding"
"""A polyfill for old browsers adds it. It says nothing about the stream."""

PARAMETERS = ("channel", "token", "sub_token", LAST_EVENT_ID)
"""The parameters of a query, as docs/sse.md describes them."""


@dataclass(frozen=True, slots=True)
class EventRequest:
    """Channels in the order of the query, and for each the client's position, or None."""

    channels: tuple[str, ...]
    since: tuple[Position | None, ...]
    token: str = ""
    channel_tokens: dict[str, str] = field(default_factory=dict)

    @property
    def is_recovering(self) -> bool:
        """Whether the client has a position in any channel."""
        return any(position is not None for position in self.since)

    def commands(self, server_side: Sequence[str] = ()) -> list[Command]:
        """The connect and subscribe commands.

        `server_side` are the channels that the token subscribes by itself. They recover with the connect
        command.
        """
        positions = {
            channel: SubscriptionPosition(recover=True, offset=position.offset, epoch=position.epoch)
            for channel, position in zip(self.channels, self.since, strict=True)
            if position is not None and channel in server_side
        }
        connect = Command(CONNECT_ID, connect=ConnectRequest(self.token, subs=positions, name="sse"))
        subscribes = [self.subscribe_command(index, position) for index, position in enumerate(self.since)]
        return [connect, *subscribes]

    def subscribe_command(self, index: int, since: Position | None) -> Command:
        """The command for the channel at `index` of the query. It recovers from `since`, if there is one."""
        channel = self.channels[index]
        request = SubscribeRequest(
            channel,
            self.channel_tokens.get(channel, ""),
            recover=since is not None,
            epoch=since.epoch if since is not None else "",
            offset=since.offset if since is not None else 0,
            positioned=True,
            recoverable=True,
        )
        return Command(FIRST_SUBSCRIBE_ID + index, subscribe=request)


def read_query(text: str) -> dict[str, list[str]]:
    """The values of a query by parameter. Every spelling of the last event id counts as `last_event_id`.

    Raises StreamRefused for an unknown parameter, which might be a client's request to recover.
    """
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        parameter = LAST_EVENT_ID if is_last_event_id(name) else name
        if parameter not in (*PARAMETERS, PADDING):
            sentence = f'The query has an unknown parameter "{name[:40]}". Known are {", ".join(PARAMETERS)}.'
            raise StreamRefused.for_query(sentence)
        query.setdefault(parameter, []).append(value)
    return query


def newest_last_event_id(headers: Iterable[tuple[str, str]], query: Mapping[str, Sequence[str]]) -> str:
    """The last event id that a client received most recently; empty if there is none.

    A header is newer than the query: a browser that reconnects sends its latest id, and its URL stays the
    same. A polyfill appends its id to the URL, so the last one of a query is the newest.

    Raises StreamRefused if headers contradict each other.
    """
    sent = {value for name, value in headers if is_last_event_id(name) and value}
    if len(sent) > 1:
        raise StreamRefused.for_query("The request has several headers Last-Event-ID that differ.")
    appended = [value for value in query.get(LAST_EVENT_ID, ()) if value]
    return next(iter(sent), appended[-1] if appended else "")


def read_request(
    query: Mapping[str, Sequence[str]], last_event_id: str, header_token: str, channel_limit: int
) -> EventRequest:
    """Read a request. `header_token` is used where the query has no token.

    Raises StreamRefused.
    """
    channels = _read_channels(query.get("channel", ()), channel_limit)
    try:
        since = read_last_event_id(last_event_id, len(channels))
    except ValueError as error:
        raise StreamRefused.for_query(f"The last event id {error}.") from None
    tokens = {token for token in query.get("token", ()) if token}
    if len(tokens) > 1:
        raise StreamRefused.for_query("The query has several tokens that differ.")
    token = next(iter(tokens), header_token)
    return EventRequest(channels, tuple(since), token, _channel_tokens(query.get("sub_token", ()), channels))


def _read_channels(names: Sequence[str], limit: int) -> tuple[str, ...]:
    if not names or not all(names):
        raise StreamRefused.for_query("The query needs channel=NAME, once for each channel to subscribe.")
    if len(set(names)) < len(names):
        raise StreamRefused.for_query("The query names a channel twice.")
    if len(names) > limit:
        sentence = f"The query names {len(names)} channels, but one stream may have {limit}."
        raise StreamRefused.for_query(sentence, errors.LIMIT_EXCEEDED.code)
    return tuple(names)


def _channel_tokens(tokens: Sequence[str], channels: Sequence[str]) -> dict[str, str]:
    """Subscription tokens by the channel that each names, so their order in the query does not matter."""
    found = {_claimed_channel(token): token for token in tokens}
    if not found.keys() <= set(channels):
        raise StreamRefused.for_query(
            "A sub_token is for a channel that the query does not name, or is not a token."
        )
    return found


class _ChannelClaim(Struct):
    channel: str = ""


def _claimed_channel(token: str) -> str:
    """The channel that a token claims, unverified: the session verifies the token when it subscribes."""
    try:
        payload = token.split(".")[1]
        return msgspec.json.decode(base64.urlsafe_b64decode(payload + "=="), type=_ChannelClaim).channel
    except (IndexError, ValueError, RecursionError):
        return ""
