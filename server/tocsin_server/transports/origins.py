"""Which pages may connect: their Origin header against the configured patterns (RFC 6454, RFC 6455 §10.2)."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

SELF = "self"
"""Pattern of pages that come from the very host and port they connect to."""


def is_allowed(origin: str | None, host: str, patterns: Sequence[str]) -> bool:
    """Whether a request may be served. Only browsers send an Origin; a request without one always may."""
    if origin is None:
        return True
    if SELF in patterns and origin.partition("://")[2] == host:
        return True
    return any(fnmatchcase(origin.lower(), pattern.lower()) for pattern in patterns)
