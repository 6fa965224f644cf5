"""docs/outbox.md: its SQL, its applications with Django and SQLAlchemy, and its XADD, with a real node."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.docs.examples import page
from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.server.sources.outbox_table import OutboxTable, published, until
from tests.support.postgres import PostgresServer, postgres_running
from tests.support.timing import STARTED
from tocsin_server.node.node import Node
from tocsin_server.sources.postgres.schema import schema

PAGE = page("outbox.md")
SQL = [example.text for example in PAGE.of("sql")]
CHAT = {"chat": {"history_size": 100, "history_ttl": "300s"}}

DJANGO = """
import sys
from urllib.parse import urlsplit

import django
from django.conf import settings

url = urlsplit(sys.argv[1])
database = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": url.path[1:], "USER": url.username, "PASSWORD": url.password,
    "HOST": url.hostname, "PORT": url.port,
}
settings.configure(DATABASES={"default": database}, INSTALLED_APPS=[])
django.setup()

from django.db import models

from django_outbox import save


class Message(models.Model):
    room = models.IntegerField()
    text = models.TextField()

    class Meta:
        app_label = "outbox"
        db_table = "messages"


save(Message(room=1, text="from Django"))
try:
    save(Message(room=1, text=None))
except django.db.IntegrityError:
    pass
"""

SQLALCHEMY = """
import sys

from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from sqlalchemy_outbox import Base, save


class Message(Base):
    __tablename__ = "messages"
    id: Mapped[int] = mapped_column(primary_key=True)
    room: Mapped[int]
    text: Mapped[str]


engine = create_engine(sys.argv[1].replace("postgresql:", "postgresql+psycopg:"))
with Session(engine) as session:
    save(session, Message(room=1, text="from SQLAlchemy"))
try:
    with Session(engine) as session:
        save(session, Message(room=1, text=None))
except IntegrityError:
    pass
engine.dispose()
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_running() as server:
        yield server


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_running(tmp_path_factory.mktemp("redis"), "appendonly no") as server:
        yield server


@pytest.fixture
async def table(postgres: PostgresServer) -> AsyncIterator[OutboxTable]:
    """The outbox of the page, and the table of its application."""
    database = await asyncpg.connect(postgres.url)
    await database.execute("DROP TABLE IF EXISTS messages, tocsin_outbox")
    await database.execute(
        "CREATE TABLE messages (id serial PRIMARY KEY, room integer NOT NULL, text text NOT NULL)"
    )
    await database.execute(SQL[0])
    yield OutboxTable(postgres.url, "tocsin_outbox", database)
    await database.close()


def run(folder: Path, program: str, url: str) -> None:
    """Run a program beside the files of the page."""
    PAGE.write_files(folder, {})
    (folder / "main.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "main.py", url],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=STARTED,
        check=False,
    )
    assert done.returncode == 0, done.stderr


async def texts_in(node: Node) -> list[str]:
    return [one["text"] for one in await published(node, "chat:1")]


def test_the_page_has_the_schema_that_the_command_prints() -> None:
    assert SQL[0] == schema("tocsin_outbox")


async def test_the_transactions_of_the_page_publish_on_commit(table: OutboxTable, tmp_path: Path) -> None:
    """One in SQL, one in Django, one in SQLAlchemy. Those that fail publish nothing."""
    async with table.read_by_node(namespaces=CHAT) as node:
        await table.database.execute(SQL[1])
        await table.until_empty()
        run(tmp_path, DJANGO, table.url)
        await table.until_empty()
        run(tmp_path, SQLALCHEMY, table.url)
        await table.until_empty()
        assert await texts_in(node) == ["hello", "from Django", "from SQLAlchemy"]
        stored = await table.database.fetch("SELECT text FROM messages ORDER BY id")
        assert [row["text"] for row in stored] == ["hello", "from Django", "from SQLAlchemy"]


async def test_the_commands_of_the_page_add_to_the_stream(
    table: OutboxTable, redis_server: RedisServer, tmp_path: Path
) -> None:
    """With redis-cli and with Python, as a user who may do nothing else."""
    (acl,) = [one for one in PAGE.text.split("```") if one.strip().startswith("ACL SETUSER backend")]
    redis_server.command(*acl.replace(">PASSWORD", "nopass").split())
    user = ["--user", "backend", "--pass", "any"]
    (command,) = [one.text for one in PAGE.of("sh") if one.text.startswith("redis-cli")]
    command = command.replace(
        "redis-cli", f"redis-cli -p {redis_server.port} --no-auth-warning {' '.join(user)}"
    )
    shell = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.DEVNULL)
    assert await shell.wait() == 0
    (program,) = [one.text for one in PAGE.of("python") if "xadd" in one.text]
    credentials = f'port={redis_server.port}, username="backend", password="any"'
    run(tmp_path, program.replace("redis.Redis()", f"redis.Redis({credentials})"), "")
    async with table.read_by_node(
        outbox={"url": ""},
        engine={"url": redis_server.url},
        publish_stream={"enabled": True},
        namespaces=CHAT,
    ) as node:
        await until(lambda: node.metrics.source_publications.counts["publish_stream",] == 2)
        assert await texts_in(node) == ["hello", "hello"]
