"""Stores the links of the application.

Every change of any link takes the next version of the whole collection. A client that knows version 12
requests the changes after 12. A deleted link stays as a tombstone, so that its deletion has a version too.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tocsin_demo.database import Database

LINK_LIMIT = 100

_EXAMPLES = (
    ("Is this node ready?", "/health/ready"),
    ("The HTTP API, described", "/api/openapi.json"),
    ("What this node counts", "/metrics"),
)
"""The links of a new database, which a check can reach without leaving this machine."""


class Link(msgspec.Struct, frozen=True):
    """One link.

    `version` is the collection's version at the last change of this link; `changed_at` is in milliseconds
    since 1970.
    """

    id: int
    url: str
    title: str
    verdict: str | None
    version: int
    changed_at: float


class Tombstone(msgspec.Struct, frozen=True):
    """A deleted link."""

    id: int
    version: int
    changed_at: float


class Changes(msgspec.Struct, frozen=True):
    """The changes after a version. After version 0, these are all links."""

    version: int
    links: list[Link]
    deleted: list[Tombstone]


class NotFoundError(Exception):
    """There is no such link."""


class DuplicateUrlError(Exception):
    """Another link has this URL."""


class LimitReachedError(Exception):
    """The store holds the maximum number of links."""


class OutdatedError(Exception):
    """The link has changed since the version the caller knows."""


class LinkStore:
    """Blocks: call it from a thread. Its only state is the file, so all processes give the same answers."""

    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def changes(self, since: int = 0) -> Changes:
        """Return all links if `since` is 0, otherwise those changed or deleted after that version."""
        with self._database.reading() as connection:
            version = _top(connection)
            rows = connection.execute(
                "SELECT * FROM links WHERE version > ? AND (NOT is_deleted OR ? > 0) ORDER BY id",
                (since, since),
            ).fetchall()
        links = [_link(row) for row in rows if not row["is_deleted"]]
        return Changes(version, links, [_tombstone(row) for row in rows if row["is_deleted"]])

    def get(self, link_id: int) -> Link:
        """Return the link. Raises NotFoundError."""
        with self._database.reading() as connection:
            return _find(connection, link_id)

    def add(self, url: str, title: str) -> Link:
        """Add a link. Raises DuplicateUrlError, LimitReachedError."""
        with self._database.writing() as connection:
            (count,) = connection.execute("SELECT COUNT(*) FROM links WHERE NOT is_deleted").fetchone()
            if count >= LINK_LIMIT:
                raise LimitReachedError
            try:
                row = connection.execute(
                    "INSERT INTO links (url, title, version, changed_at) VALUES (?, ?, ?, ?) RETURNING *",
                    (url, title, _top(connection) + 1, self._milliseconds()),
                ).fetchone()
            except sqlite3.IntegrityError:
                raise DuplicateUrlError from None
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
        """Set the given fields; a new URL removes the verdict.

        Raises NotFoundError, DuplicateUrlError, OutdatedError.
        """
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
                raise DuplicateUrlError from None
        return _link(row)

    def remove(self, link_id: int, expected: int | None = None) -> Tombstone:
        """Replace the link by a tombstone. Raises NotFoundError, OutdatedError."""
        with self._database.writing() as connection:
            _find(connection, link_id, expected)
            row = connection.execute(
                "UPDATE links SET is_deleted = 1, version = ?, changed_at = ? WHERE id = ? RETURNING *",
                (_top(connection) + 1, self._milliseconds(), link_id),
            ).fetchone()
        return _tombstone(row)

    def _milliseconds(self) -> float:
        return round(self._now() * 1000, 1)


def prepare_database(path: Path, push_server: str) -> Database:
    """Open the database, and add the example links if it is new. Called before processes share the file."""
    database = Database(path)
    store = LinkStore(database)
    if store.changes().version == 0:
        for title, url_path in _EXAMPLES:
            store.add(push_server + url_path, title)
    return database


def _top(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("SELECT COALESCE(MAX(version), 0) FROM links").fetchone()
    return int(version)


def _find(connection: sqlite3.Connection, link_id: int, expected: int | None = None) -> Link:
    row = connection.execute("SELECT * FROM links WHERE id = ? AND NOT is_deleted", (link_id,)).fetchone()
    if row is None:
        raise NotFoundError
    if expected not in (None, row["version"]):
        raise OutdatedError
    return _link(row)


def _link(row: sqlite3.Row) -> Link:
    return Link(row["id"], row["url"], row["title"], row["verdict"], row["version"], row["changed_at"])


def _tombstone(row: sqlite3.Row) -> Tombstone:
    return Tombstone(row["id"], row["version"], row["changed_at"])
