"""The connector: the backoff between attempts, and the check of the version."""

from random import Random

import pytest

from tocsin_server.engine.redis.connections.connector import (
    FIRST_BACKOFF_SECONDS,
    MAX_BACKOFF_SECONDS,
    OLDEST_CLUSTER_VERSION,
    Backoff,
    check_version,
)
from tocsin_server.errors import EngineError


def test_reconnects_are_spread_and_bounded() -> None:
    """Full jitter: from 0 to a bound that doubles, and returns to the first bound after a success."""
    backoff = Backoff(Random(1))
    waits = [[backoff.next() for _ in range(20)] for _ in range(200)]
    assert all(0 <= wait <= MAX_BACKOFF_SECONDS for some in waits for wait in some)
    assert max(some[-1] for some in waits) > MAX_BACKOFF_SECONDS * 0.9
    backoff.reset()
    assert backoff.next() <= FIRST_BACKOFF_SECONDS


def test_an_old_redis_is_rejected() -> None:
    """The error names its version, the oldest allowed version, and the reason."""
    check_version({"redis_version": "7.0.0"}, "h:1", OLDEST_CLUSTER_VERSION)
    with pytest.raises(EngineError, match=r"^Redis at h:1 is 6\.2\.14, but must be at least 7\.0, for it$"):
        check_version({"redis_version": "6.2.14"}, "h:1", OLDEST_CLUSTER_VERSION, ", for it")
