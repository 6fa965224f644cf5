"""A listener's WebSocket: the client protocol with one subscription, its commands sent in one frame."""

from __future__ import annotations

import asyncio
import os
from itertools import count

from tocsin.errors import FIRST_RESUBSCRIBE_CODE, is_temporary
from tocsin.protocol import (
    PONG,
    ConnectRequest,
    ConnectResult,
    Push,
    Reply,
    SubscribeRequest,
    SubscribeResult,
    WireError,
    WirePublication,
    command,
    decode,
    encode,
)
from tocsin.session import PING_GRACE_SECONDS
from tocsin.values import Position

from . import frames
from .frames import FrameReader
from .listener import Listener
from .wire import Wire

REFUSED = 3507  # "permission denied": what an error reply says that no second attempt would change


class WebSocketWire(Wire):
    """One WebSocket."""

    status = 101

    def __init__(self, listener: Listener, channel: str, url: str, token: str) -> None:
        super().__init__(listener, channel, url, token)
        self._reader = FrameReader()
        self._ids = count(1)
        self._silence: float | None = None
        self._must_pong = False
        self._epoch = ""
        self._loop = asyncio.get_running_loop()

    def _request(self) -> bytes:
        return frames.upgrade_request(self._url.netloc, self._target(), os.urandom(16))

    def _opened(self, head: bytes) -> None:  # noqa: ARG002 # the other kind reads it
        hello = command(next(self._ids), "connect", ConnectRequest(token=self._token, name="tocsin load"))
        for text in encode([hello, command(next(self._ids), "subscribe", self._wanted())]):
            self._send(frames.TEXT, text.encode())

    def _wanted(self) -> SubscribeRequest:
        wanted = SubscribeRequest(channel=self._channel, positioned=True, recoverable=True)
        if (position := self._listener.position) is not None:
            wanted.recover, wanted.offset, wanted.epoch = True, position.offset, position.epoch
        return wanted

    def _read(self, data: bytes, now: float) -> None:
        if self._silence is not None:
            self._listener.due = self._loop.time() + self._silence
        for opcode, payload in self._reader.feed(data):
            if not self._is_current():
                return
            if opcode == frames.TEXT:
                for reply in decode(payload):
                    self._take(reply, now)
            elif opcode == frames.PING:
                self._send(frames.PONG, payload)
            elif opcode == frames.CLOSE:
                self._lose(*frames.read_close(payload))

    def _take(self, reply: Reply, now: float) -> None:
        if reply.push is not None:
            self._pushed(reply.push, now)
        elif reply.error is not None:
            self._denied(reply.error)
        elif reply.connect is not None:
            self._greeted(reply.connect)
        elif reply.subscribe is not None:
            self._subscribed(reply.subscribe, now)
        elif reply.is_ping and self._must_pong:
            self._send(frames.TEXT, PONG.encode())

    def _greeted(self, result: ConnectResult) -> None:
        self._must_pong = result.pong
        self._silence = result.ping + PING_GRACE_SECONDS if result.ping else None

    def _subscribed(self, result: SubscribeResult, now: float) -> None:
        has_log = result.recoverable or result.positioned
        self._epoch = result.epoch
        position = Position(result.offset, result.epoch) if has_log else None
        self._listener.subscribed(position, is_whole=result.recovered)
        self._listener.due = self._loop.time() + self._silence if self._silence is not None else None
        for publication in result.publications or ():
            self._hear(publication, now)

    def _hear(self, publication: WirePublication, now: float) -> None:
        offset = publication.offset
        position = Position(offset, self._epoch) if offset and self._epoch else None
        self._listener.hear(publication.data, position, now)

    def _pushed(self, push: Push, now: float) -> None:
        if push.disconnect is not None:
            self._lose(push.disconnect.code, push.disconnect.reason)
        elif push.channel != self._channel:
            return
        elif push.pub is not None:
            self._hear(push.pub, now)
        elif push.unsubscribe is not None:
            self._unsubscribed(push.unsubscribe.code, push.unsubscribe.reason)

    def _unsubscribed(self, code: int, reason: str) -> None:
        """Subscribe again at once where the code says so, else it is over for good."""
        if code < FIRST_RESUBSCRIBE_CODE:
            self._lose(REFUSED, f"unsubscribed: {reason}")
            return
        self._listener.unsubscribed()
        for text in encode([command(next(self._ids), "subscribe", self._wanted())]):
            self._send(frames.TEXT, text.encode())

    def _denied(self, error: WireError) -> None:
        code = 0 if is_temporary(error.code, error.temporary) else REFUSED
        self._lose(code, f"{error.message} (error {error.code})")

    def _send(self, opcode: int, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frames.frame(opcode, payload))
