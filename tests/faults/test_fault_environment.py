"""What a fault may do besides losing publications, and what it may not do."""

from dataclasses import replace
from typing import Any

import pytest

from tests.faults.fault_environment import CHANNELS, Fault, FaultEnvironment, HistoryLoss, Observation


async def inject(_: FaultEnvironment[Any]) -> None: ...


EXPECTED = Observation(detected_seconds=2.9, lasted_seconds=4, published=40, rate=200)
"""An observation of a deaf node, without a violation."""
ALL = len(CHANNELS)


@pytest.fixture
def fault() -> Fault[Any]:
    return Fault("some fault", inject, "a log event", detected_within_seconds=3, allows_publishing=True)


def test_a_fault_detected_in_time_while_publishers_make_progress_is_as_promised(fault: Fault[Any]) -> None:
    assert not fault.violations(EXPECTED)


@pytest.mark.parametrize(
    ("seen", "violation"),
    [
        (replace(EXPECTED, detected_seconds=25.0), "detected after 25.0 s"),
        (replace(EXPECTED, detected_seconds=None), "the fault was not detected"),
        (replace(EXPECTED, published=39), "only 39 publications in 4.0 s"),
        (replace(EXPECTED, publishing_resumed=False), "publishing did not resume"),
        (replace(EXPECTED, connections_ended=2), "2 connections ended"),
        (replace(EXPECTED, histories_lost=1), f"1 of {ALL} histories were lost"),
        (replace(EXPECTED, gaps_missing=1), "1 gaps missing, 0 gaps unfounded"),
        (replace(EXPECTED, gaps_unfounded=1), "0 gaps missing, 1 gaps unfounded"),
    ],
)
def test_a_broken_promise_is_a_violation(fault: Fault[Any], seen: Observation, violation: str) -> None:
    assert fault.violations(seen) == [violation]


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"detected_within_seconds": float("inf")}, replace(EXPECTED, detected_seconds=25.0)),
        ({"allows_publishing": False}, replace(EXPECTED, published=0)),
        ({"ended_connections": 2}, replace(EXPECTED, connections_ended=2)),
        ({"history_loss": HistoryLoss.POSSIBLE}, replace(EXPECTED, histories_lost=1)),
        ({"history_loss": HistoryLoss.ALWAYS}, replace(EXPECTED, histories_lost=ALL)),
    ],
)
def test_a_fault_may_do_what_its_definition_allows(
    fault: Fault[Any], change: dict[str, Any], seen: Observation
) -> None:
    assert not replace(fault, **change).violations(seen)


def test_a_detection_of_an_undetectable_fault_is_a_violation(fault: Fault[Any]) -> None:
    undetectable = replace(fault, detected_by="")
    assert not undetectable.violations(replace(EXPECTED, detected_seconds=None))
    assert undetectable.violations(EXPECTED) == ["a fault was detected"]


def test_a_fault_that_loses_all_histories_must_not_keep_one(fault: Fault[Any]) -> None:
    losing = replace(fault, history_loss=HistoryLoss.ALWAYS)
    assert losing.violations(replace(EXPECTED, histories_lost=ALL - 1))
