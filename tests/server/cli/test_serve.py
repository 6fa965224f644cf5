"""`tocsin serve` as a command: its output, and its exit code when it cannot start."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.command_line import tocsin
from tests.support.server import TOCSIN, run_server
from tests.support.timing import STARTED


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [str(TOCSIN), "serve", *arguments]
    environment = {"PATH": "/usr/bin:/bin", "NO_COLOR": "1", "COLUMNS": "120", "TERM": "dumb"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=STARTED, check=False, env=environment
    )


def test_help_names_every_flag() -> None:
    code, lines, _ = tocsin("serve", "--help")
    assert code == 0
    text = "\n".join(lines)
    for flag in (
        "--host",
        "--port",
        "--config",
        "--engine",
        "--workers",
        "--insecure",
        "--ui",
        "--log-level",
    ):
        assert flag in text
    assert "WebSocket, Server-Sent Events and the HTTP API on one port" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bogus"], "No such option: --bogus"),
        (["--port", "many"], "Invalid value for '--port'"),
        (["--workers", "0"], "Invalid value for '--workers'"),
        (["extra"], "unexpected extra argument"),
    ],
)
def test_an_invalid_flag_is_a_usage_error(arguments: list[str], said: str) -> None:
    """The exit code is 2, and the message names the flag."""
    code, lines, errors = tocsin("serve", *arguments)
    assert (code, lines) == (2, [])
    assert said in errors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--workers", "2"],
            (
                "--workers 2 needs an engine that the workers share, but memory:// belongs to one process: "
                "set engine.url to a redis:// URL, or use --workers 1."
            ),
        ),
        (["--log-level", "loud"], "--log-level is loud, but must be debug, info, warning or error."),
        (["--port", "99999"], "server.port is 99999 in a flag, but must be at most 65535."),
        (
            ["--config", "nowhere.toml"],
            "The configuration file nowhere.toml cannot be read: No such file or directory.",
        ),
    ],
)
def test_a_start_that_fails_prints_one_sentence(arguments: list[str], sentence: str) -> None:
    """The sentence goes to standard error, and the exit code is 1."""
    result = run(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"{sentence}\n")


def test_a_missing_certificate_is_named_at_start() -> None:
    """Before the node connects to Redis, whose error would not name the file."""
    result = run("--engine", "rediss://127.0.0.1:1?ssl_ca_certs=/nowhere")
    sentence = (
        "engine.url has ssl_ca_certs=/nowhere, but that file cannot be read: No such file or directory."
    )
    assert (result.returncode, result.stderr) == (1, f"{sentence}\n")


def test_limits_that_do_not_agree_are_printed_at_start(tmp_path: Path) -> None:
    """The server starts, because it works as long as no client reaches them."""
    config = {"server": {"drain_seconds": 0}, "api": {"body_limit_bytes": 8_000_000}}
    with run_server(config, tmp_path) as server:
        pass
    assert "client.queue_limit_bytes is 2097152, but must be at least 8065536" in server.stderr


def test_an_unknown_engine_is_refused_without_showing_its_password() -> None:
    result = run("--engine", "nats://user:hush@example")
    assert result.returncode == 1
    assert result.stderr.startswith("engine.url")
    assert result.stderr.count("\n") == 1
    assert "hush" not in result.stderr


@pytest.mark.parametrize("level", ["info", "error"])
def test_a_port_in_use_prints_one_sentence(level: str) -> None:
    """It follows the startup notices. There is no traceback and no log line, and the exit code is 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("--port", str(port), "--insecure", "--log-level", level)
    lines = [line for line in result.stderr.splitlines() if "INSECURE" not in line]
    assert result.returncode == 1
    assert lines[-1] == f"Cannot listen on 127.0.0.1:{port}: Address already in use."
    assert not [line for line in lines if line.startswith(("{", "Traceback"))]
    assert result.stdout == ""


def test_a_foreign_address_prints_one_sentence() -> None:
    """No machine has an address of 192.0.2.0/24 (RFC 5737)."""
    result = run("--host", "192.0.2.1", "--port", "0")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("Cannot listen on 192.0.2.1:0: ")
    assert "Traceback" not in result.stderr


def test_a_safe_start_prints_which_keys_to_set(tmp_path: Path) -> None:
    """The notices come first, on standard error. Only the address goes to standard output."""
    with run_server({"server": {"drain_seconds": 0}}, tmp_path) as server:
        assert httpx.get(f"{server.url}/health/live", trust_env=False).status_code == 200
        assert httpx.post(f"{server.api_url}/info", json={}, trust_env=False).status_code == 401
        assert httpx.get(server.url, trust_env=False).status_code == 404
    notices = [line for line in server.stderr.splitlines() if not line.startswith("{")]
    for key in (
        "client.token_hmac_secret",
        "allow_subscribe_for_client",
        "server.allowed_origins",
        "api.keys",
    ):
        assert any(f"set {key}" in line for line in notices), key
    assert server.stderr.startswith(notices[0])


def test_insecure_prints_a_loud_warning(tmp_path: Path) -> None:
    """It opens the API without a key. Pages of this machine may connect, and no others."""
    with run_server({"server": {"drain_seconds": 0}}, tmp_path, "--insecure") as server:
        answer = httpx.post(f"{server.api_url}/info", json={}, trust_env=False)
        assert answer.status_code == 200
        assert len(answer.json()["result"]["nodes"]) == 1
        for origin, status in (("http://localhost:3000", 400), ("https://anywhere.example", 403)):
            headers = {"Origin": origin}
            stream = httpx.get(f"{server.url}/events?channels=a", headers=headers, trust_env=False)
            assert stream.status_code == status, "400: the parameter is unknown"
            assert stream.headers.get("access-control-allow-origin") == (origin if status == 400 else None)
            call = httpx.post(f"{server.api_url}/info", json={}, headers=headers, trust_env=False)
            assert call.status_code == 403
    assert server.stderr.count("INSECURE") == 2


def test_ui_serves_the_page_which_may_connect(tmp_path: Path) -> None:
    """`--ui` alone allows pages of this server's own origin. A configured list stays unchanged."""
    origins: list[str]
    for origins, status in (([], 204), (["https://app.example"], 403)):
        config = {"server": {"drain_seconds": 0, "allowed_origins": origins}}
        with run_server(config, tmp_path, "--ui") as server:
            page = httpx.get(server.url, trust_env=False)
            assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            preflight = httpx.options(
                f"{server.url}/events?channel=a",
                headers={"Origin": server.url, "Access-Control-Request-Method": "GET"},
                trust_env=False,
            )
            assert preflight.status_code == status
