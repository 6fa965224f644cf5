"""The event stream of a subscriber: ``GET /events``, with ``Last-Event-ID`` as a browser sends it."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

import msgspec

from tocsin.errors import FIRST_RESUBSCRIBE_CODE
from tocsin.models import Position
from tocsin.protocol.codec import decode_json
from tocsin.transports.sse import SILENCE_SECONDS
from tocsin.transports.sse_events import EventGap, EventMessage, decode_disconnect

from .raw_connection import RawConnection
from .sse_parser import ChunkDecoder, EventParser, ServerEvent
from .subscriber import Subscriber

UNSUBSCRIBED = 3507  # the stream goes on without its only channel, so it is closed for good
_gaps = msgspec.json.Decoder(EventGap)
_messages = msgspec.json.Decoder(EventMessage)


class SseConnection(RawConnection):
    """One event stream."""

    status = 200

    def __init__(self, subscriber: Subscriber, channel: str, url: str, token: str) -> None:
        super().__init__(subscriber, channel, url, token)
        self._chunks: ChunkDecoder | None = None
        self._events = EventParser()
        self._loop = asyncio.get_running_loop()

    def _request(self) -> bytes:
        query = urlencode({"channel": self._channel})
        target = self._target()
        lines = [
            f"GET {target}{'&' if '?' in target else '?'}{query} HTTP/1.1",
            f"Host: {self._host}",
            "Accept: text/event-stream",
            "Cache-Control: no-store",
        ]
        if basic := self._basic_authorization:
            lines.append(f"Authorization: {basic}")
        if self._token:
            lines.append(f"{'Cookie: tocsin_token=' if basic else 'Authorization: Bearer '}{self._token}")
        if self._subscriber.position is not None:
            lines.append(f"Last-Event-ID: {self._subscriber.position}")
        return "\r\n".join([*lines, "", ""]).encode()

    def _on_response(self, head: bytes) -> None:
        if b"\r\ntransfer-encoding: chunked" in head:
            self._chunks = ChunkDecoder()

    def _on_data(self, data: bytes, now: float) -> None:
        self._subscriber.deadline = self._loop.time() + SILENCE_SECONDS
        for event in self._events.feed(self._chunks.feed(data) if self._chunks else data):
            if not self._is_current():
                return
            self._on_event(event, now)
        if self._chunks and self._chunks.is_complete:
            self._lose(0, "the stream ended")

    def _on_event(self, event: ServerEvent, now: float) -> None:
        position = Position.parse(event.last_id) if event.last_id else None
        if event.name == "disconnect":
            disconnect = decode_disconnect(event.data)
            self._lose(disconnect.code, disconnect.reason)
        elif event.name == "unsubscribe":
            ended = decode_disconnect(event.data)
            may_return = ended.code >= FIRST_RESUBSCRIBE_CODE
            self._lose(0 if may_return else UNSUBSCRIBED, f"unsubscribed: {ended.reason}")
        elif event.name == "gap":
            self._go_live(position)
            self._subscriber.on_gap(decode_json(_gaps, event.data).to)
        elif event.name in ("", "message"):
            self._go_live(position)
            if event.data:
                self._on_message(decode_json(_messages, event.data), position, now)

    def _go_live(self, position: Position | None) -> None:
        """Go live with the first event. With history it recovers, since otherwise a gap event follows."""
        if not self._subscriber.is_subscribed:
            self._subscriber.on_subscribed(position, is_recovered=self._subscriber.position is not None)

    def _on_message(self, message: EventMessage, position: Position | None, now: float) -> None:
        if message.pub is not None and message.channel == self._channel:
            self._subscriber.on_publication(message.pub.data, position, now)
