"""How far each check of a link has come, where any process can read it.

running --> done      it found what it could
        `-> failed    whoever ran it stopped before the end

A running check holds a lease. Its runner renews it with every step; a check whose lease has lapsed was left
by a process that died, and whoever looks at it next says so.
"""

import sqlite3
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from tocsin_demo.database import Database

LEASE_SECONDS = 10.0  # three times the longest step
KEPT = 200  # checks; older ones are forgotten

INTERRUPTED = "interrupted: the server stopped before the check had ended"


class Finding(msgspec.Struct, frozen=True):
    """What one step found. `is_good` is None where the step speaks neither for nor against the link."""

    step: str
    is_good: bool | None
    says: str
    milliseconds: float | None = None


class Check(msgspec.Struct, frozen=True):
    """One check. `total` is the number of findings it expects to end with, as far as it knows yet."""

    id: str
    link_id: int
    state: Literal["running", "done", "failed"]
    findings: list[Finding]
    total: int
    verdict: str | None


class CheckLog:
    """Blocking: call it from a thread, or where a millisecond does not matter."""

    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def begin(self, check_id: str, link_id: int, total: int) -> tuple[Check, bool]:
        """A new check of the link and True, or the one already running and False."""
        with self._database.writing() as connection:
            self._fail_lapsed(connection)
            row = connection.execute(
                "SELECT * FROM checks WHERE link_id = ? AND state = 'running'", (link_id,)
            ).fetchone()
            if row is not None:
                return _check(row), False
            connection.execute(
                "DELETE FROM checks WHERE state != 'running' "
                "AND rowid <= (SELECT MAX(rowid) FROM checks) - ?",
                (KEPT,),
            )
            row = connection.execute(
                "INSERT INTO checks (id, link_id, state, findings, total, lease_until) "
                "VALUES (?, ?, 'running', '[]', ?, ?) RETURNING *",
                (check_id, link_id, total, self._now() + LEASE_SECONDS),
            ).fetchone()
        return _check(row), True

    def get(self, check_id: str) -> Check | None:
        """The check, told as failed if its runner is gone; None if there is none."""
        with self._database.writing() as connection:
            self._fail_lapsed(connection)
            row = connection.execute("SELECT * FROM checks WHERE id = ?", (check_id,)).fetchone()
        return None if row is None else _check(row)

    def save(self, check: Check) -> None:
        """Keeps what has been found so far and renews the lease; a check that was given up stays given up."""
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

    def _fail_lapsed(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE checks SET state = 'failed', verdict = ? WHERE state = 'running' AND lease_until < ?",
            (INTERRUPTED, self._now()),
        )


def _check(row: sqlite3.Row) -> Check:
    findings = msgspec.json.decode(row["findings"], type=list[Finding])
    return Check(row["id"], row["link_id"], row["state"], findings, row["total"], row["verdict"])
