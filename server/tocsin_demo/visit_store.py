"""Stores visits: one for each connection to the lobby, as lifecycle events tell it.

(nothing) --subscribed--> present --unsubscribed--> gone
"""

import sqlite3
import time
from collections.abc import Callable, Sequence

import msgspec

from tocsin_demo.database import Database
from tocsin_server.core.lifecycle import LifecycleEvent

VISIT_LIMIT = 200
"""Older visits are deleted once their connection is gone."""


class Visit(msgspec.Struct, frozen=True):
    """One connection that came to the lobby. Times are in milliseconds since 1970."""

    client: str
    user: str
    node: str
    """The node that has, or had, the connection."""
    came_at: float
    went_at: float | None


class VisitStore:
    """Blocks: call it from a thread. Its only state is the file, so all processes give the same answers."""

    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def record(self, events: Sequence[LifecycleEvent]) -> list[Visit]:
        """Store events, and return the visits that changed.

        An event that is repeated, or older than a stored one of its connection, changes nothing.
        """
        with self._database.writing() as connection:
            changed = [visit for event in events if (visit := _apply(connection, event)) is not None]
            connection.execute(
                "DELETE FROM visits WHERE went_at IS NOT NULL AND client NOT IN"
                " (SELECT client FROM visits ORDER BY came_at DESC LIMIT ?)",
                (VISIT_LIMIT,),
            )
        return changed

    def present(self) -> list[str]:
        """Return the client ids of the connections that came and did not go."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT client FROM visits WHERE went_at IS NULL ORDER BY came_at")
            return [client for (client,) in rows]

    def latest(self, limit: int) -> list[Visit]:
        """Return the visits that began last, the newest first."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT * FROM visits ORDER BY came_at DESC LIMIT ?", (limit,))
            return [_visit(row) for row in rows]

    def forget_all(self) -> None:
        """Delete all visits: those of an earlier run, whose connections have ended with it."""
        with self._database.writing() as connection:
            connection.execute("DELETE FROM visits")


def _apply(connection: sqlite3.Connection, event: LifecycleEvent) -> Visit | None:
    at = round(event.time * 1000, 1)
    is_present = event.type == "subscribed"
    row = connection.execute(
        "INSERT INTO visits (client, user, node, came_at, went_at, sequence) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (client) DO UPDATE SET sequence = excluded.sequence, node = excluded.node,"
        " came_at = iif(?, excluded.came_at, visits.came_at), went_at = excluded.went_at"
        " WHERE excluded.sequence > visits.sequence RETURNING *",
        (event.client, event.user, event.node, at, None if is_present else at, event.sequence, is_present),
    ).fetchone()
    return None if row is None else _visit(row)


def _visit(row: sqlite3.Row) -> Visit:
    return Visit(row["client"], row["user"], row["node"], row["came_at"], row["went_at"])
