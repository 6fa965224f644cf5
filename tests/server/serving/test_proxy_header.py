"""The header of the PROXY protocol, byte by byte."""

from __future__ import annotations

import contextlib
import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.serving.proxy_header import (
    LIMIT_BYTES,
    LINE_LIMIT_BYTES,
    SIGNATURE,
    InvalidHeader,
    Source,
    missing_bytes,
    parse,
)

TCP4 = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"
SSL_TLV = b"\x20\x00\x05\x01\x00\x00\x00\x00"


def version_2(address: str, port: int, *, command: int = 0x21, family: int = 0, tlvs: bytes = b"") -> bytes:
    packed = ipaddress.ip_address(address).packed
    body = packed + packed + struct.pack("!HH", port, 443) + tlvs
    family = family or (0x11 if len(packed) == 4 else 0x21)
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def read(data: bytes) -> tuple[Source | None, bytes]:
    """Read a header as a connection does, which is given no byte more than it may read. And the rest."""
    header = b""
    while count := missing_bytes(header):
        piece, data = data[:count], data[count:]
        if not piece:
            raise EOFError
        header += piece
    return parse(header), data


@pytest.mark.parametrize(
    ("header", "source"),
    [
        (TCP4, Source("203.0.113.7", 4711, is_tls=False)),
        (b"PROXY TCP6 2001:DB8::7 2001:db8::1 4711 443\r\n", Source("2001:db8::7", 4711, is_tls=False)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff:f...f:ffff 65535 65535\r\n", None),
        (version_2("203.0.113.7", 4711), Source("203.0.113.7", 4711, is_tls=False)),
        (version_2("2001:db8::7", 4711), Source("2001:db8::7", 4711, is_tls=False)),
        (version_2("203.0.113.7", 1, tlvs=b"\x04\x00\x01x" + SSL_TLV), Source("203.0.113.7", 1, is_tls=True)),
        (version_2("203.0.113.7", 4711, command=0x20), None),
        (version_2("203.0.113.7", 4711, family=0x31), None),
        (SIGNATURE + b"\x20\x00\x00\x00", None),
    ],
)
def test_a_header_names_the_client_and_nothing_after_it_is_read(header: bytes, source: Source | None) -> None:
    """Or it says that the proxy speaks for itself, or does not know the client."""
    for rest in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"PROXY UNKNOWN\r\n"):
        assert read(header + rest) == (source, rest)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20),
        b"PROXY TCP4 203.0.113.7 198.51.100.1 4711\r\n",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 65536\r\n",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 -1 443\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 443\r\n",
        b"PROXY TCP5 203.0.113.7 198.51.100.1 4711 443\r\n",
        b"PROXY TCP4 unknown 198.51.100.1 4711 443\r\n",
        "PROXY TCP4 203.0.113.7 198.51.100.1 \u0662 443\r\n".encode(),
        b"PROXY UNKNOWN " + b"x" * LINE_LIMIT_BYTES + b"\r\n",
        version_2("203.0.113.7", 4711, command=0x11),
        version_2("203.0.113.7", 4711, command=0x22),
        version_2("203.0.113.7", 4711, tlvs=b"\x20\x00\x05\x01"),
        version_2("203.0.113.7", 4711, tlvs=b"\x20\x00"),
        SIGNATURE + b"\x21\x11\x00\x04\x01\x02\x03\x04",
    ],
)
def test_anything_else_is_invalid(data: bytes) -> None:
    with pytest.raises(InvalidHeader):
        read(data)


def test_the_longest_headers_are_read_and_no_longer_ones() -> None:
    line = b"PROXY UNKNOWN ".ljust(LINE_LIMIT_BYTES - 2, b"x")
    assert read(line + b"\r\n") == (None, b"")
    with pytest.raises(InvalidHeader):
        read(line + b"x\r\n")
    body = LIMIT_BYTES - len(SIGNATURE) - 4
    assert read(SIGNATURE + struct.pack("!BBH", 0x20, 0, body) + bytes(body)) == (None, b"")
    with pytest.raises(InvalidHeader):
        read(SIGNATURE + struct.pack("!BBH", 0x20, 0, body + 1) + bytes(body + 1))


@given(st.sampled_from([b"", b"PROXY ", TCP4[:30], SIGNATURE, version_2("203.0.113.7", 1)[:20]]), st.binary())
def test_no_bytes_raise_anything_else(prefix: bytes, data: bytes) -> None:
    with contextlib.suppress(InvalidHeader, EOFError):
        read(prefix + data)
