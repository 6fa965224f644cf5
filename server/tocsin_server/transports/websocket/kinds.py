"""The kinds of raw WebSocket connections: bidirectional and unidirectional ones."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from tocsin_server.protocol.codec import Codec
from tocsin_server.transports.websocket.framing import (
    DEFLATED_FRAMINGS,
    FRAMINGS,
    UNIDIRECTIONAL_DEFLATED_FRAMING,
    UNIDIRECTIONAL_FRAMING,
    RawFraming,
)


class Kind(Struct, frozen=True, eq=False):
    """What connections of one path have in common."""

    transport_name: str
    is_unidirectional: bool
    framings: Mapping[Codec, RawFraming]
    deflated_framings: Mapping[Codec, RawFraming]


BIDIRECTIONAL = Kind("websocket", False, FRAMINGS, DEFLATED_FRAMINGS)

UNIDIRECTIONAL = Kind(
    "uni_websocket",
    True,
    dict.fromkeys(FRAMINGS, UNIDIRECTIONAL_FRAMING),
    dict.fromkeys(FRAMINGS, UNIDIRECTIONAL_DEFLATED_FRAMING),
)
"""The client sends one connect request, and gets pushes alone (protocol §16)."""
