"""Visits in the database: what repeated and late events change, and several writers on one file."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tocsin_demo.database import Database
from tocsin_demo.visit_store import VISIT_LIMIT, Visit, VisitStore
from tocsin_server.config.event_options import EventType
from tocsin_server.core.lifecycle import LifecycleEvent


@pytest.fixture
def store(tmp_path: Path) -> VisitStore:
    return VisitStore(Database(tmp_path / "visits.sqlite"))


def event(kind: EventType, client: str, sequence: int, time: float) -> LifecycleEvent:
    return LifecycleEvent(
        kind, f"{client}-{sequence}", time, node="node-1", client=client, user="ann", sequence=sequence
    )


def came(client: str, sequence: int = 1, time: float = 10.0) -> LifecycleEvent:
    return event("subscribed", client, sequence, time)


def went(client: str, sequence: int = 2, time: float = 20.0) -> LifecycleEvent:
    return event("unsubscribed", client, sequence, time)


def test_a_connection_comes_and_goes(store: VisitStore) -> None:
    assert store.record([came("a")]) == [Visit("a", "ann", "node-1", 10_000.0, None)]
    assert store.present() == ["a"]
    assert store.record([went("a")]) == [Visit("a", "ann", "node-1", 10_000.0, 20_000.0)]
    assert store.present() == []


def test_an_event_that_is_repeated_changes_nothing(store: VisitStore) -> None:
    """Also after a newer one of its connection."""
    store.record([came("a")])
    assert store.record([came("a")]) == []
    store.record([went("a")])
    assert store.record([came("a"), went("a")]) == []
    assert store.present() == []


def test_a_connection_may_come_again(store: VisitStore) -> None:
    store.record([came("a"), went("a"), came("a", 3, 30.0)])
    assert store.latest(1) == [Visit("a", "ann", "node-1", 30_000.0, None)]


def test_the_newest_visits_come_first(store: VisitStore) -> None:
    store.record([came(name, time=at) for name, at in (("b", 2.0), ("a", 1.0), ("c", 3.0))])
    assert [visit.client for visit in store.latest(2)] == ["c", "b"]
    assert store.present() == ["a", "b", "c"]


def test_old_visits_are_deleted_unless_the_connection_is_there(store: VisitStore) -> None:
    store.record([came("stays", time=1.0), came("leaves", time=1.0), went("leaves", time=2.0)])
    later = [(f"{number}", 10.0 + number) for number in range(VISIT_LIMIT)]
    store.record([event for name, at in later for event in (came(name, time=at), went(name, time=at + 1))])
    clients = {visit.client for visit in store.latest(2 * VISIT_LIMIT)}
    assert "stays" in clients
    assert "leaves" not in clients


def test_visits_of_an_earlier_run_are_forgotten(store: VisitStore) -> None:
    store.record([came("a")])
    store.forget_all()
    assert (store.present(), store.latest(1)) == ([], [])


def test_each_event_is_recorded_by_one_of_several_writers(store: VisitStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        recorded = list(pool.map(store.record, [[came("a")]] * 20))
    assert sum(map(len, recorded)) == 1
