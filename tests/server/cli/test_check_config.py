"""`tocsin check-config`: what it prints about a valid and about an invalid configuration."""

from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from tocsin_server.cli.check_config import check_config

SECRET = "hush-hush-hush-hush-hush-hush-32"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tocsin.toml"


@pytest.fixture
def command() -> Typer:
    app = Typer()
    app.command()(check_config)
    return app


def test_a_valid_configuration_prints_ok_and_its_exposure(file: Path, command: Typer) -> None:
    """One line for each way to reach the node."""
    file.write_text(f'[client]\ntoken_hmac_secret = "{SECRET}"\n[api]\nkeys = ["a", "b"]\n')
    result = CliRunner().invoke(command, ["--config", str(file)])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "ok"
    assert "clients: need a token" in result.stdout
    assert "HTTP API: needs one of 2 keys" in result.stdout


def test_an_invalid_configuration_prints_each_error_and_fails(file: Path, command: Typer) -> None:
    """Errors go to standard error, and standard output stays empty."""
    file.write_text("[server]\nport = -1\n[api]\nkey = 5\n")
    result = CliRunner().invoke(command, ["--config", str(file)])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["server.port", "api.key"]


def test_options_that_do_not_agree_are_an_error(file: Path, command: Typer) -> None:
    """Each is valid by itself."""
    file.write_text("[api]\nbody_limit_bytes = 8000000\n[client]\nchannel_limit = 1000\n")
    result = CliRunner().invoke(command, ["--config", str(file)])
    assert result.exit_code == 1
    assert [line.split()[0] for line in result.stderr.splitlines()] == [
        "client.message_limit_bytes",
        "client.queue_limit_bytes",
    ]
