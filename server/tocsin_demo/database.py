"""One SQLite file that several processes use at the same time."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

BUSY_SECONDS = 5.0  # a writer that waits longer for another one fails

_SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS links (
  id INTEGER PRIMARY KEY AUTOINCREMENT, url TEXT NOT NULL, title TEXT NOT NULL, verdict TEXT,
  version INTEGER NOT NULL UNIQUE, changed_at REAL NOT NULL, is_deleted INTEGER NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX IF NOT EXISTS links_url ON links (url) WHERE NOT is_deleted;
CREATE TABLE IF NOT EXISTS checks (
  id TEXT PRIMARY KEY, link_id INTEGER NOT NULL, state TEXT NOT NULL, findings TEXT NOT NULL,
  total INTEGER NOT NULL, verdict TEXT, lease_until REAL NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS checks_running ON checks (link_id) WHERE state = 'running';
CREATE TABLE IF NOT EXISTS visits (
  client TEXT PRIMARY KEY, user TEXT NOT NULL, node TEXT NOT NULL,
  came_at REAL NOT NULL, went_at REAL, sequence INTEGER NOT NULL);
"""


class Database:
    """Blocks: call it from a thread. Every transaction has its own connection, so threads share no state."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(self._connect()) as connection:
            connection.executescript(_SCHEMA)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction that reads one consistent state. It never waits for a writer."""
        with closing(self._connect()) as connection:
            connection.execute("BEGIN")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that excludes other writers from its first statement. An exception rolls it back."""
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")  # after an exception, closing the connection rolls back

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection
