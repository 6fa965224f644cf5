"""Lifecycle events of hundreds of sessions, while a node is killed. `make chaos` has many more."""

from pathlib import Path

from tests.faults.lifecycle_audit import Audit, ClientSession
from tests.faults.lifecycle_run import SHORT, LifecycleRun, kill, lifecycle_cluster
from tocsin_server.config.event_options import EventType
from tocsin_server.core.lifecycle import LifecycleEvent


async def test_every_session_that_began_is_told_to_its_end(tmp_path: Path) -> None:
    """Also those of a node that is killed."""
    async with lifecycle_cluster(tmp_path) as cluster:
        run = LifecycleRun(cluster, SHORT)
        run.outages.append((0, float("inf")))  # no limit in time: the machine may be slow
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
    assert audit.compare(ClientSession("c", 1.0, {"a"}), due_at=9.0) == 8.0
    audit.compare(ClientSession("c", 1.0, {"z"}), due_at=8.0)
    audit.compare(ClientSession("other", 1.0), due_at=8.0)
    assert len(audit.violations) == 5
    audit.take(LifecycleEvent("occupied", "o", 1.0, channel="a"), 1.0)
    audit.finish()
    assert audit.violations[-1] == "a has no vacated"
