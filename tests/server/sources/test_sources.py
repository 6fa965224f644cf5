"""Which sources a node has, and what they cost where there are none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

from tests.server.sources.outbox_table import OutboxTable
from tests.support.timing import STARTED
from tocsin_server.app import create_app
from tocsin_server.cli.check_config import check_config
from tocsin_server.cli.outbox import outbox
from tocsin_server.config.errors import ConfigError
from tocsin_server.config.loading import Settings, load_settings
from tocsin_server.sources import sources
from tocsin_server.sources.postgres.schema import schema

URL = "postgresql://tocsin@db.example/app"


def test_a_node_without_sources_has_nothing_of_them() -> None:
    """No reader, and the package of the outbox is not imported."""
    node = create_app(Settings()).state.node
    assert not any("SourceReader" in str(context) for context in node.services._contexts)
    program = "import sys, tocsin_server.app; sys.exit('asyncpg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=STARTED, check=False).returncode == 0


def without_asyncpg(name: str) -> None:
    assert name == "asyncpg"


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `check-config`, by `serve`, and to the application that embeds the node."""
    monkeypatch.setattr(sources, "find_spec", without_asyncpg)
    sentence = "outbox.url is set, but asyncpg is not installed: pip install 'tocsin[server,postgres]'."
    with pytest.raises(ConfigError) as raised:
        create_app(Settings.model_validate({"outbox": {"url": URL}}))
    assert raised.value.problems == (sentence,)
    file = tmp_path / "tocsin.toml"
    file.write_text(f'[outbox]\nurl = "{URL}"\n')
    assert checked(file) == sentence + "\n"


def checked(file: Path, *flags: str) -> str:
    """What `tocsin check-config` says is wrong."""
    app = Typer()
    app.command()(check_config)
    return CliRunner().invoke(app, ["--config", str(file), *flags]).stderr


async def test_a_live_check_connects_to_the_outbox(table: OutboxTable) -> None:
    """`check-config --live` prints the sentence."""
    for name, problems in (
        (table.name, []),
        ("missing", ['outbox.url cannot be used: relation "missing" does not exist']),
    ):
        settings = Settings.model_validate({"outbox": {"url": table.url, "table": name}})
        found = await sources.outbox_problems(settings)
        assert [one.partition(";")[0] for one in found] == problems
    assert await sources.outbox_problems(Settings()) == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"url": "mysql://user:hidden@host"}, "outbox.url in {file} must be"),
        ({"url": "postgresql://user:hidden/@host/app"}, "outbox.url in {file} must be"),
        ({"url": "postgresql://user:[hidden@host:a/app"}, "outbox.url in {file} must be"),
        ({"url": URL, "table": "a; b"}, 'outbox.table is "a; b" in {file}, but must be the name of a table'),
        ({"poll_interval": "1h"}, "outbox.poll_interval is 3600.0 in {file}, but must be at most 10"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_a_sentence(tmp_path: Path, values: dict[str, str], sentence: str) -> None:
    """Without the URL, which may have a password."""
    file = tmp_path / "tocsin.toml"
    file.write_text("[outbox]\n" + "".join(f'{key} = "{value}"\n' for key, value in values.items()))
    with pytest.raises(ConfigError) as raised:
        load_settings(file)
    (problem,) = raised.value.problems
    assert problem.startswith(sentence.replace("{file}", str(file)))
    assert "hidden" not in problem


@pytest.mark.parametrize("flags", [{}, {"table": "app.outbox"}, {"is_strict": True}])
def test_the_command_prints_the_schema(flags: dict[str, Any]) -> None:
    app = Typer()
    app.command()(outbox)
    arguments = ["--strict-order"] if flags.get("is_strict") else []
    arguments += ["--table", flags["table"]] if "table" in flags else []
    printed = CliRunner().invoke(app, arguments)
    assert printed.stdout == schema(**{"table": "tocsin_outbox", **flags})


def test_the_command_refuses_what_is_no_name() -> None:
    app = Typer()
    app.command()(outbox)
    refused = CliRunner().invoke(app, ["--table", "a; DROP TABLE b"])
    assert refused.exit_code == 2
    assert refused.stdout == ""
