"""What a WebSocket handshake settles, on either transport: subprotocol, format and pings.

A client chooses by its subprotocols and its query (protocol §1):

    format, cf_protocol            `json` or `protobuf`; both parameters mean the same
    Sec-WebSocket-Protocol         `centrifuge-json` or `centrifuge-protobuf`; JSON is chosen of both
    neither of them                JSON
    cf_ws_frame_ping_pong=true     ping frames instead of the protocol's own pings

A format that is unknown, or that no offered subprotocol has, ends the connection: 3506.

A position in a header or in the query is refused: a WebSocket recovers with its commands. Other parameters
are ignored, since libraries and proxies add their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self
from urllib.parse import parse_qs, parse_qsl

from websockets.typing import Subprotocol

from tocsin_server import errors
from tocsin_server.config.options import ServerOptions
from tocsin_server.errors import Disconnect
from tocsin_server.protocol.codec import Codec
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.protobuf.codec import PROTOBUF
from tocsin_server.transports.client_address import ProxyHeader, TrustedProxies, normalized
from tocsin_server.transports.sse.last_event_id import is_last_event_id

WEBSOCKET_PATH = "/connection/websocket"
UNIDIRECTIONAL_WEBSOCKET_PATH = "/connection/uni_websocket"

_CODECS: Mapping[str, Codec] = {codec.name: codec for codec in (JSON, PROTOBUF)}
_SUBPROTOCOLS = {Subprotocol(f"centrifuge-{name}"): name for name in _CODECS}
_FORMAT_PARAMETERS = ("format", "cf_protocol")

HEAD_LIMIT_BYTES = 65_536
"""The largest head of a request, an upgrade or not. uvicorn's parser accepts any size."""


def _chosen_subprotocol(offered: Sequence[str], formats: Collection[str]) -> Subprotocol | None:
    """The subprotocol of the response, if possible one of the formats in the query.

    A browser drops a connection whose response names none of those that it offered, and its page would never
    learn the close code. So one is also chosen where the connection is then closed.
    """
    known = [subprotocol for subprotocol in _SUBPROTOCOLS if subprotocol in offered]
    fitting = [subprotocol for subprotocol in known if _SUBPROTOCOLS[subprotocol] in formats]
    return next(iter(fitting or known), None)


peer_address = lru_cache(4096)(normalized)
"""The usual form of a peer's address. Parsing one takes 15 µs, which is much for each connection."""


def proxies_of(options: ServerOptions) -> TrustedProxies | None:
    """The trusted proxies of a configuration. None spares the parsing of addresses for each connection."""
    return _proxies(options.trusted_proxies, options.proxy_header) if options.trusted_proxies else None


@lru_cache
def _proxies(names: tuple[str, ...], header: ProxyHeader) -> TrustedProxies:
    return TrustedProxies(names, header)


_RECOVERY_PARAMETERS = {"cf_connect", "epoch", "offset", "recover", "since"}
"""Parameters that other servers and transports recover by. `cf_connect` holds a whole connect command."""


def recovery_refusal(query: str, header_names: Iterable[str]) -> str:
    """Why a request that holds a position is refused, as a sentence. Empty: it holds none."""
    parameters = [name for name, _ in parse_qsl(query, keep_blank_values=True)] if query else []
    for name in (*parameters, *header_names):
        if is_last_event_id(name) or (name in parameters and name.lower() in _RECOVERY_PARAMETERS):
            return f'A WebSocket recovers with its connect and subscribe commands, not with "{name[:40]}".'
    return ""


@dataclass(frozen=True, slots=True)
class Handshake:
    """What the request of an accepted connection chooses."""

    subprotocol: Subprotocol | None
    """The one that the response names."""
    codec: Codec
    uses_ping_frames: bool
    """Ping frames replace the protocol's pings, and the connect result announces none."""
    disconnect: Disconnect | None
    """Why the connection is closed as soon as it is open: no format is what the client asks for."""

    def disconnect_of(self, *, is_unidirectional: bool) -> Disconnect | None:
        """Why the connection is closed as soon as it is open. Unidirectional transports have JSON alone."""
        if is_unidirectional and self.codec is not JSON:
            return errors.INAPPROPRIATE_PROTOCOL
        return self.disconnect

    @classmethod
    def read(cls, query: str, offered_subprotocols: Sequence[str]) -> Self:
        """Read the choices of a request."""
        params = parse_qs(query) if query else {}
        formats = {value for name in _FORMAT_PARAMETERS for value in params.get(name, ())}
        subprotocol = _chosen_subprotocol(offered_subprotocols, formats)
        if subprotocol is not None:
            formats.add(_SUBPROTOCOLS[subprotocol])
        (name,) = formats if len(formats) == 1 else (JSON.name,)
        is_served = name in _CODECS and len(formats) <= 1
        return cls(
            subprotocol=subprotocol,
            codec=_CODECS.get(name, JSON),
            uses_ping_frames=params.get("cf_ws_frame_ping_pong") == ["true"],
            disconnect=None if is_served else errors.INAPPROPRIATE_PROTOCOL,
        )


DEFAULT_HANDSHAKE = Handshake.read("", ())
"""What a request without a query and without subprotocols chooses."""
