r"""The header of the PROXY protocol, versions 1 and 2, with which a proxy begins a connection.

https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt, sections 2.1 and 2.2:

    PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n          version 1: a line of 107 bytes at most
    SIGNATURE, version and command, family, length, addresses, TLVs         version 2

This module is pure.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
HEAD_BYTES = 16
"""Version 2 has its length in so many bytes. Version 1 has nearly as many at least."""

SHORTEST_LINE_BYTES = 15
"""`PROXY UNKNOWN` and the end of the line."""

LINE_LIMIT_BYTES = 107
LIMIT_BYTES = 4096
"""The largest header of version 2. Its addresses have 216 bytes at most, and TLVs may follow."""

_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_TLV_SSL = 0x20
_CLIENT_USED_TLS = 0x01


class InvalidHeader(Exception):
    """The bytes are no header of the PROXY protocol."""


@dataclass(frozen=True, slots=True)
class Source:
    """From where a proxy got a connection."""

    address: str
    port: int
    is_tls: bool
    """The client spoke TLS to the proxy, which says so (PP2_TYPE_SSL)."""


def missing_bytes(data: bytes) -> int:
    """How many bytes may be read next without reading past the header. 0: it is complete.

    Raises InvalidHeader.
    """
    if len(data) < SHORTEST_LINE_BYTES:
        if not (SIGNATURE.startswith(data[:12]) or _begins_line(data)):
            raise InvalidHeader
        return SHORTEST_LINE_BYTES - len(data)
    if data.startswith(SIGNATURE):
        return _missing_of_version_2(data)
    if not _begins_line(data) or len(data) > LINE_LIMIT_BYTES:
        raise InvalidHeader
    if data.endswith(b"\r\n"):
        return 0
    if len(data) == LINE_LIMIT_BYTES:
        raise InvalidHeader
    return 1


def _begins_line(data: bytes) -> bool:
    return b"PROXY ".startswith(data[:6])


def _missing_of_version_2(data: bytes) -> int:
    if len(data) < HEAD_BYTES:
        return HEAD_BYTES - len(data)
    length = HEAD_BYTES + int.from_bytes(data[14:16])
    if length > LIMIT_BYTES:
        raise InvalidHeader
    return length - len(data)


def parse(data: bytes) -> Source | None:
    """The source in a complete header. None: the proxy speaks for itself, or does not know the client.

    Raises InvalidHeader.
    """
    try:
        return _parse_version_2(data) if data.startswith(SIGNATURE) else _parse_version_1(data)
    except (ValueError, struct.error) as error:
        raise InvalidHeader from error


def _parse_version_1(data: bytes) -> Source | None:
    words = data[:-2].decode("ascii").split(" ")
    if words[1] == "UNKNOWN":
        return None
    _, family, address, destination, port, destination_port = words
    version = {"TCP4": 4, "TCP6": 6}[family] if family in ("TCP4", "TCP6") else 0
    addresses = [ipaddress.ip_address(text) for text in (address, destination)]
    ports = [int(text) for text in (port, destination_port) if text.isdecimal() and int(text) < 65536]
    if len(ports) != 2 or any(one.version != version for one in addresses):
        raise InvalidHeader
    return Source(str(addresses[0]), ports[0], is_tls=False)


def _parse_version_2(data: bytes) -> Source | None:
    command, family = data[12], data[13]
    if command not in (_LOCAL, _PROXY):
        raise InvalidHeader
    size = {_TCP4: 4, _TCP6: 16}.get(family)
    if command == _LOCAL or size is None:
        return None
    rest = data[HEAD_BYTES:]
    if len(rest) < 2 * size + 4:
        raise InvalidHeader
    address = ipaddress.ip_address(rest[:size])
    (port,) = struct.unpack_from("!H", rest, 2 * size)
    is_tls = any(
        kind == _TLV_SSL and value[:1] != b"" and value[0] & _CLIENT_USED_TLS
        for kind, value in _tlvs(rest[2 * size + 4 :])
    )
    return Source(str(address), port, is_tls)


def _tlvs(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, length = struct.unpack_from("!BH", data)
        value = data[3 : 3 + length]
        if len(value) < length:
            raise InvalidHeader
        yield kind, value
        data = data[3 + length :]
