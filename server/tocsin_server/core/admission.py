"""Which connections a node admits: how many, and how many per second, of each address and altogether.

    socket --accepts()--> its request is read --admit()--> WebSocket or event stream --leave()--> gone

An IPv6 address counts as its network of 64 bits, which one client has. Addresses of private networks do not
count: a reverse proxy or a container network has one of them, and all clients come from it. What one address
costs is a number in two tables, which go with its last connection and its last second.

The module is pure. The mutable state is that of `Admission`; only its methods change it.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import NamedTuple

from tocsin_server.config.limit_options import LimitOptions
from tocsin_server.core.rate_limit import NEVER_USED, RateLimit

BURST_SECONDS = 10
"""The connects of so many seconds may come at once: after an outage all clients of an address return."""

SOCKETS_PER_CONNECT = 2
"""An address may open so many sockets for each connection that it may make.

In between, a handshake is read and told that it is refused. Above it, sockets are closed unread.
"""

KEPT_ADDRESSES = 1024
"""After so many new addresses, those that have all of their allowance back are forgotten."""

CACHED_ADDRESSES = 4096
"""Of how many addresses is kept how they count."""

CONNECTION_LIMIT_SECONDS = 5
"""When a client may try again where only the end of another connection helps."""


class NotAdmitted(NamedTuple):
    """Why a connection is refused, for now."""

    limit: str
    """The limit's key in the configuration."""
    reason: str
    """A sentence for the client."""
    retry_after: int
    """After how many seconds the client may try again."""


class Admission:
    """Counts connections and connects. `key_of` tells under which key an address counts; "" does not."""

    def __init__(self, options: LimitOptions) -> None:
        self._limit = options.connection_limit
        self._address_limit = options.address_connection_limit
        self._rate = _rate(options.connect_rate)
        self._address_rate = _rate(options.address_connect_rate)
        self._socket_rate = _rate(options.address_connect_rate * SOCKETS_PER_CONNECT)
        self._exempt = tuple(ipaddress.ip_network(name) for name in options.exempt_addresses)
        self.key_of = lru_cache(CACHED_ADDRESSES)(self._key_of)
        self._count = 0
        self._counts: dict[str, int] = {}
        self._full_at = NEVER_USED
        self._connects_full_at: dict[str, float] = {}
        self._sockets_full_at: dict[str, float] = {}

    @property
    def count(self) -> int:
        """How many connections are admitted."""
        return self._count

    @property
    def addresses(self) -> int:
        """How many addresses have admitted connections that count."""
        return len(self._counts)

    def _key_of(self, address: str) -> str:
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:  # a unix socket, or a client that a trusted proxy does not name
            return ""
        if isinstance(parsed, ipaddress.IPv6Address):
            parsed = parsed.ipv4_mapped or parsed
        if any(parsed in network for network in self._exempt):
            return ""
        if isinstance(parsed, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((parsed, 64), strict=False))
        return str(parsed)

    def accepts(self, key: str, now: float) -> bool:
        """Whether a socket of an address is read at all, by how many it opened in the last seconds."""
        return not key or _take(self._sockets_full_at, self._socket_rate, key, now)

    def admit(self, key: str, now: float) -> NotAdmitted | None:
        """Count a connection in, or return why it is refused. `leave` must follow when it has ended."""
        if refused := self._refusal(key, now):
            return refused
        self._count += 1
        if key:
            self._counts[key] = self._counts.get(key, 0) + 1
        return None

    def _refusal(self, key: str, now: float) -> NotAdmitted | None:
        if self._limit and self._count >= self._limit:
            return _too_many("limits.connection_limit", "The node has as many connections as it may have.")
        if key and self._address_limit and self._counts.get(key, 0) >= self._address_limit:
            return _too_many(
                "limits.address_connection_limit", "Your address has as many connections as it may have."
            )
        if key and not _take(self._connects_full_at, self._address_rate, key, now):
            seconds = self._address_rate.seconds_until(self._connects_full_at[key], now)
            return _too_fast("limits.address_connect_rate", "Your address connects too often.", seconds)
        full_at = self._rate.take(self._full_at, now)
        if full_at is None:
            seconds = self._rate.seconds_until(self._full_at, now)
            return _too_fast("limits.connect_rate", "Too many clients connect to the node.", seconds)
        self._full_at = full_at
        return None

    def leave(self, key: str) -> None:
        """Count a connection out that was admitted."""
        self._count -= 1
        if key:
            if self._counts[key] == 1:
                del self._counts[key]
            else:
                self._counts[key] -= 1


def _rate(per_second: float) -> RateLimit:
    return RateLimit(per_second, per_second * BURST_SECONDS)


def _take(full_at: dict[str, float], rate: RateLimit, key: str, now: float) -> bool:
    """Use one of an address's allowance, and forget addresses that have used none."""
    taken = rate.take(full_at.get(key, NEVER_USED), now)
    if taken is None:
        return False
    if rate.rate:
        is_new = key not in full_at
        full_at[key] = taken
        if is_new and not len(full_at) % KEPT_ADDRESSES:
            for old in [other for other, until in full_at.items() if until <= now]:
                del full_at[old]
    return True


def _too_many(limit: str, reason: str) -> NotAdmitted:
    return NotAdmitted(limit, reason, CONNECTION_LIMIT_SECONDS)


def _too_fast(limit: str, reason: str, seconds: float) -> NotAdmitted:
    return NotAdmitted(limit, reason, max(1, round(seconds + 0.5)))
