"""`tocsin check-config`: what it prints about a valid and about an invalid configuration."""

import datetime as dt
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from tests.server.conftest import new_certificate
from tests.server.engine.redis.certificates import write_certificate
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
    file.write_text("[api]\nbody_limit_bytes = 8000000\n[client]\nmessage_limit_bytes = 4096\n")
    result = CliRunner().invoke(command, ["--config", str(file)])
    assert result.exit_code == 1
    assert [line.split()[0] for line in result.stderr.splitlines()] == [
        "client.message_limit_bytes",
        "client.queue_limit_bytes",
    ]


@pytest.fixture
def port() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def problems(command: Typer, file: Path, text: str, *flags: str) -> list[str]:
    """The sentences about a configuration that is not valid."""
    file.write_text(text)
    result = CliRunner().invoke(command, ["--config", str(file), *flags])
    assert (result.exit_code, result.stdout) == (1, "")
    return result.stderr.splitlines()


def test_files_that_the_engine_url_names_are_read(file: Path, command: Typer, tmp_path: Path) -> None:
    """Each one that cannot be used has a sentence, and so does a certificate with another key."""
    certificate, key = write_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, other_key = write_certificate(tmp_path / "other")
    url = f"rediss://h?ssl_ca_certs={certificate}&ssl_certfile={certificate}&ssl_keyfile={key}"
    file.write_text(f'[engine]\nurl = "{url}"\n')
    assert CliRunner().invoke(command, ["--config", str(file)]).exit_code == 0
    assert problems(command, file, '[engine]\nurl = "rediss://h?ssl_ca_certs=/nowhere&ssl_keyfile=/"\n') == [
        "engine.url has ssl_ca_certs=/nowhere, but that file cannot be read: No such file or directory.",
        "engine.url has ssl_keyfile=/, but that file cannot be read: Is a directory.",
    ]
    assert problems(
        command, file, f'[engine]\nurl = "rediss://h?ssl_ca_certs={key}&ssl_keyfile={key}"\n'
    ) == [
        f"engine.url has ssl_ca_certs={key}, but that file has no certificates in PEM form.",
        "engine.url has ssl_keyfile, but no ssl_certfile: a key is of no use without its certificate.",
    ]
    pair = f"ssl_certfile={certificate}&ssl_keyfile={other_key}"
    (sentence,) = problems(command, file, f'[engine]\nurl = "rediss://h?{pair}"\n')
    assert sentence == (
        f"engine.url has {pair.replace('&', ' and ')}, "
        "but that is not a certificate and its private key in PEM form."
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_this_machine_does_not_have_is_named(file: Path, command: Typer, host: str) -> None:
    """No machine has an address of 192.0.2.0/24 (RFC 5737)."""
    (sentence,) = problems(command, file, f'[server]\nhost = "{host}"\n')
    assert sentence.startswith(f"server.host and server.port cannot be used: Cannot listen on {host}:")


def test_a_port_in_use_is_an_error_only_of_a_live_check(file: Path, command: Typer, port: int) -> None:
    """While the server runs, its port is in use, and its configuration is valid."""
    text = f"[server]\nport = {port}\n"
    file.write_text(text)
    assert CliRunner().invoke(command, ["--config", str(file)]).exit_code == 0
    (sentence,) = problems(command, file, text, "--live")
    assert sentence == (
        "server.host and server.port cannot be used: "
        f"Cannot listen on 127.0.0.1:{port}: Address already in use."
    )


def test_a_unix_socket_needs_its_directory(file: Path, command: Typer, tmp_path: Path) -> None:
    """The socket itself is not made, because it may be that of a running server."""
    file.write_text(f'[server]\nhost = "unix:{tmp_path}/tocsin.sock"\nname = "a"\n')
    assert CliRunner().invoke(command, ["--config", str(file)]).exit_code == 0
    assert not (tmp_path / "tocsin.sock").exists()
    (sentence,) = problems(command, file, '[server]\nhost = "unix:/nowhere/tocsin.sock"\nname = "a"\n')
    assert sentence.startswith("server.host has unix:/nowhere/tocsin.sock, but its directory")


def test_a_redis_that_cannot_be_used_is_an_error_of_a_live_check(
    file: Path, command: Typer, port: int
) -> None:
    """The URL is valid, so that only the connection shows it."""
    text = (
        f'[server]\nport = 0\n[engine]\nurl = "rediss://:hush@127.0.0.1:{port + 1 if port < 65535 else 1}"\n'
    )
    file.write_text(text)
    assert CliRunner().invoke(command, ["--config", str(file)]).exit_code == 0
    (sentence,) = problems(command, file, text, "--live")
    assert sentence.startswith("engine.url cannot be used: Redis at 127.0.0.1:")
    assert "hush" not in sentence


def test_a_live_check_succeeds_where_the_server_would_start(file: Path, command: Typer) -> None:
    file.write_text("[server]\nport = 0\n")
    result = CliRunner().invoke(command, ["--config", str(file), "--live"])
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "ok")


def test_files_of_the_certificate_are_read(file: Path, command: Typer, tmp_path: Path) -> None:
    """They must be readable, a pair, and not expired. What is reachable is printed."""

    def run(certificate: Path, key: Path | str) -> tuple[int, str, str]:
        file.write_text(f'[server]\nport = 0\ntls_certificate = "{certificate}"\ntls_key = "{key}"\n')
        result = CliRunner().invoke(command, ["--config", str(file)])
        return result.exit_code, result.stdout, result.stderr

    names = tmp_path / "tls.crt", tmp_path / "tls.key"
    new_certificate(str(names[0]), str(names[1]))
    code, printed, _ = run(*names)
    assert code == 0
    assert "https://127.0.0.1 serves connections, " in printed
    assert run(names[0], "")[::2] == (
        1,
        "server.tls_certificate is set, but not server.tls_key: TLS needs both.\n",
    )
    assert run(tmp_path / "none", names[1])[2].startswith(
        f"server.tls_certificate is {tmp_path / 'none'}, but "
    )
    new_certificate(str(tmp_path / "other.crt"), str(tmp_path / "other.key"))
    assert "but that is no certificate and its private key" in run(names[0], tmp_path / "other.key")[2]
    new_certificate(str(names[0]), str(names[1]), lifetime=dt.timedelta(days=-1))
    assert run(*names)[2] == (f"server.tls_certificate is {names[0]}, but that certificate has expired.\n")


def test_the_separate_address_must_be_free(file: Path, command: Typer) -> None:
    file.write_text('[admin]\nhost = "192.0.2.1"\n')
    result = CliRunner().invoke(command, ["--config", str(file)])
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "admin.host and admin.port cannot be used: Cannot listen on 192.0.2.1:8001"
    )
