"""The outbox with a real PostgreSQL: what is published, in which order, how often, and what fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence

import asyncpg
import pytest

from tests.server.node.faulty_engine import FaultyEngine
from tests.server.sources.outbox_table import OutboxTable, is_reading, published, until
from tests.support.postgres import PASSWORD, PostgresServer
from tests.support.timing import QUIET, TICK
from tocsin_server.config.source_options import OutboxOptions
from tocsin_server.errors import INTERNAL_ERROR, EngineError, EngineLimit
from tocsin_server.node.node import Node
from tocsin_server.sources import reader
from tocsin_server.sources.postgres.outbox import Outbox
from tocsin_server.sources.publishing import Outcome
from tocsin_server.sources.source import OpenSource


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that do not read try to sooner, and held channels are tried again sooner."""
    monkeypatch.setattr(reader, "STANDBY_SECONDS", 0.02)
    monkeypatch.setattr(reader, "HOLD_SECONDS", 0.02)
    monkeypatch.setattr(reader, "MAX_BACKOFF_SECONDS", 0.1)


async def test_rows_are_published_in_order_and_deleted(table: OutboxTable) -> None:
    """Those that were there before the node began, and those that follow."""
    await table.insert("log:a", 1, 2)
    async with table.read_by_node() as node:
        await table.insert("log:a", 3)
        await table.insert("log:b", 4)
        await table.until_empty()
        assert await published(node, "log:a") == [1, 2, 3]
        assert await published(node, "log:b") == [4]
    assert await table.count() == 0


async def test_a_commit_wakes_the_node(table: OutboxTable) -> None:
    """Without the notification the node would read after `poll_interval` only."""
    async with table.read_by_node(outbox={"poll_interval": 10}) as node:
        await until(lambda: is_reading(node))
        await asyncio.sleep(QUIET)
        for number in range(5):
            await table.insert("log:a", number)
            await table.until_empty()
        assert await published(node, "log:a") == [0, 1, 2, 3, 4]


async def test_a_rolled_back_transaction_publishes_nothing(table: OutboxTable) -> None:
    """Its rows never were."""
    async with table.read_by_node() as node:
        transaction = table.database.transaction()
        await transaction.start()
        await table.insert("log:a", 1)
        await transaction.rollback()
        await table.insert("log:a", 2)
        await table.until_empty()
        assert await published(node, "log:a") == [2]


async def test_a_row_that_becomes_visible_late_is_published(table: OutboxTable) -> None:
    """A transaction with a lower id commits after others. It is neither lost nor holds up the others."""
    async with table.read_by_node() as node, table.other_back_end() as other:
        transaction = other.transaction()
        await transaction.start()
        await table.insert("log:a", "late", database=other)
        await table.insert("log:a", 1, 2)
        await table.until_empty()
        await transaction.commit()
        await table.until_empty()
        await table.insert("log:a", 3)
        await table.until_empty()
        assert await published(node, "log:a") == [1, 2, "late", 3]


async def test_with_strict_order_a_channel_is_published_in_the_order_of_ids(table: OutboxTable) -> None:
    """A transaction that inserts into the same channel waits for the one before. Other channels do not."""
    await table.create(is_strict=True)
    async with table.read_by_node() as node, table.other_back_end() as other:
        transaction = other.transaction()
        await transaction.start()
        await table.insert("log:a", 1, database=other)
        waiting = asyncio.create_task(table.insert("log:a", 2))
        async with table.other_back_end() as third:
            await table.insert("log:b", 3, database=third)
        assert not waiting.done()
        await table.insert("log:a", 4, database=other)
        await transaction.commit()
        await waiting
        await table.until_empty()
        assert await published(node, "log:a") == [1, 4, 2]
        assert await published(node, "log:b") == [3]


async def test_concurrent_transactions_lose_and_repeat_nothing(table: OutboxTable) -> None:
    """Each back end's rows keep their order, in any order of the commits."""
    count, back_ends = 40, 5

    async def write(name: int) -> None:
        async with table.other_back_end() as database:
            for number in range(count):
                transaction = database.transaction()
                await transaction.start()
                await table.insert("log:a", [name, number], database=database)
                await asyncio.sleep(0)
                await (transaction.rollback() if number % 4 == 3 else transaction.commit())

    async with table.read_by_node() as node:
        await asyncio.gather(*map(write, range(back_ends)))
        await table.until_empty()
        found = await published(node, "log:a")
    for name in range(back_ends):
        assert [number for one, number in found if one == name] == [
            number for number in range(count) if number % 4 != 3
        ]


async def test_a_row_has_what_a_call_of_the_api_has(table: OutboxTable) -> None:
    """Tags, other bytes, options, and an idempotency key that the API shares."""
    await table.insert("log:a", 1, tags=json.dumps({"lang": "en"}), idempotency_key="k")
    await table.insert("log:a", 2, idempotency_key="k")
    await table.insert("log:a", 3, options=json.dumps({"skip_history": True}))
    await table.insert("log:a", 4, options=json.dumps({"version": 7, "version_epoch": "e"}))
    await table.insert("log:a", 5, options=json.dumps({"version": 6, "version_epoch": "e"}))
    await table.database.execute(
        f"INSERT INTO {table.name} (channel, binary_data) VALUES ('log:b', '\\x00ff'), ('log:b', '7')"
    )
    async with table.read_by_node() as node:
        await table.until_empty()
        page = await node.operations.history("log:a", -1, None, is_reverse=False)
        assert [bytes(one.data) for one in page.publications] == [b"1", b"4"]
        assert page.publications[0].tags == {"lang": "en"}
        page = await node.operations.history("log:b", -1, None, is_reverse=False)
        assert [bytes(one.data) for one in page.publications] == [b"\x00\xff", b"7"]
    assert await table.failures() == []


async def test_a_row_that_can_never_be_published_fails_and_holds_up_no_other(table: OutboxTable) -> None:
    """It stays in the table with the reason. Once it is corrected, it is published."""
    await table.insert("unknown:a", 1)
    await table.insert("log:a", 2, tags=json.dumps([1]))
    await table.insert("log:a", 3, options=json.dumps({"skip": True}))
    await table.insert("log:a", "x" * 2_000_000)
    await table.database.execute(f"INSERT INTO {table.name} (channel) VALUES ('log:a')")
    await table.insert("", 5)
    await table.insert("log:a", 4)
    async with table.read_by_node() as node:
        await table.until_empty()
        assert await published(node, "log:a") == [4]
        failures = await table.failures()
        assert [channel for channel, _ in failures] == ["unknown:a", "log:a", "log:a", "log:a", "log:a", ""]
        reasons = [reason for _, reason in failures]
        assert reasons[0] == "unknown channel"
        assert reasons[1].startswith("tags is no JSON object of strings")
        assert reasons[2].startswith("options is not valid")
        assert "at most api.body_limit_bytes (1048576) can be published" in reasons[3]
        assert reasons[4] == "it has neither data nor binary_data, and needs one of them"
        assert reasons[5] == "bad request: there is no channel"
        await table.database.execute(
            f"UPDATE {table.name} SET channel = 'log:b', failed_at = NULL WHERE channel = 'unknown:a'"
        )
        await table.until_empty()
        assert await published(node, "log:b") == [1]


async def test_a_row_for_a_channel_that_is_not_allowed_fails(table: OutboxTable) -> None:
    """It stays in the table with the reason."""
    await table.insert("log:secret", 1)
    await table.insert("log:a", 2)
    async with table.read_by_node(outbox={"channels": ["log:?", "chat:*"]}) as node:
        await table.until_empty()
        assert await published(node, "log:a") == [2]
        assert await published(node, "log:secret") == []
    assert await table.failures() == [("log:secret", "its channel is not one of outbox.channels")]


async def test_a_channel_that_cannot_take_a_row_now_holds_up_no_other(table: OutboxTable) -> None:
    """Its rows stay in order until it can."""
    engine = FaultyEngine()
    await table.insert("log:full", 1, 2, 3)
    await table.insert("log:a", *range(5))
    refused = {"count": 0}
    original = engine.before_call

    async def refuse(name: str) -> None:
        await original(name)
        if name == "publish" and refused["count"] < 4:
            refused["count"] += 1
            raise (
                EngineLimit("engine.memory_limit", INTERNAL_ERROR)
                if refused["count"] % 2
                else EngineError("x")
            )

    engine.before_call = refuse  # type: ignore[method-assign]
    async with table.read_by_node(engine, outbox={"batch_size": 2}) as node:
        await table.until_empty()
        assert await published(node, "log:full") == [1, 2, 3]
        assert await published(node, "log:a") == [0, 1, 2, 3, 4]
    assert refused["count"] == 4


async def test_a_row_that_another_transaction_has_locked_is_published_once(table: OutboxTable) -> None:
    """It is deleted once it is free, and the rows after it do not wait for that."""
    await table.insert("log:a", 1, 2)
    async with table.other_back_end() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute(f"SELECT FROM {table.name} WHERE data = '1' FOR UPDATE")
        async with table.read_by_node() as node:
            await until_published(node, [1, 2])
            await table.insert("log:a", 3)
            await until_published(node, [1, 2, 3])
            await table.until_empty("data <> '1'")
            assert await table.count() == 1
            await transaction.rollback()
            await table.until_empty()
            assert await published(node, "log:a") == [1, 2, 3]


async def until_published(node: Node, expected: Sequence[object]) -> None:
    found: list[object] = []

    async def read() -> None:
        while found != expected:
            found[:] = await published(node, "log:a")
            await asyncio.sleep(0.005)

    await asyncio.wait_for(read(), 30)


async def test_ten_thousand_rows_are_read_in_bounded_batches(
    table: OutboxTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded in rows and in bytes, and published in order."""
    sizes = []
    settle = reader.SourceReader._settle

    async def record(self: reader.SourceReader, opened: OpenSource, outcome: Outcome) -> int:
        sizes.append(sum(len(entry.data or b"") for entry in outcome.published))
        counts.append(len(outcome.published))
        return await settle(self, opened, outcome)

    counts: list[int] = []
    monkeypatch.setattr(reader.SourceReader, "_settle", record)
    monkeypatch.setattr("tocsin_server.sources.postgres.outbox.BATCH_BYTES", 500_000)
    await table.database.execute(
        f"INSERT INTO {table.name} (channel, data) "
        "SELECT 'log:' || n % 3, to_jsonb(n) FROM generate_series(0, 9999) AS n"
    )
    await table.insert("log:large", *("x" * 200_000 for _ in range(12)))
    async with table.read_by_node() as node:
        await table.until_empty()
        for rest in range(3):
            assert await published(node, f"log:{rest}") == [*range(rest, 10_000, 3)]
        assert len(await published(node, "log:large")) == 12
    assert max(counts) == 500
    assert max(sizes) < 800_000


async def test_a_node_goes_on_when_postgres_is_back(table: OutboxTable, postgres: PostgresServer) -> None:
    """It warns in the meantime, and neither loses nor repeats a row."""
    async with table.read_by_node() as node:
        await table.insert("log:a", 1)
        await table.until_empty()
        postgres.stop("immediate")
        await until(lambda: node.warnings)
        assert node.warnings[0].startswith("The outbox cannot be read: ")
        assert PASSWORD not in node.warnings[0]
        assert not node.unready_reason
        postgres.start()
        async with table.other_back_end() as database:
            table.database = database
            await table.insert("log:a", 2)
            await table.until_empty()
            assert await published(node, "log:a") == [1, 2]
        await until(lambda: not node.warnings)


async def test_a_standby_is_refused_until_it_is_the_primary(
    table: OutboxTable, postgres: PostgresServer
) -> None:
    """As after a failover. Its locks would not be those of the primary, and no row could be deleted there."""
    await table.insert("log:a", 1)
    postgres.stop()
    postgres.start_as_standby()
    async with table.read_by_node() as node:
        await until(lambda: node.warnings)
        assert "cannot be read: the server is a standby" in node.warnings[0]
        postgres.promote()
        async with table.other_back_end() as database:
            table.database = database
            await table.until_empty()
            assert await published(node, "log:a") == [1]


async def test_a_node_that_stops_deletes_what_it_has_published(table: OutboxTable) -> None:
    """The batch that is being published is finished first."""
    engine = FaultyEngine()
    publishing = engine.block("publish")
    await table.insert("log:a", 1, 2)
    async with table.read_by_node(engine):
        await until(lambda: engine.calls["publish"])
        asyncio.get_running_loop().call_later(TICK, publishing.set)
    assert engine.calls["publish"] == 2
    assert await table.count() == 0


async def test_a_role_without_a_privilege_is_a_warning(table: OutboxTable) -> None:
    """It names the privilege."""
    await table.database.execute(
        f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT, UPDATE ON {table.name} TO reader"
    )
    table.url = table.url.replace("//tests:", "//reader:")
    async with table.read_by_node() as node:
        await until(lambda: node.warnings)
        assert list(node.warnings) == [
            f"The outbox cannot be read: its role needs the privilege DELETE on {table.name}."
        ]


async def test_one_node_reads_and_another_follows_it(table: OutboxTable) -> None:
    """A node that cannot publish, because it is deaf or drains, lets another one read."""
    engine = FaultyEngine()
    async with table.read_by_node(engine) as first:
        await until(lambda: is_reading(first))
        async with table.read_by_node() as second:
            await table.insert("log:a", 1)
            await table.until_empty()
            assert not is_reading(second)
            engine.forced_unready_reason = "The node is deaf."
            await until(lambda: is_reading(second))
            assert not is_reading(first)
            await table.insert("log:a", 2)
            await table.until_empty()
            assert await published(second, "log:a") == [2]
        engine.forced_unready_reason = ""
        await until(lambda: is_reading(first))


async def test_a_node_that_hangs_is_followed(table: OutboxTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL ends its session, and with it the lock."""
    idle_seconds = "tocsin_server.sources.postgres.outbox.IDLE_SECONDS"
    monkeypatch.setattr(reader, "STOP_SECONDS", TICK)
    engine = FaultyEngine()
    publishing = engine.block("publish")
    await table.insert("log:a", 1)
    async with contextlib.AsyncExitStack() as stack:
        with monkeypatch.context() as patched:
            patched.setattr(idle_seconds, TICK)
            await stack.enter_async_context(table.read_by_node(engine))
            await until(lambda: engine.calls["publish"])
        async with table.read_by_node() as second:
            await table.until_empty()
            assert await published(second, "log:a") == [1]
        publishing.set()


async def test_a_table_that_is_missing_is_a_warning_with_its_remedy(postgres: PostgresServer) -> None:
    """The node serves its clients all the same."""
    async with OutboxTable(postgres.url, "missing", None).read_by_node() as node:
        await until(lambda: node.warnings)
        (warning,) = node.warnings
        assert warning.startswith('The outbox cannot be read: relation "missing" does not exist; `tocsin')


async def test_a_wrong_password_is_not_logged(table: OutboxTable, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the wrong one nor the address."""
    table.url = table.url.replace(PASSWORD, "mistaken-password")
    async with table.read_by_node() as node:
        await until(lambda: node.warnings)
        assert list(node.warnings) == [
            'The outbox cannot be read: password authentication failed for user "tests".'
        ]
    captured = capsys.readouterr()
    assert "source_not_available" in captured.out + captured.err
    assert "mistaken-password" not in captured.out + captured.err


async def test_rows_whose_ids_are_used_again_are_published(
    table: OutboxTable, database: asyncpg.Connection
) -> None:
    """As after TRUNCATE … RESTART IDENTITY: the engine remembers the keys of the former rows."""
    async with table.read_by_node() as node:
        await table.insert("log:a", 1)
        await table.until_empty()
        await database.execute(f"TRUNCATE {table.name} RESTART IDENTITY")
        await table.insert("log:a", 2)
        await table.until_empty()
        assert await published(node, "log:a") == [1, 2]


@pytest.mark.parametrize("time", ["infinity", "-infinity", "0044-03-15 BC", "20000-01-01"])
async def test_a_row_with_a_time_that_python_does_not_have_fails_alone(
    table: OutboxTable, database: asyncpg.Connection, time: str
) -> None:
    """The table refuses it. In a table without that check, it is put aside."""
    row = f"INSERT INTO {table.name} (channel, data, created_at) VALUES ('log:a', '1', '{time}')"
    with pytest.raises(asyncpg.CheckViolationError):
        await database.execute(row)
    await database.execute(f"ALTER TABLE {table.name} DROP CONSTRAINT {table.name}_created_at_check")
    await database.execute(row)
    await table.insert("log:a", 2)
    async with table.read_by_node() as node:
        await table.until_empty()
        assert await published(node, "log:a") == [2]
    assert await table.failures() == [("log:a", "created_at is not in the years 1 to 9999")]


async def test_text_that_is_not_utf_8_fails_its_row_alone(
    postgres: PostgresServer, database: asyncpg.Connection
) -> None:
    """A database without an encoding takes any bytes, which PostgreSQL then refuses to send."""
    await database.execute("CREATE DATABASE plain ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'")
    url = postgres.url.rpartition("/")[0] + "/plain"
    plain = await asyncpg.connect(url)
    table = OutboxTable(url, "outbox", plain)
    try:
        await table.create()
        await plain.execute("INSERT INTO outbox (channel, data) VALUES (E'log:\\xff', '1'), ('log:a', '2')")
        async with table.read_by_node() as node:
            await table.until_empty()
            assert await published(node, "log:a") == [2]
        reason = await plain.fetchval("SELECT failure FROM outbox WHERE failed_at IS NOT NULL")
        assert reason == 'PostgreSQL cannot read it: invalid byte sequence for encoding "UTF8": 0xff'
    finally:
        await plain.close()


async def test_an_id_that_is_used_again_before_its_row_is_deleted_is_published(
    table: OutboxTable, database: asyncpg.Connection
) -> None:
    """As by TRUNCATE … RESTART IDENTITY, after the former row was read: only its time is another one."""
    options = OutboxOptions(url=table.url, table=table.name)
    await table.insert("log:a", 1)
    async with Outbox(options, 1_000_000).opened() as opened:
        assert await opened.claim()
        former = await opened.read(())
        await database.execute(f"TRUNCATE {table.name} RESTART IDENTITY")
        await table.insert("log:a", 2)
        assert await opened.remove(former) == former
        (row,) = await opened.read(())
        assert (row.id, row.data) == (former[0].id, b"2")
