"""What a request for an event stream asks for, read from its query and headers (docs/sse.md).

An EventSource cannot send commands, so its request is turned into those a WebSocket client would have sent.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
from tocsin_server.transports.sse.last_event_id import read_positions
from tocsin_server.transports.sse.refusal import StreamRefused

CONNECT_ID = 1
FIRST_SUBSCRIBE_ID = 2
"""The channel at index `n` of the query is subscribed with command `FIRST_SUBSCRIBE_ID + n`."""


@dataclass(frozen=True, slots=True)
class EventRequest:
    """Channels in the order of the query, and where in each the client stood (None: nowhere)."""

    channels: tuple[str, ...]
    since: tuple[Position | None, ...]
    token: str = ""
    channel_tokens: dict[str, str] = field(default_factory=dict)

    @property
    def is_resuming(self) -> bool:
        """Whether the client stood anywhere."""
        return any(position is not None for position in self.since)

    def commands(self, server_side: Sequence[str] = ()) -> list[Command]:
        """What a WebSocket client would send.

        `server_side` are the channels that the token subscribes by itself: they recover with the connect.
        """
        positions = {
            channel: SubscriptionPosition(recover=True, offset=position.offset, epoch=position.epoch)
            for channel, position in zip(self.channels, self.since, strict=True)
            if position is not None and channel in server_side
        }
        connect = Command(CONNECT_ID, connect=ConnectRequest(self.token, subs=positions, name="sse"))
        subscribes = [self.subscribe(index, position) for index, position in enumerate(self.since)]
        return [connect, *subscribes]

    def subscribe(self, index: int, since: Position | None) -> Command:
        """The command that subscribes the channel at `index` of the query, from `since` if that is known."""
        channel = self.channels[index]
        offset, epoch = since or (0, "")
        request = SubscribeRequest(
            channel,
            self.channel_tokens.get(channel, ""),
            recover=since is not None,
            epoch=epoch,
            offset=offset,
            positioned=True,
            recoverable=True,
        )
        return Command(FIRST_SUBSCRIBE_ID + index, subscribe=request)


def read_request(
    query: Mapping[str, Sequence[str]], last_event_id: str, other_token: str, channel_limit: int
) -> EventRequest:
    """Understand a request; `other_token` came beside the query and counts where that has none.

    Raises StreamRefused.
    """
    channels = tuple(query.get("channel", ()))
    if not channels or not all(channels):
        raise StreamRefused.by_query("The query needs channel=NAME, once for each channel to hear.")
    if len(set(channels)) < len(channels):
        raise StreamRefused.by_query("The query names a channel twice.")
    if len(channels) > channel_limit:
        sentence = f"The query names {len(channels)} channels, but one stream may have {channel_limit}."
        raise StreamRefused.by_query(sentence, errors.LIMIT_EXCEEDED.code)
    try:
        since = read_positions(last_event_id, len(channels))
    except ValueError as error:
        raise StreamRefused.by_query(f"The last event id {error}.") from None
    token = query.get("token", [""])[-1] or other_token
    return EventRequest(channels, tuple(since), token, _channel_tokens(query.get("sub_token", ()), channels))


def _channel_tokens(tokens: Sequence[str], channels: Sequence[str]) -> dict[str, str]:
    """Subscription tokens by the channel that each names, which is why their order does not matter."""
    found = {_claimed_channel(token): token for token in tokens}
    for channel in found:
        if channel not in channels:
            raise StreamRefused.by_query(
                "A sub_token is for a channel that the query does not name, or is no token."
            )
    return found


class _Claim(Struct):
    channel: str = ""


def _claimed_channel(token: str) -> str:
    """The channel a token says it is for; whether that is true, the session finds out when it uses it."""
    try:
        payload = token.split(".")[1]
        return msgspec.json.decode(base64.urlsafe_b64decode(payload + "=="), type=_Claim).channel
    except (IndexError, ValueError, RecursionError):
        return ""
