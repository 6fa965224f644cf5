"""The part of RFC 6455 that the load tool needs, cheap enough for many connections in one process (pure)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
_NO_MASK = bytes(
    4
)  # masks protect proxies from pages in browsers; this is no browser, and zeros cost nothing
_SHORT, _LONG = 126, 127
MESSAGE_BYTES = 64 * 1024 * 1024


def upgrade_request(host: str, target: str, key: bytes, authorization: str = "") -> bytes:
    """Return the HTTP request for a WebSocket. The key has 16 bytes."""
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {b64encode(key).decode()}",
        "Sec-WebSocket-Version: 13",
    ]
    if authorization:
        lines.append(f"Authorization: {authorization}")
    return "\r\n".join([*lines, "", ""]).encode()


def build_frame(opcode: int, payload: bytes) -> bytes:
    """Build one frame from client to server."""
    size = len(payload)
    if size < _SHORT:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 2**16:
        head = bytes((0x80 | opcode, 0x80 | _SHORT)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | _LONG)) + size.to_bytes(8, "big")
    return head + _NO_MASK + payload


def read_close(payload: bytes) -> tuple[int, str]:
    """Return the code and reason of a close frame. Without a code it is 1005 (RFC 6455 §7.1.5)."""
    if len(payload) < 2:
        return 1005, "closed without a code"
    return int.from_bytes(payload[:2], "big"), payload[2:].decode("utf-8", "replace")


class FrameReader:
    """Splits a stream of bytes into messages and control frames.

    The mutable state is the bytes of an incomplete frame, and the fragments of an incomplete message.
    """

    __slots__ = ("_message", "_opcode", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._message = b""
        self._opcode = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the opcode and payload of each complete message. The iterator must be exhausted.

        Raises ``ValueError`` for a message of more than ``MESSAGE_BYTES``.
        """
        data = self._rest + data if self._rest else data
        at = 0
        while (end := _end_of_frame(data, at)) is not None:
            start, stop = end
            opcode, payload = data[at] & 0x0F, data[start:stop]
            is_last = data[at] & 0x80
            at = stop
            if opcode >= CLOSE or (is_last and opcode):
                yield opcode, payload
                continue
            self._opcode = opcode or self._opcode
            self._message += payload
            _check_size(len(self._message))
            if is_last:
                whole, self._message = self._message, b""
                yield self._opcode, whole
        self._rest = data[at:]


def _check_size(size: int) -> None:
    if size > MESSAGE_BYTES:
        raise ValueError(f"a message of more than {MESSAGE_BYTES:,} bytes")


def _end_of_frame(data: bytes, at: int) -> tuple[int, int] | None:
    """Return where a frame's payload begins and ends, or None while it is incomplete. Servers do not mask."""
    if len(data) < at + 2:
        return None
    size, start = data[at + 1] & 0x7F, at + 2
    if size >= _SHORT:
        start += 2 if size == _SHORT else 8
        if len(data) < start:
            return None
        size = int.from_bytes(data[at + 2 : start], "big")
        _check_size(size)
    return (start, start + size) if len(data) >= start + size else None
