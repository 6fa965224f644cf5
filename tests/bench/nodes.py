"""Node processes over a real Redis, and their CPU time."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.support.server import Server, run_server

CONFIG: dict[str, Any] = {
    "server": {"drain_seconds": 0},
    "client": {"insecure": True, "ping_interval": 3600},
    "api": {"insecure": True},
    "channels": {"history_size": 100, "history_ttl": "300s", "force_recovery": True},
}
"""Every channel has history."""


def engine_at(url: str) -> dict[str, str]:
    """The engine's configuration."""
    return {"url": url, "prefix": "bench"}


@contextlib.contextmanager
def run_redis() -> Iterator[RedisServer]:
    """A Redis that writes nothing to the disk."""
    with tempfile.TemporaryDirectory() as folder, redis_running(Path(folder), "appendonly no") as server:
        yield server


@contextlib.contextmanager
def run_node(redis_url: str) -> Iterator[Server]:
    """One `tocsin serve`. Without a Redis its engine is in memory."""
    with tempfile.TemporaryDirectory() as folder:
        config = {**CONFIG, "engine": engine_at(redis_url)} if redis_url else CONFIG
        with run_server(config, Path(folder), "--log-level", "warning") as server:
            yield server


def cpu_seconds(*pids: int) -> float:
    """User and kernel time of processes since they started, in nanoseconds of resolution.

    Linux numbers the clocks of processes so (clock_getcpuclockid(3)). /proc counts hundredths of a second.
    """
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)
