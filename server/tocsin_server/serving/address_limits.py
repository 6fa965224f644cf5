"""The limits of new connections: how many an address may have, and how many a node has sockets for."""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING

from tocsin_server.serving.open_files import SOCKET_LIMIT, socket_limit
from tocsin_server.transports.client_address import normalized
from tocsin_server.transports.websocket.handshake import proxies_of

if TYPE_CHECKING:
    from tocsin_server.node.node import Node

CONNECT_RATE_LIMIT = "limits.address_connect_rate"


def address_key(node: Node, peer: str) -> str:
    """Under which key the limits of addresses count a peer; empty if they do not, as with a trusted proxy."""
    proxies = proxies_of(node.settings.server)
    is_trusted = proxies is not None and proxies.trust(normalized(peer))
    return "" if is_trusted else node.admission.key_of(peer)


def excess_limit(node: Node, connections: Sized) -> str:
    """The limit because of which one more connection must be dropped, unless an older one was. Else empty."""
    is_full = len(connections) > socket_limit() and not node.half_open.drop_oldest(SOCKET_LIMIT)
    return SOCKET_LIMIT if is_full else ""
