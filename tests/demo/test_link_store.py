"""The links in the database: increasing versions, tombstones, and several writers on one file."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tocsin_demo.database import Database
from tocsin_demo.link_store import (
    DuplicateUrlError,
    LimitReachedError,
    LinkStore,
    NotFoundError,
    OutdatedError,
)


@pytest.fixture
def store(tmp_path: Path) -> LinkStore:
    return LinkStore(Database(tmp_path / "links.sqlite"), now=lambda: 1000.0)


def test_every_change_of_any_link_takes_the_next_version(store: LinkStore) -> None:
    """Added, changed, deleted: 1, 2, 3, 4."""
    one, two = store.add("http://a.example", "A"), store.add("http://b.example", "B")
    changed = store.change(one.id, title="C")
    gone = store.remove(two.id)
    assert [one.version, two.version, changed.version, gone.version] == [1, 2, 3, 4]
    assert store.changes().version == 4


def test_changes_since_a_version_include_tombstones(store: LinkStore) -> None:
    """After version 2, these are the third and the fourth change."""
    one, two = store.add("http://a.example", "A"), store.add("http://b.example", "B")
    store.change(one.id, title="C")
    store.remove(two.id)
    changes = store.changes(since=2)
    assert [link.title for link in changes.links] == ["C"]
    assert [tombstone.id for tombstone in changes.deleted] == [two.id]


def test_changes_since_the_beginning_have_no_tombstones(store: LinkStore) -> None:
    """A client without links has none to delete."""
    store.remove(store.add("http://a.example", "A").id)
    assert store.changes().deleted == []


def test_a_url_is_taken_until_its_link_is_deleted(store: LinkStore) -> None:
    link, other = store.add("http://a.example", "A"), store.add("http://b.example", "B")
    with pytest.raises(DuplicateUrlError):
        store.add("http://a.example", "again")
    with pytest.raises(DuplicateUrlError):
        store.change(other.id, url="http://a.example")
    store.remove(link.id)
    assert store.add("http://a.example", "again").version == 4


def test_a_refused_change_takes_no_version(store: LinkStore) -> None:
    store.add("http://a.example", "A")
    with pytest.raises(DuplicateUrlError):
        store.add("http://a.example", "again")
    assert store.changes().version == 1


def test_a_new_url_removes_the_verdict(store: LinkStore) -> None:
    link = store.add("http://a.example", "A")
    assert store.change(link.id, verdict="fine").verdict == "fine"
    assert store.change(link.id, title="B").verdict == "fine"
    assert store.change(link.id, url="http://b.example").verdict is None


def test_a_change_of_an_older_version_is_refused(store: LinkStore) -> None:
    link = store.add("http://a.example", "A")
    store.change(link.id, title="B")
    with pytest.raises(OutdatedError):
        store.change(link.id, title="C", expected=link.version)
    with pytest.raises(OutdatedError):
        store.remove(link.id, expected=link.version)


def test_a_deleted_link_is_not_found(store: LinkStore) -> None:
    link = store.add("http://a.example", "A")
    store.remove(link.id)
    for attempt in (store.get, store.remove, store.change):
        with pytest.raises(NotFoundError):
            attempt(link.id)


def test_the_number_of_links_is_limited(store: LinkStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin_demo.link_store.LINK_LIMIT", 3)
    for number in range(3):
        store.add(f"http://{number}.example", "A")
    with pytest.raises(LimitReachedError):
        store.add("http://one-more.example", "A")


def test_writers_on_one_file_never_share_a_version(tmp_path: Path) -> None:
    """Each writer has a store of its own, as processes do."""
    file = tmp_path / "links.sqlite"

    def add(number: int) -> int:
        return LinkStore(Database(file)).add(f"http://{number}.example", "A").version

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(add, range(40))) == list(range(1, 41))
