"""One SQLite file that several processes may use at once."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

BUSY_SECONDS = 5.0  # how long a writer waits for another before the request fails

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
"""


class Database:
    """Blocking: call it from a thread. Each transaction has its own connection, so threads share nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(self._connect()) as connection:
            connection.executescript(_SCHEMA)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view, which never waits for a writer."""
        with closing(self._connect()) as connection:
            connection.execute("BEGIN")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Alone among writers from its first statement; an exception undoes all of it."""
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute(
                "COMMIT"
            )  # not reached, the transaction ends with its connection and leaves no trace

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection
