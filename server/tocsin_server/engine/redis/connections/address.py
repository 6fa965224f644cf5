"""Addresses: which Redis a URL names."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import connection as redis_py

from tocsin_server.config.engine_url import parse_redis_url

TLS_CONTEXT_SECONDS = 60.0
"""How long a TLS context is used. Making one takes tens of milliseconds, and certificates are renewed."""

SENTINEL_OPTION = "sentinel_"
"""The prefix of options that are for the Sentinels themselves."""


class TlsContexts:
    """Shares a TLS context between the connections to one address. redis-py would make one for each."""

    def __init__(self) -> None:
        self._context: redis_py.RedisSSLContext | None = None
        self._made_at = 0.0

    def apply_to(self, connection: redis_py.SSLConnection) -> None:
        """Give a connection the shared context. If that is too old, share the connection's own instead."""
        now = time.monotonic()
        if self._context is None or now - self._made_at > TLS_CONTEXT_SECONDS:
            self._context, self._made_at = connection.ssl_context, now
        connection.ssl_context = self._context


@dataclass(frozen=True)
class Address:
    """A standalone Redis, the Sentinels of a master, or some servers of a cluster.

    `name` is for messages and logs, and contains no password.
    """

    name: str
    hosts: list[tuple[str, int]]
    options: dict[str, Any] = field(repr=False)
    is_tls: bool = False
    service: str = ""
    """The name by which Sentinels know the master. Empty: `hosts` is one standalone Redis, or a cluster."""
    sentinel_options: dict[str, Any] = field(default_factory=dict, repr=False)
    is_cluster: bool = False
    """Whether `hosts` are servers of a cluster. They know its other servers."""
    database: int = 0
    """The number of the database. Its keys are apart from those of others, but pub/sub is not (see keys)."""
    socket_path: str = ""
    """The Unix socket of a standalone Redis. Then `hosts` is empty."""
    tls_contexts: TlsContexts = field(default_factory=TlsContexts, repr=False, compare=False)


def parse_address(url: str) -> Address:
    """Return the address of a valid `engine.url` (its grammar is in config/engine_url.py).

    Raises ValueError with a message that shows only the scheme and the names of options.
    """
    try:
        parsed = parse_redis_url(url)
    except ValueError as error:
        raise ValueError(f"engine.url must be {error}.") from None
    names = parsed.socket_path or ",".join(f"{host}:{port}" for host, port in parsed.hosts)
    tls: dict[str, Any] = {
        name: value for name, value in parsed.options.items() if not name.startswith(SENTINEL_OPTION)
    }
    if "ssl_check_hostname" in tls:
        tls["ssl_check_hostname"] = tls["ssl_check_hostname"] == "true"
    sentinel_options = {
        name.removeprefix(SENTINEL_OPTION): value
        for name, value in parsed.options.items()
        if name.startswith(SENTINEL_OPTION)
    }
    if parsed.service and parsed.is_tls:
        tls["ssl"] = True  # selects the class of the connections
        sentinel_options |= tls
    options: dict[str, Any] = {"db": parsed.database, **parsed.credentials, **tls}
    return Address(
        f"{parsed.service} of {names}" if parsed.service else names,
        parsed.hosts,
        options,
        parsed.is_tls,
        parsed.service,
        sentinel_options,
        parsed.is_cluster,
        parsed.database,
        parsed.socket_path,
    )
