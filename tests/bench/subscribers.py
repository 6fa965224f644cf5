"""A process with many subscribers, which only read.

    python -m tests.bench.subscribers KIND PORT COUNT [CHANNELS]

KIND is `bare` (a TCP connection), `starlette` (a WebSocket handshake), `tocsin` or `protobuf` (handshake,
connect, subscribe), `mixed` (these two by turns), `deflated` (as `tocsin`, with an offer of compression),
`delta` (as `tocsin`, with deltas), or `http_stream` (one request). With several channels, the first one
subscribes to `bench0`, the second one to `bench1`, and so on by turns. It prints `ready` when all are
subscribed, and ends when its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial

import uvloop

HANDSHAKE = (
    b"GET %s HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n"
)
HTTP_STREAM = b"POST /connection/http_stream HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%s"
OFFER = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
SUBSCRIBE = b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"%s"}}'
SUBSCRIBE_WITH_DELTA = SUBSCRIBE.replace(b'"%s"', b'"%s","delta":"fossil"')
BINARY_CONNECT = b"\x04\x08\x01\x22\x00"
"""A length, `id` 1 and an empty `connect`."""

SUBSCRIBED = {
    **dict.fromkeys(("tocsin", "deflated", "delta", "http_stream"), b'"subscribe"'),
    "protobuf": b"\x08\x02\x32",
}
"""What the reply to the subscribe command has: in protobuf `id` 2, followed by the field 6."""


def binary_subscribe(channel: bytes) -> bytes:
    """A connect and a subscribe command in protobuf, for a channel with a short name."""
    request = b"\x0a" + bytes((len(channel),)) + channel
    command = b"\x08\x02\x2a" + bytes((len(request),)) + request
    return BINARY_CONNECT + bytes((len(command),)) + command


def masked(payload: bytes) -> bytes:
    """A client's text frame; its opcode does not matter. A mask of zeros leaves the payload unchanged."""
    size = len(payload)
    header = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0x80 | 126)) + size.to_bytes(2)
    return header + bytes(4) + payload


PATHS = {
    "starlette": b"/ws",
    "tocsin": b"/connection/websocket",
    "deflated": b"/connection/websocket",
    "delta": b"/connection/websocket",
    "protobuf": b"/connection/websocket?format=protobuf",
}


class Subscriber(asyncio.Protocol):
    """Subscribes, and then reads. `ready` is set by the reply to its last request."""

    def __init__(self, kind: str, channel: str = "bench") -> None:
        self.kind = kind
        self.channel = channel.encode()
        self.ready = asyncio.get_running_loop().create_future()
        self.is_upgraded = kind == "bare"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        if self.kind == "bare":
            self.ready.set_result(None)
        elif self.kind == "http_stream":
            commands = SUBSCRIBE % self.channel
            transport.write(HTTP_STREAM % (len(commands), commands))  # type: ignore[attr-defined]
        else:
            offer = OFFER if self.kind == "deflated" else b""
            transport.write(HANDSHAKE % (PATHS[self.kind], offer))  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self.ready.done():
            return
        if not self.is_upgraded and data.startswith(b"HTTP/1.1 101"):
            self.is_upgraded = True
            if self.kind == "starlette":
                self.ready.set_result(None)
            else:
                commands = SUBSCRIBE % self.channel
                if self.kind == "protobuf":
                    commands = binary_subscribe(self.channel)
                elif self.kind == "delta":
                    commands = SUBSCRIBE_WITH_DELTA % self.channel
                self.transport.write(masked(commands))  # type: ignore[attr-defined]
        if self.kind in SUBSCRIBED and SUBSCRIBED[self.kind] in data:
            self.ready.set_result(None)


async def main(kind: str, port: int, count: int, channels: int = 1) -> None:
    loop = asyncio.get_running_loop()
    subscribers = []
    for number in range(count):
        its_kind = ("tocsin", "protobuf")[number % 2] if kind == "mixed" else kind
        channel = "bench" if channels == 1 else f"bench{number % channels}"
        factory = partial(Subscriber, its_kind, channel)
        _, subscriber = await loop.create_connection(factory, "127.0.0.1", port)
        subscribers.append(subscriber)
        if number % 100 == 99:
            await subscriber.ready
    await asyncio.gather(*(subscriber.ready for subscriber in subscribers))
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], *map(int, sys.argv[2:])))
