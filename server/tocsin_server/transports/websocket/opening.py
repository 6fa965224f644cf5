r"""The opening handshake of a WebSocket (RFC 6455 §4.2), from a request that an HTTP server has parsed.

    request --decide--> Opened, with the response that opens the connection
                   \--> Refused, with the response that says why

A request is checked in this order: the origin of its page, its host, whether it has a body or a position,
the handshake itself, and then the limits of connections.

The module has no state. `decide` counts an opened connection in.
"""

from __future__ import annotations

import asyncio
import re
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from hashlib import sha1
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from msgspec import Struct
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.server import ServerProtocol

from tocsin_server.node.client_request import ClientRequest, joined
from tocsin_server.node.connection import Connections
from tocsin_server.transports.hosts import HOST_REFUSED, names_another_site
from tocsin_server.transports.origins import ORIGIN_REFUSED, is_allowed, is_named
from tocsin_server.transports.refusals import log_refusal
from tocsin_server.transports.websocket import compression
from tocsin_server.transports.websocket.compression import Inflation
from tocsin_server.transports.websocket.handshake import (
    DEFAULT_HANDSHAKE,
    Handshake,
    peer_address,
    proxies_of,
    recovery_refusal,
)

if TYPE_CHECKING:
    from tocsin_server.transports.websocket.raw import WebSocketConnection

VERSION = b"13"
"""The version of the protocol that RFC 6455 defines."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What RFC 6455 §4.2.2 appends to a key."""

_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
"""16 bytes in base64."""

_OPENED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)

BODY_REFUSED = "A WebSocket handshake has no body."


class OpeningRequest:
    """The request of a handshake. `headers` have their names in lower case, and their order."""

    __slots__ = ("asks_for_websocket", "headers", "method", "query", "values")

    def __init__(self, method: bytes, query: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.query = query.decode("latin-1")
        self.headers = headers
        self.values: dict[bytes, bytes] = dict(headers)
        """The values by name; all of one name together (RFC 9110 §5.3)."""
        if len(self.values) < len(headers):
            self.values = joined(headers)
        self.asks_for_websocket = _asks_for_websocket(self.values)
        """Whether it asks for a WebSocket, and for nothing else."""

    def text(self, name: bytes) -> str | None:
        """All values of a header as one text, or None if there is none."""
        value = self.values.get(name)
        return None if value is None else value.decode("latin-1")

    def texts(self, name: str) -> list[str]:
        """Each value of a header."""
        wanted = name.lower().encode("latin-1")
        return [value.decode("latin-1") for found, value in self.headers if found == wanted]


def _asks_for_websocket(values: Mapping[bytes, bytes]) -> bool:
    options = values.get(b"connection", b"").lower()
    if options != b"upgrade" and b"upgrade" not in [option.strip() for option in options.split(b",")]:
        return False
    return values.get(b"upgrade", b"").lower() == b"websocket"


class FirstRequest(Protocol):
    """Reads what arrives on a connection until a handshake is answered, or another protocol takes over."""

    def begin(self, connection: WebSocketConnection, transport: asyncio.Transport) -> None:
        """Called once the connection is made."""

    def read(self, data: bytes) -> None:
        """Called with what has arrived."""

    def drop(self, limit: str) -> None:
        """Drop the connection because of a limit."""

    def leave(self) -> None:
        """Count the connection no longer."""


class Opened(Struct, frozen=True):
    """A handshake that is accepted, and counted in."""

    response: bytes
    handshake: Handshake
    address: str
    """The client's IP address, as far as trusted proxies tell it, "unix" or "unknown"."""
    address_key: str
    """Under which key the connection is counted."""
    inflation: Inflation | None
    """What inflates messages, if compression was negotiated."""
    request: ClientRequest | None
    """The request, as far as hooks want it."""


class Refused(NamedTuple):
    """A handshake that is refused."""

    response: bytes


class _Refusal(NamedTuple):
    status: HTTPStatus
    reason: str
    headers: Mapping[str, str] = {}


def decide(connections: Connections, transport: str, request: OpeningRequest, peer: str) -> Opened | Refused:
    """Decide a handshake, and log it if it is refused. `admission.leave` must follow once it was opened.

    `transport` is the name of the connection's transport, `peer` the address of the socket's other end.
    """
    proxies = proxies_of(connections.settings.server)
    address = peer_address(peer) if proxies is None else proxies.client_of(peer, request.texts).address
    key = ""
    negotiated: tuple[str, Inflation] | None = None
    refusal = _foreign(connections, request) or _invalid(request)
    if refusal is None and connections.limits.compresses:
        negotiated, refusal = _negotiate(request)
    if refusal is None:
        key = connections.admission.key_of(address)
        if no := connections.admit(key):
            after = {"Retry-After": str(no.retry_after)}
            refusal = _Refusal(HTTPStatus.SERVICE_UNAVAILABLE, no.reason, after)
    if refusal is not None:
        log_refusal(connections, transport, refusal.status, refusal.reason, address)
        return Refused(_refusal_response(refusal))
    handshake = DEFAULT_HANDSHAKE
    offered = request.text(b"sec-websocket-protocol")
    if request.query or offered:
        handshake = Handshake.read(request.query, [name.strip() for name in (offered or "").split(",")])
    extensions, inflation = negotiated or ("", None)
    return Opened(
        _opened_response(request, handshake, extensions),
        handshake,
        address,
        key,
        inflation,
        _kept(connections, transport, request, handshake, address),
    )


def _opened_response(request: OpeningRequest, handshake: Handshake, extensions: str) -> bytes:
    digest = sha1(request.values[b"sec-websocket-key"] + _GUID, usedforsecurity=False).digest()
    accept = b2a_base64(digest, newline=False)
    if not extensions and handshake.subprotocol is None:
        return b"%b%b\r\n\r\n" % (_OPENED, accept)
    lines = ""
    if extensions:
        lines += f"Sec-WebSocket-Extensions: {extensions}\r\n"
    if handshake.subprotocol is not None:
        lines += f"Sec-WebSocket-Protocol: {handshake.subprotocol}\r\n"
    return b"%b%b\r\n%b\r\n" % (_OPENED, accept, lines.encode("latin-1"))


def _refusal_response(refusal: _Refusal) -> bytes:
    body = f"{refusal.reason}\n".encode()
    headers = {
        "Date": formatdate(usegmt=True),
        "Connection": "close",
        "Content-Length": str(len(body)),
        "Content-Type": "text/plain; charset=utf-8",
        **refusal.headers,
    }
    lines = [f"HTTP/1.1 {refusal.status.value} {refusal.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _foreign(connections: Connections, request: OpeningRequest) -> _Refusal | None:
    """Why a request is refused because of the page or the host that it names."""
    limits = connections.limits
    if b"origin" not in request.values and not limits.checks_host:
        return None
    origin, host = _origin_and_host(request)
    if not is_allowed(origin, host, limits.allowed_origins):
        return _Refusal(HTTPStatus.FORBIDDEN, ORIGIN_REFUSED)
    if limits.checks_host and names_another_site(host, limits.allowed_origins):
        return _Refusal(HTTPStatus.FORBIDDEN, HOST_REFUSED)
    return None


def _origin_and_host(request: OpeningRequest) -> tuple[str | None, str]:
    """The origin of the page, if there is one, and the host that it connects to."""
    return request.text(b"origin"), request.text(b"host") or ""


def _invalid(request: OpeningRequest) -> _Refusal | None:
    """Why a request is no valid handshake (RFC 6455 §4.2.1), or one of another server."""
    values = request.values
    if values.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in values:
        return _Refusal(HTTPStatus.BAD_REQUEST, BODY_REFUSED)
    names = [name.decode("latin-1") for name in values if name.startswith(b"l")]
    if (request.query or names) and (sentence := recovery_refusal(request.query, names)):
        return _Refusal(HTTPStatus.BAD_REQUEST, sentence)
    if request.method != b"GET":
        return _Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "A WebSocket handshake is a GET.", {"Allow": "GET"})
    if not request.asks_for_websocket:
        reason = "A WebSocket handshake has the headers Connection: Upgrade, and Upgrade: websocket."
        return _Refusal(HTTPStatus.UPGRADE_REQUIRED, reason, {"Upgrade": "websocket"})
    if not _KEY.fullmatch(values.get(b"sec-websocket-key", b"")):
        reason = "A WebSocket handshake has one Sec-WebSocket-Key, of 16 bytes in base64."
        return _Refusal(HTTPStatus.BAD_REQUEST, reason)
    if values.get(b"sec-websocket-version") != VERSION:
        reason = "A WebSocket handshake has one Sec-WebSocket-Version, which is 13."
        return _Refusal(HTTPStatus.BAD_REQUEST, reason, {"Sec-WebSocket-Version": "13"})
    if values.get(b"origin", b"").count(b", "):  # RFC 6454 §7.3
        return _Refusal(HTTPStatus.BAD_REQUEST, "A request has one Origin.")
    return None


def _negotiate(request: OpeningRequest) -> tuple[tuple[str, Inflation] | None, _Refusal | None]:
    """The extension of the response and what it does, if one is offered; or why the offer is refused."""
    headers = Headers()
    for offer in request.texts("Sec-WebSocket-Extensions"):
        headers["Sec-WebSocket-Extensions"] = offer
    try:
        accepted, extensions = ServerProtocol(extensions=compression.EXTENSIONS).process_extensions(headers)
    except InvalidHandshake as error:
        return None, _Refusal(HTTPStatus.BAD_REQUEST, f"Sec-WebSocket-Extensions is not valid: {error}.")
    if accepted is None or not extensions:
        return None, None
    return (accepted, cast("Inflation", extensions[0])), None


def _kept(
    connections: Connections, transport: str, request: OpeningRequest, handshake: Handshake, address: str
) -> ClientRequest | None:
    if (kept := connections.kept_headers) is None:
        return None
    has_cookies = b"cookie" in request.values
    return kept.request(
        transport,
        handshake.codec.name,
        address,
        request.values,
        request.query,
        cookies_count=has_cookies
        and is_named(*_origin_and_host(request), connections.limits.allowed_origins),
    )
