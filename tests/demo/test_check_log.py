"""Checks in the database: one at a time for a link, and none runs on after its runner."""

from pathlib import Path

import msgspec
import pytest

from tocsin_demo.check_log import INTERRUPTED, LEASE_SECONDS, CheckLog, Finding
from tocsin_demo.database import Database


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> CheckLog:
    return CheckLog(Database(tmp_path / "checks.sqlite"), clock)


def test_a_link_that_is_being_checked_is_not_checked_twice(log: CheckLog) -> None:
    first, is_new = log.begin("a", 1, 3)
    assert is_new
    assert log.begin("b", 1, 3) == (first, False)
    assert log.begin("c", 2, 3)[1]


def test_what_was_found_is_there_for_whoever_asks(log: CheckLog) -> None:
    check, _ = log.begin("a", 1, 3)
    found = msgspec.structs.replace(check, findings=[Finding("address", True, "fine", 1.5)], total=8)
    log.save(found)
    assert log.get("a") == found
    assert log.get("b") is None


def test_a_check_whose_runner_is_gone_is_told_as_failed(log: CheckLog, clock: Clock) -> None:
    """Nobody renews the lease of a process that was killed."""
    log.begin("a", 1, 3)
    clock.now += LEASE_SECONDS + 1
    check = log.get("a")
    assert check is not None
    assert (check.state, check.verdict) == ("failed", INTERRUPTED)
    assert log.begin("b", 1, 3)[1], "and the link may be checked again"


def test_each_step_renews_the_lease(log: CheckLog, clock: Clock) -> None:
    check, _ = log.begin("a", 1, 3)
    for _ in range(3):
        clock.now += LEASE_SECONDS * 0.9
        log.save(check)
    assert log.get("a") == check


def test_a_check_that_was_given_up_stays_given_up(log: CheckLog, clock: Clock) -> None:
    """A runner that was only slow must not overturn what others have been told."""
    check, _ = log.begin("a", 1, 3)
    clock.now += LEASE_SECONDS + 1
    log.get("a")
    log.save(msgspec.structs.replace(check, state="done", verdict="fine"))
    failed = log.get("a")
    assert failed is not None
    assert failed.state == "failed"


def test_old_checks_are_forgotten(log: CheckLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin_demo.check_log.KEPT", 5)
    for number in range(10):
        check, _ = log.begin(f"{number}", 1, 3)
        log.save(msgspec.structs.replace(check, state="done", verdict="fine"))
    assert log.get("0") is None
    assert log.get("9") is not None
