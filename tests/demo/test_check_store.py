"""Checks in the database: at most one runs for each link, and none outlives its process."""

from pathlib import Path

import msgspec
import pytest

from tocsin_demo.check_store import INTERRUPTED, LEASE_SECONDS, CheckStore, Finding
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
def store(tmp_path: Path, clock: Clock) -> CheckStore:
    return CheckStore(Database(tmp_path / "checks.sqlite"), clock)


def test_a_link_gets_no_second_check_while_one_is_running(store: CheckStore) -> None:
    first, is_new = store.begin("a", 1, 3)
    assert is_new
    assert store.begin("b", 1, 3) == (first, False)
    assert store.begin("c", 2, 3)[1]


def test_saved_findings_are_returned(store: CheckStore) -> None:
    check, _ = store.begin("a", 1, 3)
    found = msgspec.structs.replace(check, findings=[Finding("address", True, "fine", 1.5)], total=8)
    store.save(found)
    assert store.get("a") == found
    assert store.get("b") is None


def test_a_check_fails_when_its_lease_expires(store: CheckStore, clock: Clock) -> None:
    """A process that was killed does not renew it."""
    store.begin("a", 1, 3)
    clock.now += LEASE_SECONDS + 1
    check = store.get("a")
    assert check is not None
    assert (check.state, check.verdict) == ("failed", INTERRUPTED)
    assert store.begin("b", 1, 3)[1], "and the link may be checked again"


def test_each_step_renews_the_lease(store: CheckStore, clock: Clock) -> None:
    check, _ = store.begin("a", 1, 3)
    for _ in range(3):
        clock.now += LEASE_SECONDS * 0.9
        store.save(check)
    assert store.get("a") == check


def test_a_failed_check_stays_failed(store: CheckStore, clock: Clock) -> None:
    """A process that was only slow must not change a result that others have read."""
    check, _ = store.begin("a", 1, 3)
    clock.now += LEASE_SECONDS + 1
    store.get("a")
    store.save(msgspec.structs.replace(check, state="done", verdict="fine"))
    failed = store.get("a")
    assert failed is not None
    assert failed.state == "failed"


def test_old_checks_are_deleted(store: CheckStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin_demo.check_store.CHECK_HISTORY", 5)
    for number in range(10):
        check, _ = store.begin(f"{number}", 1, 3)
        store.save(msgspec.structs.replace(check, state="done", verdict="fine"))
    assert store.get("0") is None
    assert store.get("9") is not None
