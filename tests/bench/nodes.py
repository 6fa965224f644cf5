"""Real nodes over a real Redis, for figures that take several processes; and what those spend."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.support.server import Server, run_server

CONFIG: dict[str, Any] = {
    "server": {"drain_seconds": 0},
    "client": {"insecure": True, "ping_interval": 3600},
    "api": {"insecure": True},
    "channels": {"history_size": 100, "history_ttl": "300s", "force_recovery": True},
}
"""Every channel keeps a log."""


def engine_at(url: str) -> dict[str, str]:
    """What is configured of it."""
    return {"url": url, "prefix": "bench"}


@contextlib.contextmanager
def redis() -> Iterator[RedisServer]:
    """A Redis that writes nothing to a disk, whose speed is nobody's figure here."""
    with tempfile.TemporaryDirectory() as folder, redis_running(Path(folder), "appendonly no") as server:
        yield server


@contextlib.contextmanager
def node(redis_url: str) -> Iterator[Server]:
    """One `tocsin serve`."""
    with tempfile.TemporaryDirectory() as folder:
        config = {**CONFIG, "engine": engine_at(redis_url)}
        with run_server(config, Path(folder), "--log-level", "warning") as server:
            yield server


def cpu_seconds(*pids: int) -> float:
    """User and kernel time of processes so far."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(time.user + time.system for time in times))
