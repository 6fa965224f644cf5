"""The refusal log: a line for each refusal while they are few, a sample while they are many."""

from __future__ import annotations

import pytest
import structlog

from tocsin_server.node.refusal_log import BURST, LINES_PER_SECOND, RefusalLog


class Clock:
    """The time, as the test sets it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_an_attack_leaves_a_sample(clock: Clock) -> None:
    """A line after a pause says how many were left out."""
    log = RefusalLog(clock)
    with structlog.testing.capture_logs() as lines:
        for _ in range(1000):
            log.write("client_refused", error="x")
        assert len(lines) == BURST
        clock.now += 1 / LINES_PER_SECOND
        log.write("client_refused", error="y")
        log.write("client_refused", error="z")
    assert lines[BURST:] == [
        {"event": "client_refused", "log_level": "info", "error": "y", "left_out": 1000 - BURST}
    ]


def test_few_refusals_have_a_line_each(clock: Clock) -> None:
    """However long they go on."""
    log = RefusalLog(clock)
    with structlog.testing.capture_logs() as lines:
        for number in range(1000):
            clock.now += 1 / LINES_PER_SECOND
            log.write("client_refused", error=str(number))
    assert len(lines) == 1000
    assert not any("left_out" in line for line in lines)
