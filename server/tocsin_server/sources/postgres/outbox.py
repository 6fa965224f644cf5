"""The outbox as a source: one connection to PostgreSQL, on which the node waits, reads and removes.

The claim to read is an advisory lock, which ends with the connection. No transaction is open while rows are
published, so that a slow publication delays neither VACUUM nor a back end. Between publishing and removing
rows the node may die. The next one publishes them again, with the idempotency keys of the first time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import asyncpg
from msgspec import structs

from tocsin_server.config.source_options import OutboxOptions
from tocsin_server.sources.entry import SourceEntry, too_large
from tocsin_server.sources.postgres.schema import NOTIFY_CHANNEL, Statements
from tocsin_server.sources.source import Failure, SourceError, Unpublished

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 20.0
"""How long PostgreSQL may take to answer. A connection that is silently dead is noticed within this time."""

CLOSE_SECONDS = 1.0

BATCH_BYTES = 4_194_304
"""How many bytes of rows are read at once. Beyond it, a batch has only the row that exceeds it."""

FIRST_ROWS = 16
"""How many rows the first batch has at most. PostgreSQL measures all rows from which a batch is cut."""

COUNTED_ROWS = 100_000
"""Up to how many waiting rows are counted."""

LOCK_CLASS = 0x746F6373
"""The upper half of the keys of the advisory locks; the lower one is the object id of the table."""

SESSION_SETTINGS = {
    "application_name": "tocsin outbox",
    "statement_timeout": "15s",
    "lock_timeout": "5s",
    "datestyle": "ISO",  # times are read as text, and given back so
    "timezone": "UTC",
    "tcp_keepalives_idle": "5",  # a node whose machine is gone loses its lock within about 15 s
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
IDLE_SECONDS = 30
"""After so long without a statement, PostgreSQL ends the session: that of a node which hangs."""

IDLE_TIMEOUT_VERSION = 14
"""The version of PostgreSQL that introduced idle_session_timeout."""


_ROW_ERRORS = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, asyncpg.InternalServerError)
"""What one row may cause: it is no valid text, has more text than PostgreSQL can return, or is damaged."""


class Row(SourceEntry, frozen=True):
    """A row that is not published yet. Its id alone may be that of another row, after a loss of data."""

    row_id: int = 0
    created_at: str | None = None
    """As PostgreSQL writes it in UTC."""


class Outbox:
    """Implements Source. `limit_bytes` is the most that one row may have."""

    name = "outbox"

    def __init__(self, options: OutboxOptions, limit_bytes: int) -> None:
        self._options = options
        self._limit_bytes = limit_bytes
        self.channels = options.channels
        self.wait_seconds = options.poll_interval

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[OpenOutbox]:
        """Connect to PostgreSQL. Raises SourceError."""
        with _translating():
            connection = await asyncpg.connect(
                self._options.url,
                timeout=CONNECT_SECONDS,
                command_timeout=COMMAND_SECONDS,
                server_settings=SESSION_SETTINGS,
            )
        try:
            opened = OpenOutbox(connection, self._options, self._limit_bytes)
            await opened.prepare()
            yield opened
        finally:
            await _close(connection)


class OpenOutbox:
    """Implements OpenSource.

    The mutable state is the claim, whether there was a notification, the size of the next batch, and the rows
    that were published and could not be removed. All of it ends with the connection.
    """

    def __init__(self, connection: asyncpg.Connection[Any], options: OutboxOptions, limit_bytes: int) -> None:
        self._connection = connection
        self._options = options
        self._limit_bytes = limit_bytes
        self._statements = Statements(options.table)
        self._lock_key = 0
        self._table_id = 0
        self._is_claimed = False
        self._notified = asyncio.Event()
        self._not_removed: dict[int, Row] = {}
        self._next_rows = min(FIRST_ROWS, options.batch_size)

    async def prepare(self) -> None:
        """Check that the outbox can be used, and listen for notifications. Raises SourceError."""
        connection = self._connection
        connection.add_termination_listener(self._on_end)
        with _translating():
            if await connection.fetchval("SELECT pg_is_in_recovery()"):
                raise SourceError("the server is a standby; outbox.url needs target_session_attrs=primary")
            if connection.get_server_version().major >= IDLE_TIMEOUT_VERSION:
                await connection.execute(f"SET idle_session_timeout = '{IDLE_SECONDS}s'")
            self._table_id = await connection.fetchval(self._statements.table_id)
            if missing := await connection.fetchval(self._statements.missing_privileges):
                raise SourceError(f"its role needs the privilege {missing} on {self._options.table}")
            self._lock_key = LOCK_CLASS << 32 | self._table_id
            await connection.add_listener(NOTIFY_CHANNEL, self._on_notification)

    async def claim(self) -> bool:
        """Take the advisory lock, unless this session has it."""
        if not self._is_claimed:
            with _translating():
                self._is_claimed = await self._connection.fetchval(
                    "SELECT pg_try_advisory_lock($1)", self._lock_key
                )
        return self._is_claimed

    async def release(self) -> None:
        """Release the advisory lock. Idempotent."""
        if self._is_claimed:
            self._is_claimed = False
            self._not_removed.clear()
            with _translating():
                await self._connection.execute("SELECT pg_advisory_unlock($1)", self._lock_key)

    async def read(self, held: Collection[str]) -> Sequence[SourceEntry]:
        """Read the oldest rows, as OpenSource describes."""
        self._notified.clear()
        if self._not_removed:
            await self.remove([])
        left_out = list(self._not_removed), list(held)
        with _translating():
            try:
                rows = await self._connection.fetch(
                    self._statements.read, *left_out, self._next_rows, BATCH_BYTES, self._limit_bytes
                )
            except (*_ROW_ERRORS, asyncpg.QueryCanceledError):  # the latter if it takes too long
                self._next_rows = 1
                oldest = await self._connection.fetchrow(self._statements.oldest, *left_out)
                return await self._read_one(oldest) if oldest else ()
        is_cut = 0 < len(rows) < self._next_rows and sum(row["size"] for row in rows) >= BATCH_BYTES
        twice = 2 * (len(rows) if is_cut else self._next_rows)
        self._next_rows = min(twice, self._options.batch_size)
        return [self._entry(row) for row in rows]

    async def _read_one(self, identity: asyncpg.Record) -> Sequence[SourceEntry]:
        """Read one row, so that what is wrong with it is its own problem, and that of no other row."""
        row_id, created_at = identity["id"], identity["created_at"]
        try:
            row = await self._connection.fetchrow(self._statements.read_one, row_id, self._limit_bytes)
        except _ROW_ERRORS as error:
            problem = f"PostgreSQL cannot read it: {_message(error)}"
            return [Row(str(row_id), "", "", problem=problem, row_id=row_id, created_at=created_at)]
        return [self._entry(row)] if row else ()

    async def remove(self, published: Sequence[SourceEntry]) -> Sequence[SourceEntry]:
        """Delete published rows, and those that could not be deleted before.

        A row that another transaction has locked stays. It is not read again on this connection.
        """
        rows = {row.row_id: row for row in published if isinstance(row, Row)}
        rows |= self._not_removed
        with _translating():
            deleted = await self._connection.fetch(self._statements.remove, *_identities(rows.values()))
            gone = {record["id"] for record in deleted}
            if left := rows.keys() - gone:
                existing = await self._connection.fetch(
                    self._statements.existing, *_identities(rows[row_id] for row_id in left)
                )
                gone |= left - {record["id"] for record in existing}
        self._not_removed = {
            row_id: structs.replace(row, data=None, binary_data=None, tags=None, options=None)
            for row_id, row in rows.items()
            if row_id not in gone
        }
        return [row for row_id, row in rows.items() if row_id in gone]

    async def fail(self, failures: Sequence[Failure]) -> int:
        """Set `failed_at` and `failure` of rows, after which they are not read."""
        rows = [failure.entry for failure in failures if isinstance(failure.entry, Row)]
        reasons = [_storable(failure.reason) for failure in failures]
        with _translating():
            return len(await self._connection.fetch(self._statements.fail, *_identities(rows), reasons))

    async def wait(self, seconds: float) -> None:
        """Wait for a notification, or for the end of the connection."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._notified.wait()

    async def unpublished(self) -> Unpublished:
        """Count the rows, up to COUNTED_ROWS."""
        with _translating():
            found = await self._connection.fetchrow(self._statements.unpublished, COUNTED_ROWS)
        waiting, lag = found or (0, None)
        return Unpublished(waiting, max(0.0, lag or 0.0))

    def _entry(self, row: asyncpg.Record) -> Row:
        # An id may be used again, after TRUNCATE … RESTART IDENTITY or a failover that lost the row.
        own_key = f"outbox:{self._table_id}:{row['id']}:{row['created_at']}"
        problem = "" if row["has_valid_time"] else "created_at is not in the years 1 to 9999"
        if row["size"] > self._limit_bytes:
            problem = too_large(row["size"], self._limit_bytes)
        return Row(
            str(row["id"]),
            row["channel"],
            row["idempotency_key"] or own_key,
            _encoded(row["data"]),
            row["binary_data"],
            _encoded(row["tags"]),
            _encoded(row["options"]),
            problem,
            row_id=row["id"],
            created_at=row["created_at"],
        )

    def _on_notification(self, *_arguments: object) -> None:
        self._notified.set()

    def _on_end(self, _connection: object) -> None:
        self._notified.set()  # the next statement raises


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _identities(rows: Iterable[Row]) -> tuple[list[int], list[str | None]]:
    pairs = [(row.row_id, row.created_at) for row in rows]
    return [row_id for row_id, _ in pairs], [created_at for _, created_at in pairs]


def _storable(reason: str) -> str:
    """A reason as any PostgreSQL can store it, with any encoding."""
    return reason.replace("\0", "?").encode(errors="replace").decode()


async def _close(connection: asyncpg.Connection[Any]) -> None:
    """Close a connection in any state, within CLOSE_SECONDS."""
    try:
        await connection.close(timeout=CLOSE_SECONDS)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        connection.terminate()
    except asyncio.CancelledError:
        connection.terminate()
        raise


@contextmanager
def _translating() -> Iterator[None]:
    """Raise SourceError in place of what asyncpg raises."""
    try:
        yield
    except asyncpg.UndefinedTableError as error:
        raise SourceError(f"{_message(error)}; `tocsin outbox` prints the SQL that creates it") from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise SourceError(_message(error)) from None
    except TimeoutError:
        raise SourceError("no answer in time") from None
    except OSError as error:
        raise SourceError(str(error) or type(error).__name__) from None
    except ValueError:  # its message may show a part of the URL
        raise SourceError("outbox.url is not a valid address") from None


def _message(error: BaseException) -> str:
    """The message of PostgreSQL without its details, which may show values of a row."""
    first = str(error.args[0]) if error.args else ""
    return first.partition("\n")[0].rstrip(".") or type(error).__name__
