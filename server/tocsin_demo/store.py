"""The links the application keeps.

Every change of any link takes the next version of the whole collection. A reader that knows version 12 asks
for what came after 12; a deleted link stays as a tombstone, so that its absence has a version too.
"""

import sqlite3
import time
from collections.abc import Callable

import msgspec

from tocsin_demo.database import Database

LINK_LIMIT = 100


class Link(msgspec.Struct, frozen=True):
    """One link.

    `version` is the collection's at this link's last change, `changed_at` milliseconds since 1970.
    """

    id: int
    url: str
    title: str
    verdict: str | None
    version: int
    changed_at: float


class Tombstone(msgspec.Struct, frozen=True):
    """A link that is no more."""

    id: int
    version: int
    changed_at: float


class Changes(msgspec.Struct, frozen=True):
    """What came after a version; after version 0 that is every link there is."""

    version: int
    links: list[Link]
    deleted: list[Tombstone]


class MissingError(Exception):
    """There is no such link."""


class TakenError(Exception):
    """Another link has this URL."""


class FullError(Exception):
    """There are as many links as we keep."""


class OutdatedError(Exception):
    """The link has changed since the version the caller knows."""


class Store:
    """Blocking: call it from a thread.

    Holds no state but the file's, so any process answers like any other.
    """

    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def changes(self, since: int = 0) -> Changes:
        """All links if `since` is 0, else those changed or deleted after that version."""
        with self._database.reading() as connection:
            version = _top(connection)
            rows = connection.execute(
                "SELECT * FROM links WHERE version > ? AND (NOT is_deleted OR ? > 0) ORDER BY id",
                (since, since),
            ).fetchall()
        links = [_link(row) for row in rows if not row["is_deleted"]]
        return Changes(version, links, [_tombstone(row) for row in rows if row["is_deleted"]])

    def get(self, link_id: int) -> Link:
        """The link; MissingError if there is none."""
        with self._database.reading() as connection:
            return _find(connection, link_id)

    def add(self, url: str, title: str) -> Link:
        """A new link; TakenError, FullError."""
        with self._database.writing() as connection:
            (count,) = connection.execute("SELECT COUNT(*) FROM links WHERE NOT is_deleted").fetchone()
            if count >= LINK_LIMIT:
                raise FullError
            try:
                row = connection.execute(
                    "INSERT INTO links (url, title, version, changed_at) VALUES (?, ?, ?, ?) RETURNING *",
                    (url, title, _top(connection) + 1, self._milliseconds()),
                ).fetchone()
            except sqlite3.IntegrityError:
                raise TakenError from None
        return _link(row)

    def change(
        self,
        link_id: int,
        *,
        url: str | None = None,
        title: str | None = None,
        verdict: str | None = None,
        expected: int | None = None,
    ) -> Link:
        """Sets what is given; a new URL voids the old verdict. MissingError, TakenError, OutdatedError."""
        with self._database.writing() as connection:
            link = _find(connection, link_id, expected)
            kept = link.verdict if url in (None, link.url) else None
            values = (
                url or link.url,
                title or link.title,
                verdict or kept,
                _top(connection) + 1,
                self._milliseconds(),
            )
            try:
                row = connection.execute(
                    "UPDATE links SET url = ?, title = ?, verdict = ?, version = ?, changed_at = ? "
                    "WHERE id = ? RETURNING *",
                    (*values, link_id),
                ).fetchone()
            except sqlite3.IntegrityError:
                raise TakenError from None
        return _link(row)

    def remove(self, link_id: int, expected: int | None = None) -> Tombstone:
        """Leaves a tombstone; MissingError, OutdatedError."""
        with self._database.writing() as connection:
            _find(connection, link_id, expected)
            row = connection.execute(
                "UPDATE links SET is_deleted = 1, version = ?, changed_at = ? WHERE id = ? RETURNING *",
                (_top(connection) + 1, self._milliseconds(), link_id),
            ).fetchone()
        return _tombstone(row)

    def _milliseconds(self) -> float:
        return round(self._now() * 1000, 1)


def _top(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("SELECT COALESCE(MAX(version), 0) FROM links").fetchone()
    return int(version)


def _find(connection: sqlite3.Connection, link_id: int, expected: int | None = None) -> Link:
    row = connection.execute("SELECT * FROM links WHERE id = ? AND NOT is_deleted", (link_id,)).fetchone()
    if row is None:
        raise MissingError
    if expected not in (None, row["version"]):
        raise OutdatedError
    return _link(row)


def _link(row: sqlite3.Row) -> Link:
    return Link(row["id"], row["url"], row["title"], row["verdict"], row["version"], row["changed_at"])


def _tombstone(row: sqlite3.Row) -> Tombstone:
    return Tombstone(row["id"], row["version"], row["changed_at"])
