"""Lifecycle events of hundreds of sessions, while a node is killed. `make chaos` has many more."""

from math import inf
from pathlib import Path

from tests.faults.lifecycle_audit import Audit, ClientSession, Disturbance
from tests.faults.lifecycle_faults import kill
from tests.faults.lifecycle_run import SHORT, LifecycleRun, lifecycle_cluster
from tocsin_server.config.event_options import EventType
from tocsin_server.core.lifecycle import LifecycleEvent


async def test_every_session_that_began_is_told_to_its_end(tmp_path: Path) -> None:
    """Also those of a node that is killed. There is no limit in time: the machine may be slow."""
    async with lifecycle_cluster(tmp_path) as cluster:
        run = LifecycleRun(cluster, SHORT, Audit(allowed_seconds=inf))
        result = await run.execute([kill])
    assert not result.violations, result
    assert run.audit.events > 2 * SHORT.sessions


def event(kind: EventType, sequence: int, channel: str = "", client: str = "c") -> LifecycleEvent:
    return LifecycleEvent(kind, f"{client}-{sequence}", 1.0, "", client, "", sequence, channel)


def test_the_audit_finds_what_is_missing_late_or_out_of_order() -> None:
    audit = Audit()
    for one in (event("connected", 1), event("subscribed", 3, "a"), event("subscribed", 2, "b")):
        audit.take(one, 1.0)
    assert audit.violations == ["c: subscribed out of order"]
    audit.take(event("connected", 1), 1.0)
    assert (audit.repeated, audit.violation_count) == (1, 1)
    audit.take(event("disconnected", 4), 9.0)
    assert len(audit.violations) == 2
    assert audit.compare(ClientSession("c", 0, ended_at=2.5, channels={"a"})) == ("", 6.5)
    audit.compare(ClientSession("c", 0, ended_at=1.0, channels={"z"}))
    audit.compare(ClientSession("other", 0, ended_at=1.0))
    assert len(audit.violations) == 5
    audit.take(LifecycleEvent("occupied", "o", 1.0, channel="a"), 1.0)
    audit.finish()
    assert audit.violations[-1] == "a has no vacated"


def test_the_end_of_a_session_counts_from_the_fault_that_ended_or_delayed_it() -> None:
    """Only if the fault was one of its own node."""
    audit = Audit()
    audit.take(event("connected", 1), 1.0)
    audit.take(event("disconnected", 2), 9.0)
    frozen = Disturbance("freeze", frozenset([0]), 2.0, 6.0)
    audit.disturbances = [frozen, Disturbance("kill", frozenset([1]), 3.0, 3.5, killed_at=3.0)]
    assert audit.compare(ClientSession("c", 0, began_at=1.0, ended_at=5.0)) == ("freeze", 3.0)
    assert audit.compare(ClientSession("c", 0, began_at=1.0, ended_at=7.0)) == ("", 2.0)
    assert audit.compare(ClientSession("c", 1, began_at=1.0, ended_at=4.0)) == ("kill", 6.0)
    assert audit.compare(ClientSession("c", 2, began_at=1.0, ended_at=5.0)) == ("", 4.0)
    assert not audit.violations
    audit.compare(ClientSession("c", 2, began_at=1.0, ended_at=1.5))
    assert audit.violations == ["c: its end was told 0.5 s too late (no fault)"]


def test_only_a_session_that_its_node_could_not_write_may_be_missing() -> None:
    audit = Audit()
    audit.disturbances = [Disturbance("kill", frozenset([0]), 10.0, 10.5, killed_at=10.0)]
    assert audit.has_ended(ClientSession("c", 0, began_at=9.0, ended_at=10.0))
    assert not audit.has_ended(ClientSession("c", 0, began_at=5.0, ended_at=10.0))
    assert not audit.has_ended(ClientSession("c", 1, began_at=9.0, ended_at=10.0))
