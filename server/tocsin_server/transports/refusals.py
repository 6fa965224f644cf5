"""The log line of a refused request. Without it only the client would know that it was refused."""

from __future__ import annotations

import structlog

log = structlog.get_logger()


def log_refusal(transport: str, status: int, reason: str) -> None:
    """Log that a request was refused, with its HTTP status and the reason that the client was told."""
    log.info("request_refused", transport=transport, status=int(status), reason=reason)
