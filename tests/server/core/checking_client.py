"""A client that believes only what it is told, and complains of whatever does not follow from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from tocsin_server.core.channel import ChannelMessage
from tocsin_server.core.session import Session
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import Position


class Lines:
    """Packs what many peers hear into the lines that they are sent."""

    def pack(self, _channel: str, items: Sequence[ChannelMessage]) -> list[bytes]:
        """One payload."""
        return [JSON.wrap_push(item.encoded(JSON)) for item in items]


LINES = Lines()


class CheckingClient:
    """One connection as its client sees it: what it sent, what it heard, and where it stands in each channel.

    Publications of logged channels say in their data which log and offset they are of, so that the client can
    tell whether it is told the truth.
    """

    framing = LINES

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sent: dict[int, dict[str, Any]] = {}
        self.replied: set[int] = set()
        self.places: dict[str, Position | None] = {}
        """Where it stands in each channel it is in; None in those without positions."""
        self.owes_pong = False
        self.is_closed = False

    @property
    def write(self) -> Callable[[Any], object]:
        """Where a channel writes to."""
        return self._hear_all

    def _hear_all(self, payload: list[bytes]) -> None:
        for line in payload:
            self.hear(json.loads(line))

    def hear(self, message: dict[str, Any]) -> None:
        """Take a message."""
        assert not self.is_closed, "a message after the close"
        if "id" in message:
            self._hear_reply(message)
        elif "push" in message:
            assert self.is_connected, "a push before the connect reply"
            self._hear_push(message["push"])
        else:
            self.owes_pong = True

    @property
    def is_connected(self) -> bool:
        """Whether its connect was answered with a result."""
        return 1 in self.replied

    def _hear_reply(self, reply: dict[str, Any]) -> None:
        command_id = reply["id"]
        assert command_id in self.sent, "a reply to nothing"
        assert command_id not in self.replied, "a second reply"
        assert self.is_connected or command_id == 1, "a reply before the connect reply"
        self.replied.add(command_id)
        if "error" in reply:
            return
        command = self.sent[command_id]
        if "subscribe" in reply:
            self._enter(command["subscribe"]["channel"], reply["subscribe"])
        elif "unsubscribe" in reply:
            self.places.pop(command["unsubscribe"]["channel"], None)
        elif "connect" in reply:
            for channel, result in reply["connect"].get("subs", {}).items():
                self._enter(channel, result)

    def _enter(self, channel: str, result: dict[str, Any]) -> None:
        assert channel not in self.places, "a second place in a channel"
        is_positioned = result.get("positioned") or result.get("recoverable")
        self.places[channel] = Position(result.get("offset", 0), result["epoch"]) if is_positioned else None
        for publication in result.get("publications", []):
            self._take(channel, publication)

    def _hear_push(self, push: dict[str, Any]) -> None:
        channel = push.get("channel")
        if channel is None:
            assert "refresh" in push
        elif "subscribe" in push:
            self._enter(channel, push["subscribe"])
        else:
            assert channel in self.places, "a push for a channel it is not in"
            if "pub" in push:
                self._take(channel, push["pub"])
            elif "unsubscribe" in push:
                del self.places[channel]

    def _take(self, channel: str, publication: dict[str, Any]) -> None:
        position = self.places[channel]
        offset = publication.get("offset", 0)
        if position is None or not offset:
            return
        assert publication["data"] == [position.epoch, offset], "a publication of another log"
        is_next = offset == position.offset + 1
        assert is_next or (channel.startswith("cache:") and offset > position.offset), "a hole"
        self.places[channel] = Position(offset, position.epoch)
