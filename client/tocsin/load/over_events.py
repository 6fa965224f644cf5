"""A listener's event stream: ``GET /events``, and back with ``Last-Event-ID`` as a browser does."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

import msgspec

from tocsin.feed import Gap, Message, read_disconnect
from tocsin.protocol import decode_as
from tocsin.sse import SILENCE_SECONDS
from tocsin.values import Position

from .chunks import ChunkReader, EventReader, ServerEvent
from .listener import Listener
from .wire import Wire

UNSUBSCRIBED = 3507  # the stream goes on without its only channel: nothing to wait for
_gaps = msgspec.json.Decoder(Gap)
_messages = msgspec.json.Decoder(Message)


class EventWire(Wire):
    """One event stream."""

    status = 200

    def __init__(self, listener: Listener, channel: str, url: str, token: str) -> None:
        super().__init__(listener, channel, url, token)
        self._chunks: ChunkReader | None = None
        self._events = EventReader()
        self._loop = asyncio.get_running_loop()

    def _request(self) -> bytes:
        query = urlencode({"channel": self._channel})
        target = self._target()
        lines = [
            f"GET {target}{'&' if '?' in target else '?'}{query} HTTP/1.1",
            f"Host: {self._url.netloc}",
            "Accept: text/event-stream",
            "Cache-Control: no-store",
        ]
        if self._token:
            lines.append(f"Authorization: Bearer {self._token}")
        if self._listener.position is not None:
            lines.append(f"Last-Event-ID: {self._listener.position}")
        return "\r\n".join([*lines, "", ""]).encode()

    def _opened(self, head: bytes) -> None:
        if b"\r\ntransfer-encoding: chunked" in head:
            self._chunks = ChunkReader()

    def _read(self, data: bytes, now: float) -> None:
        self._listener.due = self._loop.time() + SILENCE_SECONDS
        for event in self._events.feed(self._chunks.feed(data) if self._chunks else data):
            if not self._is_current():
                return
            self._take(event, now)
        if self._chunks and self._chunks.is_over:
            self._lose(0, "the stream ended")

    def _take(self, event: ServerEvent, now: float) -> None:
        position = Position.parse(event.last_id) if event.last_id else None
        if event.name == "disconnect":
            told = read_disconnect(event.data)
            self._lose(told.code, told.reason)
        elif event.name == "unsubscribe":
            self._lose(UNSUBSCRIBED, f"unsubscribed: {read_disconnect(event.data).reason}")
        elif event.name == "gap":
            self._begin(position)
            self._listener.gap(decode_as(_gaps, event.data).to)
        elif event.name in ("", "message"):
            self._begin(position)
            if event.data:
                self._hear(decode_as(_messages, event.data), position, now)

    def _begin(self, position: Position | None) -> None:
        """Live with the first event: whole where there is a log, for a gap would be told."""
        if not self._listener.is_subscribed:
            self._listener.subscribed(position, is_whole=self._listener.position is not None)

    def _hear(self, message: Message, position: Position | None, now: float) -> None:
        if message.pub is not None and message.channel == self._channel:
            self._listener.hear(message.pub.data, position, now)
