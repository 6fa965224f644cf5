"""A client that checks every message it receives against what it received before."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from tocsin_server.core.channel import ChannelMessage
from tocsin_server.core.session import Session
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import Position


class LineFraming:
    """Packs shared messages as the lines that clients receive."""

    codec = JSON

    def pack(self, _channel: str, messages: Sequence[ChannelMessage]) -> list[bytes]:
        """Return one payload."""
        return [JSON.wrap_push(message.encoded(JSON)) for message in messages]


LINE_FRAMING = LineFraming()


class CheckingClient:
    """One connection as its client sees it: what it sent, what it received, its position in each channel.

    The data of a publication with an offset names its epoch and offset, so the client can check both.
    """

    framing = LINE_FRAMING

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sent: dict[int, dict[str, Any]] = {}
        self.replied: set[int] = set()
        self.positions: dict[str, Position | None] = {}
        """Its position in each channel that it is subscribed to; None where it has none."""
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
            self._start_subscription(command["subscribe"]["channel"], reply["subscribe"])
        elif "unsubscribe" in reply:
            self.positions.pop(command["unsubscribe"]["channel"], None)
        elif "connect" in reply:
            self.is_connected = True
            for channel, result in reply["connect"].get("subs", {}).items():
                self._start_subscription(channel, result)

    def _start_subscription(self, channel: str, result: dict[str, Any]) -> None:
        assert channel not in self.positions, "a second subscription to a channel"
        is_positioned = result.get("positioned") or result.get("recoverable")
        self.positions[channel] = (
            Position(result.get("offset", 0), result["epoch"]) if is_positioned else None
        )
        for publication in result.get("publications", []):
            self._receive_publication(channel, publication)

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
                del self.positions[channel]

    def _receive_publication(self, channel: str, publication: dict[str, Any]) -> None:
        position = self.positions[channel]
        offset = publication.get("offset", 0)
        if position is None or not offset:
            return
        assert publication["data"] == [position.epoch, offset], "a publication of another history"
        is_next = offset == position.offset + 1
        assert is_next or (channel.startswith("cache:") and offset > position.offset), "a gap"
        self.positions[channel] = Position(offset, position.epoch)
