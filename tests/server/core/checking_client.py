"""A client that checks every message it receives against what it received before."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tests.server.core.published import payload
from tests.support.fossil import apply_delta
from tocsin_server.core.channel import ChannelMessage
from tocsin_server.core.session import Session
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import Position

NOTHING: Mapping[str, Any] = MappingProxyType({})


class LineFraming:
    """Packs shared messages as the lines that clients receive."""

    codec = JSON

    def pack(self, _channel: str, messages: Sequence[ChannelMessage]) -> list[bytes]:
        """Return one payload."""
        return [JSON.wrap_push(message.encoded(JSON)) for message in messages]


LINE_FRAMING = LineFraming()


class CheckingClient:
    """One connection as its client sees it: what it sent, what it received, its position in each channel.

    The data of a publication follows from its epoch and number (`published.py`), so the client can check all
    of it. It applies deltas, and checks that it gets exactly what its filter matches.
    """

    framing = LINE_FRAMING

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sent: dict[int, dict[str, Any]] = {}
        self.replied: set[int] = set()
        self.positions: dict[str, Position | None] = {}
        """Its position in each channel that it is subscribed to; None where it has none."""
        self.filtered: set[str] = set()
        """The channels in which it gets only publications with even numbers."""
        self.bases: dict[str, bytes] = {}
        """Where it was granted deltas: the data of the last publication that it has."""
        self.deltas = 0
        """How many deltas it has applied."""
        self.has_unanswered_ping = False
        self.is_connected = False
        self.is_closed = False

    @property
    def write(self) -> Callable[[Any], object]:
        """What a channel calls to write."""
        return self._receive_payload

    def _receive_payload(self, payload: list[bytes]) -> None:
        for line in payload:
            self.receive(json.loads(line))

    def receive(self, message: dict[str, Any]) -> None:
        """Handle one message."""
        assert not self.is_closed, "a message after the close"
        if "id" in message:
            self._receive_reply(message)
        elif "push" in message:
            assert self.is_connected, "a push before the connect reply"
            self._receive_push(message["push"])
        else:
            self.has_unanswered_ping = True

    def _receive_reply(self, reply: dict[str, Any]) -> None:
        command_id = reply["id"]
        assert command_id in self.sent, "a reply without a command"
        assert command_id not in self.replied, "a second reply"
        assert self.is_connected or command_id == 1, "a reply before the connect reply"
        is_subscribe = "subscribe" in self.sent[command_id]
        for earlier in range(1, command_id):
            both_subscribe = is_subscribe and "subscribe" in self.sent[earlier]
            assert earlier in self.replied or both_subscribe, "a reply before that of an earlier command"
        self.replied.add(command_id)
        if "error" in reply:
            return
        command = self.sent[command_id]
        if "subscribe" in reply:
            self._start_subscription(
                command["subscribe"]["channel"], reply["subscribe"], command["subscribe"]
            )
        elif "unsubscribe" in reply:
            self._end_subscription(command["unsubscribe"]["channel"])
        elif "connect" in reply:
            self.is_connected = True
            for channel, result in reply["connect"].get("subs", {}).items():
                self._start_subscription(channel, result)

    def _start_subscription(
        self, channel: str, result: dict[str, Any], request: Mapping[str, Any] = NOTHING
    ) -> None:
        assert channel not in self.positions, "a second subscription to a channel"
        is_positioned = result.get("positioned") or result.get("recoverable")
        self.positions[channel] = (
            Position(result.get("offset", 0), result["epoch"]) if is_positioned else None
        )
        if "tf" in request:
            self.filtered.add(channel)
        if result.get("delta"):
            assert "delta" in request, "deltas without a request"
            self.bases[channel] = b""
        for publication in result.get("publications", []):
            self._receive_publication(channel, publication)

    def _end_subscription(self, channel: str) -> None:
        self.positions.pop(channel, None)
        self.bases.pop(channel, None)
        self.filtered.discard(channel)

    def _receive_push(self, push: dict[str, Any]) -> None:
        channel = push.get("channel")
        if channel is None:
            assert "refresh" in push
        elif "subscribe" in push:
            self._start_subscription(channel, push["subscribe"])
        else:
            assert channel in self.positions, "a push without a subscription"
            if "pub" in push:
                self._receive_publication(channel, push["pub"])
            elif "unsubscribe" in push:
                self._end_subscription(channel)

    def _receive_publication(self, channel: str, publication: dict[str, Any]) -> None:
        epoch, number, _ = data = self._decoded(channel, publication)
        assert data == json.loads(payload(epoch, number)), "another payload than the published one"
        is_filtered = channel in self.filtered
        assert number % 2 == 0 or not is_filtered, "a publication that does not match the filter"
        position = self.positions[channel]
        offset = publication.get("offset", 0)
        if position is None or not offset:
            return
        assert (epoch, number) == (position.epoch, offset), "a publication of another history"
        may_skip = channel.startswith("cache:") and offset > position.offset
        is_next = offset == position.offset + 1 or (is_filtered and offset == position.offset + 2)
        assert is_next or may_skip, "a gap"
        self.positions[channel] = Position(offset, position.epoch)

    def _decoded(self, channel: str, publication: dict[str, Any]) -> Any:
        """The data of a publication, which an SDK would give to its application."""
        if channel not in self.bases:
            assert "delta" not in publication, "a delta without a grant"
            return publication["data"]
        text = publication["data"].encode()
        if publication.get("delta"):
            assert self.bases[channel], "a delta before anything whole"
            text = apply_delta(self.bases[channel], text)
            self.deltas += 1
        self.bases[channel] = text
        return json.loads(text)

    def has_everything(self, channel: str, top: Position) -> bool:
        """Whether it has all publications up to the top that are for it."""
        position = self.positions[channel]
        if position is None:
            return True
        is_one_behind = position.offset + 1 == top.offset and top.offset % 2 == 1
        return position == top or (channel in self.filtered and position.epoch == top.epoch and is_one_behind)
