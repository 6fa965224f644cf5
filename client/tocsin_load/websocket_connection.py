"""The WebSocket of a subscriber: the client protocol with one subscription, its commands in one frame."""

from __future__ import annotations

import asyncio
import os
from itertools import count

from tocsin.errors import FIRST_RESUBSCRIBE_CODE, is_temporary
from tocsin.models import Position
from tocsin.protocol.codec import PONG, build_command, decode_replies, encode_frames
from tocsin.protocol.messages import (
    ConnectRequest,
    ConnectResult,
    Push,
    Reply,
    SubscribeRequest,
    SubscribeResult,
    WireError,
    WirePublication,
)
from tocsin.session.session import LONGEST_PING_SECONDS, PING_GRACE_SECONDS
from tocsin.transports.websocket import describe_status

from . import frames
from .frames import FrameReader
from .raw_connection import RawConnection
from .subscriber import Subscriber

UNSENT_BYTES = 1024 * 1024
REFUSED = 3507  # "permission denied": for an error reply that another attempt would not change


class WebSocketConnection(RawConnection):
    """One WebSocket."""

    status = 101

    def __init__(self, subscriber: Subscriber, channel: str, url: str, token: str) -> None:
        super().__init__(subscriber, channel, url, token)
        self._reader = FrameReader()
        self._ids = count(1)
        self._ping_timeout: float | None = None
        self._must_pong = False
        self._epoch = ""
        self._loop = asyncio.get_running_loop()

    def _request(self) -> bytes:
        return frames.upgrade_request(self._host, self._target(), os.urandom(16), self._basic_authorization)

    def _on_response(self, head: bytes) -> None:  # noqa: ARG002 # event streams read it
        connect = ConnectRequest(token=self._token, name="tocsin load")
        commands = [
            build_command(next(self._ids), "connect", connect),
            build_command(next(self._ids), "subscribe", self._subscribe_request()),
        ]
        for text in encode_frames(commands):
            self._send(frames.TEXT, text.encode())

    def _describe_status(self, status: int, body: str) -> str:
        return describe_status(status, body)

    def _subscribe_request(self) -> SubscribeRequest:
        request = SubscribeRequest(channel=self._channel, positioned=True, recoverable=True)
        if (position := self._subscriber.position) is not None:
            request.recover, request.offset, request.epoch = True, position.offset, position.epoch
        return request

    def _on_data(self, data: bytes, now: float) -> None:
        if self._ping_timeout is not None:
            self._subscriber.deadline = self._loop.time() + self._ping_timeout
        for opcode, payload in self._reader.feed(data):
            if not self._is_current():
                return
            if opcode == frames.TEXT:
                for reply in decode_replies(payload.decode("utf-8", "replace")):
                    self._on_reply(reply, now)
            elif opcode == frames.PING:
                self._send(frames.PONG, payload)
            elif opcode == frames.CLOSE:
                self._lose(*frames.read_close(payload))

    def _on_reply(self, reply: Reply, now: float) -> None:
        if reply.push is not None:
            self._on_push(reply.push, now)
        elif reply.error is not None:
            self._on_error(reply.error)
        elif reply.connect is not None:
            self._on_connect_reply(reply.connect)
        elif reply.subscribe is not None:
            self._on_subscribe_reply(reply.subscribe, now)
        elif reply.is_ping and self._must_pong:
            self._send(frames.TEXT, PONG.encode())

    def _on_connect_reply(self, result: ConnectResult) -> None:
        self._must_pong = result.pong
        ping = min(result.ping, LONGEST_PING_SECONDS)
        self._ping_timeout = ping + PING_GRACE_SECONDS if ping > 0 else None

    def _on_subscribe_reply(self, result: SubscribeResult, now: float) -> None:
        has_history = result.recoverable or result.positioned
        self._epoch = result.epoch
        position = Position(result.offset, result.epoch) if has_history else None
        self._subscriber.on_subscribed(position, is_recovered=result.recovered)
        timeout = self._ping_timeout
        self._subscriber.deadline = self._loop.time() + timeout if timeout is not None else None
        for publication in result.publications or ():
            self._on_publication(publication, now)

    def _on_publication(self, publication: WirePublication, now: float) -> None:
        offset = publication.offset
        position = Position(offset, self._epoch) if offset and self._epoch else None
        self._subscriber.on_publication(publication.data, position, now)

    def _on_push(self, push: Push, now: float) -> None:
        if push.disconnect is not None:
            self._lose(push.disconnect.code, push.disconnect.reason)
        elif push.channel != self._channel:
            return
        elif push.pub is not None:
            self._on_publication(push.pub, now)
        elif push.unsubscribe is not None:
            self._on_unsubscribe(push.unsubscribe.code, push.unsubscribe.reason)

    def _on_unsubscribe(self, code: int, reason: str) -> None:
        """Subscribe again if the code permits it; otherwise the subscriber ends."""
        if code < FIRST_RESUBSCRIBE_CODE:
            self._lose(REFUSED, f"unsubscribed: {reason}")
            return
        if pause := self._subscriber.on_unsubscribed():
            self._loop.call_later(pause, self._subscribe_again)
        else:
            self._subscribe_again()

    def _subscribe_again(self) -> None:
        if self._is_current() and not self._subscriber.is_subscribed:
            command = build_command(next(self._ids), "subscribe", self._subscribe_request())
            for text in encode_frames([command]):
                self._send(frames.TEXT, text.encode())

    def _on_error(self, error: WireError) -> None:
        code = 0 if is_temporary(error.code, error.temporary) else REFUSED
        self._lose(code, f"{error.message} (error {error.code})")

    def _send(self, opcode: int, payload: bytes) -> None:
        if self._transport is None:
            return
        self._transport.write(frames.build_frame(opcode, payload))
        if self._transport.get_write_buffer_size() > UNSENT_BYTES:
            self._lose(0, "the server does not read")
