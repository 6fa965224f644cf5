"""Requests between nodes: which of them are new."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tocsin_server.engine.redis import verification
from tocsin_server.engine.redis.clock import SharedClock
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.verification import MAX_AGE_SECONDS, NewRequests

NOW = 100.0
"""The time of the node's clock, which stands still: a test may take any time."""
AHEAD = 1_000_000.0
READING_SECONDS = 0.2
"""How long it took to read the shared clock. So a conversion may be wrong by half of it."""


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> NewRequests:
    """Those of a node that starts now, and knows the shared time as exactly as one reading allows."""
    monkeypatch.setattr(verification, "time", SimpleNamespace(monotonic=lambda: NOW))
    clock = SharedClock(Keys("unused"), None, lambda: NOW)  # type: ignore[arg-type]  # no sample is taken
    clock.add_sample(NOW + AHEAD, NOW - READING_SECONDS, NOW)
    found = NewRequests(clock)
    found.start()
    return found


def sent(seconds: float) -> int:
    """The stamp of a request that was sent so many seconds from now."""
    return round((NOW + seconds + AHEAD) * 1e6)


def test_a_request_is_new_once(requests: NewRequests) -> None:
    """Its sender gives each a larger number."""
    assert requests.is_new("n2", 1, sent(0))
    assert not requests.is_new("n2", 1, sent(0))
    assert requests.is_new("n2", 2, sent(0))
    assert requests.is_new("n3", 1, sent(0))


def test_a_first_request_is_new_although_clocks_are_inexact(requests: NewRequests) -> None:
    """The sender's clock and this node's may each be wrong by half a reading."""
    assert requests.is_new("n2", 1, sent(-READING_SECONDS / 4))


@pytest.mark.parametrize("seconds", [-2 * READING_SECONDS, -MAX_AGE_SECONDS - 1, MAX_AGE_SECONDS + 1])
def test_a_request_of_another_time_is_not_new(requests: NewRequests, seconds: float) -> None:
    """It was sent before the node started, or is too old, or its sender's clock is wrong."""
    assert not requests.is_new("n2", 1, sent(seconds))


def test_a_request_of_an_unknown_time_is_not_new(requests: NewRequests) -> None:
    """A node that has started knows the shared time."""
    assert not requests.is_new("n2", 1, 0)
