"""What a WebSocket handshake settles, on either transport: origin, subprotocol, format and pings.

A client chooses by its subprotocols and its query (protocol §1):

    Sec-WebSocket-Protocol         `centrifuge-json` is agreed to; most clients offer none
    format, cf_protocol            `protobuf` is not available: 3506, as for `centrifuge-protobuf` alone
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

PATH = "/connection/websocket"

JSON_SUBPROTOCOL = Subprotocol("centrifuge-json")
PROTOBUF_SUBPROTOCOL = Subprotocol("centrifuge-protobuf")


def choose_subprotocol(offered: Sequence[str]) -> Subprotocol | None:
    """The subprotocol of the response."""
    return JSON_SUBPROTOCOL if JSON_SUBPROTOCOL in offered else None


@dataclass(frozen=True, slots=True)
class Handshake:
    """What an accepted request chose."""

    uses_ping_frames: bool
    """The client answers ping frames, and is announced no pings of the protocol's."""
    disconnect: Disconnect | None
    """Why the connection is closed as soon as it is open: its format is not available."""

    @classmethod
    def read(cls, query: str, offered_subprotocols: Sequence[str]) -> Self:
        """Read a request that was accepted."""
        params = parse_qs(query)
        wants_protobuf = "protobuf" in (*params.get("format", ()), *params.get("cf_protocol", ()))
        offers_protobuf_alone = (
            PROTOBUF_SUBPROTOCOL in offered_subprotocols and JSON_SUBPROTOCOL not in offered_subprotocols
        )
        return cls(
            uses_ping_frames=params.get("cf_ws_frame_ping_pong") == ["true"],
            disconnect=errors.INAPPROPRIATE_PROTOCOL if wants_protobuf or offers_protobuf_alone else None,
        )
