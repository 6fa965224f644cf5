"""The checks of links, in the database, where every process can read them.

    running --> done      all steps have run
            `-> failed    the process stopped before the last step

A running check holds a lease, which its process renews with every step. An expired lease means that the
process has died: the next reader records the check as failed.
"""

import sqlite3
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from tocsin_demo.database import Database

LEASE_SECONDS = 10.0  # three times the longest step
CHECK_HISTORY = 200  # older checks are deleted

INTERRUPTED = "interrupted: the server stopped before the check was complete"


class Finding(msgspec.Struct, frozen=True):
    """The result of one step. `is_good` is None if the step says nothing about the link."""

    step: str
    is_good: bool | None
    text: str
    milliseconds: float | None = None


class Check(msgspec.Struct, frozen=True):
    """One check. `total` is the number of findings to expect; it may grow while the check runs."""

    id: str
    link_id: int
    state: Literal["running", "done", "failed"]
    findings: list[Finding]
    total: int
    verdict: str | None


class CheckStore:
    """Blocks: call it from a thread, or where a millisecond does not matter."""

    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def begin(self, check_id: str, link_id: int, total: int) -> tuple[Check, bool]:
        """Return a new check of the link and True, or the check that already runs and False."""
        with self._database.writing() as connection:
            self._fail_expired(connection)
            row = connection.execute(
                "SELECT * FROM checks WHERE link_id = ? AND state = 'running'", (link_id,)
            ).fetchone()
            if row is not None:
                return _check(row), False
            connection.execute(
                "DELETE FROM checks WHERE state != 'running' "
                "AND rowid <= (SELECT MAX(rowid) FROM checks) - ?",
                (CHECK_HISTORY,),
            )
            row = connection.execute(
                "INSERT INTO checks (id, link_id, state, findings, total, lease_until) "
                "VALUES (?, ?, 'running', '[]', ?, ?) RETURNING *",
                (check_id, link_id, total, self._now() + LEASE_SECONDS),
            ).fetchone()
        return _check(row), True

    def get(self, check_id: str) -> Check | None:
        """Return the check, or None. A check whose lease has expired is returned as failed."""
        with self._database.writing() as connection:
            self._fail_expired(connection)
            row = connection.execute("SELECT * FROM checks WHERE id = ?", (check_id,)).fetchone()
        return None if row is None else _check(row)

    def save(self, check: Check) -> None:
        """Store the findings and renew the lease. Has no effect on a check that is no longer running."""
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE checks SET state = ?, findings = ?, total = ?, verdict = ?, lease_until = ? "
                "WHERE id = ? AND state = 'running'",
                (
                    check.state,
                    msgspec.json.encode(check.findings).decode(),
                    check.total,
                    check.verdict,
                    self._now() + LEASE_SECONDS,
                    check.id,
                ),
            )

    def _fail_expired(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE checks SET state = 'failed', verdict = ? WHERE state = 'running' AND lease_until < ?",
            (INTERRUPTED, self._now()),
        )


def _check(row: sqlite3.Row) -> Check:
    findings = msgspec.json.decode(row["findings"], type=list[Finding])
    return Check(row["id"], row["link_id"], row["state"], findings, row["total"], row["verdict"])
