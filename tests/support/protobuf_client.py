"""A client that speaks protobuf with the SDK's own classes, and hides nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import centrifuge.protocol.client_pb2 as classes_of_sdk
import websockets
from websockets.asyncio.client import ClientConnection, connect

from tests.support.refusal import Refused
from tests.support.timing import SOON
from tests.support.wire_client import Close

SUBPROTOCOL = websockets.Subprotocol("centrifuge-protobuf")

sdk: Any = classes_of_sdk


def prefixed(message: bytes) -> bytes:
    """A message after its length."""
    size, length = len(message), b""
    while size > 127:
        length += bytes((size & 127 | 128,))
        size >>= 7
    return length + bytes((size,)) + message


def messages_in(frame: bytes) -> list[bytes]:
    """The messages of a frame."""
    found, at = [], 0
    while at < len(frame):
        size = shift = 0
        while True:
            byte = frame[at]
            size |= (byte & 127) << shift
            shift, at = shift + 7, at + 1
            if byte < 128:
                break
        found.append(frame[at : at + size])
        assert len(found[-1]) == size, "the last message is complete"
        at += size
    return found


class ProtobufClient:
    """One connection. Pings are answered while `answers_pings` is true, and counted."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.answers_pings = True
        self.pings = 0
        self._ids = itertools.count(1)
        self._arrived: deque[Any] = deque()

    async def send(self, *commands: Any) -> None:
        """Send commands in one frame."""
        await self.send_bytes(b"".join(prefixed(one.SerializeToString()) for one in commands))

    async def send_bytes(self, frame: bytes) -> None:
        """Send a frame. A connection that the server has already closed is no error here."""
        with contextlib.suppress(websockets.ConnectionClosed):
            await self.connection.send(frame)

    async def receive(self) -> Any:
        """Wait for the next reply or push."""
        while not self._arrived:
            async with asyncio.timeout(SOON):
                frame = await self.connection.recv()
            assert isinstance(frame, bytes), "protobuf goes out in binary frames"
            for message in messages_in(frame):
                if message:
                    self._arrived.append(sdk.Reply.FromString(message))
                else:
                    await self._answer_ping()
        return self._arrived.popleft()

    async def _answer_ping(self) -> None:
        self.pings += 1
        if self.answers_pings:
            await self.connection.send(b"\x00")

    async def call(self, method: str, /, **params: Any) -> Any:
        """Send a command, and return its result. Raises `Refused` for an error reply."""
        number = next(self._ids)
        await self.send(sdk.Command(id=number, **{method: params}))
        reply = await self.receive()
        while reply.id != number:
            reply = await self.receive()
        if reply.HasField("error"):
            raise Refused(reply.error.code, reply.error.message)
        assert reply.HasField(method)
        return getattr(reply, method)

    async def push(self, kind: str) -> Any:
        """Wait for the next push of this kind, and return its body."""
        while not (reply := await self.receive()).push.HasField(kind):
            pass
        return getattr(reply.push, kind)

    async def reply_or_close(self, number: int) -> Close | None:
        """Wait for a reply, or for the server to close."""
        try:
            while (await self.receive()).id != number:
                pass
        except websockets.ConnectionClosed:
            return Close(self.connection.close_code or 0, self.connection.close_reason or "")
        return None

    async def closed(self) -> Close:
        """Wait for the server to close. Messages that come before are read."""
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await self.receive()
        return Close(self.connection.close_code or 0, self.connection.close_reason or "")


@asynccontextmanager
async def protobuf_client(
    url: str,
    *,
    subprotocol: bool = True,
    compression: str | None = None,
    headers: dict[str, str] | None = None,
) -> AsyncIterator[ProtobufClient]:
    """A connection before its connect command."""
    offered = [SUBPROTOCOL] if subprotocol else None
    async with connect(
        url, subprotocols=offered, proxy=None, compression=compression, additional_headers=headers
    ) as connection:
        yield ProtobufClient(connection)
