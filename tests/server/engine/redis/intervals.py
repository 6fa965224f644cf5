"""Shorter intervals, for tests that wait until a node has detected a fault.

The ratios between the intervals stay as in production.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from tocsin_server.engine.redis import interfaces, pipeline
from tocsin_server.engine.redis.connections import connection as redis_connection
from tocsin_server.engine.redis.connections import connector
from tocsin_server.engine.redis.membership import failure_detector, lease
from tocsin_server.engine.redis.pubsub import connection, probe

SetAttribute = Callable[[ModuleType, str, float], None]
"""Sets a constant of a module: `setattr`, or that of pytest's monkeypatch."""

LEASE_FACTOR = 0.5
"""With a smaller factor, leases would expire on a loaded machine, which may stall for about a second."""

TIMEOUT_FACTOR = 0.4
"""Smaller than that of leases, because a connection that is replaced too early does no harm."""


def shorten_leases(set_attribute: SetAttribute) -> None:
    """Renew leases more often, and expire them sooner."""
    set_attribute(lease, "RENEW_SECONDS", LEASE_FACTOR * lease.RENEW_SECONDS)
    set_attribute(failure_detector, "LEASE_SECONDS", LEASE_FACTOR * failure_detector.LEASE_SECONDS)
    set_attribute(failure_detector, "MAX_GAP_SECONDS", LEASE_FACTOR * failure_detector.MAX_GAP_SECONDS)


def shorten_timeouts(set_attribute: SetAttribute) -> None:
    """Send probes more often, and wait for less time for replies and connections."""
    set_attribute(probe, "PROBE_SECONDS", TIMEOUT_FACTOR * probe.PROBE_SECONDS)
    for module in (connection, pipeline):  # each has the constants under its own name
        set_attribute(module, "REPLY_SECONDS", TIMEOUT_FACTOR * redis_connection.REPLY_SECONDS)
        set_attribute(module, "COMMAND_SECONDS", TIMEOUT_FACTOR * interfaces.COMMAND_SECONDS)
    set_attribute(connector, "CONNECT_SECONDS", TIMEOUT_FACTOR * connector.CONNECT_SECONDS)
