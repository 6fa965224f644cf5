"""Which connections are admitted: exactly how many, exactly how many per second, and of which addresses."""

from __future__ import annotations

import pytest

from tocsin_server.config.limit_options import LimitOptions
from tocsin_server.core import admission
from tocsin_server.core.admission import BURST_SECONDS, Admission

CLIENT = "198.51.100.7"
OTHER = "198.51.100.8"
NONE = {"connection_limit": 0, "address_connection_limit": 0, "connect_rate": 0, "address_connect_rate": 0}


def limited(**options: int) -> Admission:
    return Admission(LimitOptions.model_validate({**NONE, **options}))


def admitted(limits: Admission, key: str, count: int, now: float = 1) -> int:
    return sum(limits.admit(key, now) is None for _ in range(count))


@pytest.mark.parametrize(
    ("address", "key"),
    [
        (CLIENT, CLIENT),
        ("::ffff:198.51.100.7", CLIENT),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1%eth0", "2001:db8:1:2::/64"),
        ("127.0.0.1", ""),
        ("10.1.2.3", ""),
        ("::ffff:192.168.1.1", ""),
        ("::1", ""),
        ("fe80::1%eth0", ""),
        ("fd00::1", ""),
        ("", ""),
        ("unix", ""),
        ("unknown", ""),
    ],
)
def test_an_address_counts_as_itself_or_as_its_network_or_not_at_all(address: str, key: str) -> None:
    assert limited().key_of(address) == key


def test_the_addresses_that_do_not_count_are_configured() -> None:
    limits = Admission(LimitOptions(exempt_addresses=("198.51.100.0/24",)))
    assert limits.key_of("127.0.0.1") == "127.0.0.1"
    assert limits.key_of(CLIENT) == ""


def test_a_node_admits_exactly_as_many_connections_as_its_limit() -> None:
    limits = limited(connection_limit=3)
    assert admitted(limits, CLIENT, 2) + admitted(limits, "", 2) == 3
    refused = limits.admit(OTHER, 1)
    assert refused is not None
    assert refused.limit == "limits.connection_limit"
    limits.leave(CLIENT)
    assert admitted(limits, OTHER, 2) == 1


def test_an_address_has_exactly_as_many_connections_as_its_limit() -> None:
    limits = limited(address_connection_limit=3)
    assert admitted(limits, CLIENT, 5) == 3
    refused = limits.admit(CLIENT, 1)
    assert refused is not None
    assert refused.limit == "limits.address_connection_limit"
    assert admitted(limits, OTHER, 1) == 1
    assert admitted(limits, "", 9) == 9
    limits.leave(CLIENT)
    assert admitted(limits, CLIENT, 2) == 1


@pytest.mark.parametrize(("option", "other"), [("connect_rate", 0), ("address_connect_rate", 1)])
def test_connects_are_admitted_at_exactly_their_rate(option: str, other: int) -> None:
    """Those of ten seconds may come at once. The client is told when it may try again."""
    limits = limited(**{option: 2})
    burst = 2 * BURST_SECONDS
    assert admitted(limits, CLIENT, burst + 5) == burst
    refused = limits.admit(CLIENT, 1)
    assert refused is not None
    assert refused.limit == f"limits.{option}"
    assert refused.retry_after == 1
    assert admitted(limits, OTHER, 1) == other
    assert admitted(limits, CLIENT, 5, now=1 + refused.retry_after) == 2


def test_a_refused_connect_of_an_address_costs_the_node_nothing() -> None:
    """One address cannot use up what the node admits of all addresses."""
    limits = limited(connect_rate=1, address_connect_rate=0, address_connection_limit=2)
    assert admitted(limits, CLIENT, 100) == 2
    assert admitted(limits, "", 100) == BURST_SECONDS - 2


def test_twice_as_many_sockets_are_read_as_may_connect() -> None:
    limits = limited(address_connect_rate=1)
    assert sum(limits.accepts(CLIENT, 1) for _ in range(100)) == 2 * BURST_SECONDS
    assert limits.accepts(OTHER, 1)
    assert all(limits.accepts("", 1) for _ in range(100))


def test_nothing_is_kept_of_an_address_without_connections() -> None:
    limits = limited(address_connect_rate=1)
    for number in range(5 * admission.KEPT_ADDRESSES):
        key = f"198.51.{number >> 8}.{number & 255}"
        now = number * 0.1
        assert limits.accepts(key, now)
        assert limits.admit(key, now) is None
        limits.leave(key)
    assert (limits.count, limits.addresses) == (0, 0)
    assert len(limits._connects_full_at) <= admission.KEPT_ADDRESSES
    assert len(limits._sockets_full_at) <= admission.KEPT_ADDRESSES
