"""What a WebSocket handshake settles, on either transport: subprotocol, format and pings.

A client chooses by its subprotocols and its query (protocol §1):

    Sec-WebSocket-Protocol         `centrifuge-json` is chosen where it is offered; most clients offer none
    format, cf_protocol            `protobuf` is not available: 3506, as where only its subprotocol is offered
    cf_ws_frame_ping_pong=true     ping frames instead of the protocol's own pings
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qs

from websockets.typing import Subprotocol

from tocsin_server import errors
from tocsin_server.errors import Disconnect

WEBSOCKET_PATH = "/connection/websocket"

JSON_SUBPROTOCOL = Subprotocol("centrifuge-json")
PROTOBUF_SUBPROTOCOL = Subprotocol("centrifuge-protobuf")


def choose_subprotocol(offered: Sequence[str]) -> Subprotocol | None:
    """The subprotocol of the response."""
    return JSON_SUBPROTOCOL if JSON_SUBPROTOCOL in offered else None


@dataclass(frozen=True, slots=True)
class Handshake:
    """What the request of an accepted connection chooses."""

    uses_ping_frames: bool
    """Ping frames replace the protocol's pings, and the connect result announces none."""
    disconnect: Disconnect | None
    """Why the connection is closed as soon as it is open: its format is not available."""

    @classmethod
    def read(cls, query: str, offered_subprotocols: Sequence[str]) -> Self:
        """Read the choices of a request."""
        params = parse_qs(query)
        wants_protobuf = "protobuf" in (*params.get("format", ()), *params.get("cf_protocol", ()))
        offers_protobuf_alone = (
            PROTOBUF_SUBPROTOCOL in offered_subprotocols and JSON_SUBPROTOCOL not in offered_subprotocols
        )
        return cls(
            uses_ping_frames=params.get("cf_ws_frame_ping_pong") == ["true"],
            disconnect=errors.INAPPROPRIATE_PROTOCOL if wants_protobuf or offers_protobuf_alone else None,
        )
