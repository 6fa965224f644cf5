"""The log line of a refused request. Without it only the client would know that it was refused."""

from __future__ import annotations

from tocsin_server.node.connection import Connections


def log_refusal(
    connections: Connections, transport: str, status: int, reason: str, address: str = ""
) -> None:
    """Log that a request was refused, with its HTTP status and the reason that the client was told.

    `address` is where it came from, empty if that is unknown. While many are refused, only some have a line.
    """
    connections.log_refusal(
        "request_refused", transport=transport, status=int(status), reason=reason, address=address
    )
