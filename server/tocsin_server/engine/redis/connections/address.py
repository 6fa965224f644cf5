"""Addresses: which Redis a URL names."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio import connection as redis_py

TLS_CONTEXT_SECONDS = 60.0
"""How long a TLS context is used. Making one takes tens of milliseconds, and certificates are renewed."""

DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379

_TLS_OPTIONS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}


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
    tls_contexts: TlsContexts = field(default_factory=TlsContexts, repr=False, compare=False)


def parse_address(url: str) -> Address:
    """Parse the URL of a Redis.

        redis://[user:password@]host[:port][/db]
        rediss://…                           options ssl_ca_certs, ssl_certfile, ssl_keyfile: file names
        redis+cluster://[user:password@]host[:port][,host[:port]…]
        rediss+cluster://…                   the same options as rediss
        redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db]
                                             options sentinel_username, sentinel_password: for the Sentinels

    Raises ValueError if it is malformed. The message shows only the scheme, since the rest of the URL may
    contain a password.
    """
    parts = urlsplit(url)
    is_sentinel = parts.scheme == "redis+sentinel"
    is_cluster = parts.scheme.endswith("+cluster")
    is_tls = parts.scheme.startswith("rediss")
    query = dict(parse_qsl(parts.query))
    allowed = _SENTINEL_OPTIONS if is_sentinel else _TLS_OPTIONS if is_tls else set()
    if unknown := sorted(query.keys() - allowed):
        raise ValueError(f"engine.url, a {parts.scheme}:// URL, has an unknown option {', '.join(unknown)}.")
    hosts = _hosts(
        parts, DEFAULT_SENTINEL_PORT if is_sentinel else DEFAULT_PORT, are_many=is_sentinel or is_cluster
    )
    path = [unquote(part) for part in parts.path.split("/") if part]
    if is_sentinel and not path:
        raise ValueError(
            "engine.url, a redis+sentinel:// URL, must end with the name of the master, as in …/mymaster."
        )
    service = path.pop(0) if is_sentinel else ""
    if is_cluster and path:
        raise ValueError(
            f"engine.url, a {parts.scheme}:// URL, must end after the hosts: a cluster has no databases."
        )
    options: dict[str, Any] = {"db": _database(parts.scheme, path), **_credentials(parts)}
    if is_tls:
        options |= query
    names = ",".join(f"{host}:{port}" for host, port in hosts)
    return Address(
        f"{service} of {names}" if service else names,
        hosts,
        options,
        is_tls,
        service,
        {name.removeprefix("sentinel_"): value for name, value in query.items()} if is_sentinel else {},
        is_cluster,
    )


def _hosts(parts: SplitResult, port: int, *, are_many: bool) -> list[tuple[str, int]]:
    hosts = []
    for host_port in parts.netloc.rpartition("@")[2].split(","):
        host = urlsplit(f"//{host_port}")
        try:
            hosts.append((host.hostname or "", host.port or port))
        except ValueError:
            raise ValueError(f"engine.url, a {parts.scheme}:// URL, has an invalid port.") from None
    if not all(host for host, _ in hosts) or (len(hosts) > 1 and not are_many):
        raise ValueError(
            f"engine.url begins with {parts.scheme}://, which must be followed by the host, "
            "as in redis://127.0.0.1:6379."
        )
    return hosts


def _database(scheme: str, path: list[str]) -> int:
    if len(path) > 1 or not all(part.isdecimal() for part in path):
        raise ValueError(f"engine.url, a {scheme}:// URL, may only end with the number of a database.")
    return int(path[0]) if path else 0


def _credentials(parts: SplitResult) -> dict[str, str]:
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    found = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in found.items() if value}
