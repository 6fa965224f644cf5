"""How many sockets a process may hold, by the number of files that it may have open."""

from __future__ import annotations

import resource
from functools import cache

SOCKET_LIMIT = "limits.connection_limit"
"""The key of the limit that is reached. Without a limit of its own, the open files are the limit."""

RESERVED_FILES = 128
"""Files that are no connections of clients: of the engine, logs, listening sockets, certificates."""


@cache
def socket_limit() -> float:
    """How many sockets of clients this process holds at once.

    Without any free file no connection to Redis could be made again, and accepting would fail.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return float("inf") if files == resource.RLIM_INFINITY else max(1, files - RESERVED_FILES)
