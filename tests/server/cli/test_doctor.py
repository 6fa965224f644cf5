"""What `tocsin doctor` finds in a configuration, on this machine and in Redis."""

import json
import os
import resource
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.faults.clock_faults import MALLOC, Clock
from tests.server.engine.redis.redis_server import redis_running
from tests.support.server import TOCSIN, as_toml
from tests.support.timing import STARTED
from tocsin_server.cli import doctor
from tocsin_server.config.weak_secrets import KEY_BYTES, SECRET_BYTES, weakness

SECRET = "rZ4m0xkQvTzLmW8sYb2nCq7dEf5gHj9uPaXo3iRt"
TOP = Path(__file__).parents[3]
DOCUMENTED = {
    "configuration.md": ("at least 32 bytes; better set in the environment", "a long random text"),
    "http-api.md": ("secret", "a key of the news desk", "a secret of the back end"),
    "tokens.md": ("at least 32 bytes that only you know",),
    "tutorial.md": ("a-key-of-your-own",),
}
"""Secrets and API keys of the documents, by page."""
GOOD: Mapping[str, Any] = {
    "server": {"allowed_origins": ["https://app.example"]},
    "client": {"token_hmac_secret": SECRET},
    "api": {"keys": ["kQvTzLmW8sYb2nCq7dEf5gHj"]},
}


def found(directory: Path, config: Mapping[str, Any], connections: int = 10) -> dict[str, str]:
    """The level of each check. Every finding that is not ok has a fix, and none repeats a secret."""
    file = directory / "tocsin.toml"
    file.write_text(as_toml(config))
    findings = list(doctor.findings(file, connections))
    assert all(finding["fix"] for finding in findings if finding["level"] != "ok")
    assert SECRET not in str(findings)
    levels: dict[str, str] = {}
    for finding in findings:
        if levels.get(finding["check"], "ok") == "ok":
            levels[finding["check"]] = finding["level"]
    return levels


def test_a_good_configuration_has_no_errors(tmp_path: Path) -> None:
    levels = found(tmp_path, GOOD)
    assert "error" not in levels.values()
    assert levels["client.token_hmac_secret"] == "ok"
    assert levels["api.keys, number 1"] == "ok"


@pytest.mark.parametrize(
    ("section", "options", "check", "level"),
    [
        ("client", {"token_hmac_secret": "short"}, "client.token_hmac_secret", "error"),
        ("client", {"insecure": True}, "client.insecure", "error"),
        ("client", {"no_such_option": 1}, "configuration", "error"),
        ("client", {"queue_limit_bytes": 1000}, "configuration", "error"),
        ("api", {"keys": ["short"]}, "api.keys, number 1", "error"),
        ("api", {"keys": [SECRET]}, "api.keys, number 1", "error"),
        ("api", {"insecure": True}, "api.insecure", "error"),
        ("server", {"allowed_origins": []}, "server.allowed_origins", "warning"),
        ("server", {"allowed_origins": ["*"]}, "server.allowed_origins", "warning"),
        ("server", {"allowed_origins": ["http://app.example"]}, "server.allowed_origins", "warning"),
        ("server", {"host": "0.0.0.0"}, "admin.host", "warning"),
        ("engine", {"url": "redis://127.0.0.1:1"}, "Redis", "error"),
    ],
)
def test_what_is_wrong_is_found(
    tmp_path: Path, section: str, options: dict[str, Any], check: str, level: str
) -> None:
    assert found(tmp_path, {**GOOD, section: {**GOOD.get(section, {}), **options}})[check] == level


@pytest.mark.parametrize(
    ("options", "check", "level"),
    [
        ({"secrets": [SECRET]}, "webhooks.app.secrets, number 1", "ok"),
        ({"secrets": ["x" * 40]}, "webhooks.app.secrets, number 1", "error"),
        ({}, "webhooks.app.secrets", "error"),
        ({"secrets": [SECRET], "url": "http://app.example/"}, "webhooks.app.url", "error"),
        ({"secrets": [SECRET], "url": "http://127.0.0.1/"}, "configuration", "ok"),
    ],
)
def test_webhooks_that_can_be_forged_or_read_are_found(
    tmp_path: Path, options: dict[str, Any], check: str, level: str
) -> None:
    webhook = {"url": "https://app.example/events", **options}
    config = {**GOOD, "webhooks": {"app": webhook}, "events": {"types": ["connected"]}}
    assert found(tmp_path, config)[check] == level


def test_pages_of_this_machine_may_be_unencrypted(tmp_path: Path) -> None:
    config = {**GOOD, "server": {"allowed_origins": ["http://localhost:5173", "http://127.0.0.1:*"]}}
    assert "server.allowed_origins" not in found(tmp_path, config)


def test_the_file_limit_is_compared_with_the_expected_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly: 256 descriptors are for other things."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1256, 1256))
    assert found(tmp_path, GOOD, connections=1000)["file limit"] == "ok"
    assert found(tmp_path, GOOD, connections=1001)["file limit"] == "error"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert found(tmp_path, GOOD, connections=10**9)["file limit"] == "ok"


def test_the_numbers_of_the_kernel_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backlog, ports = "net/core/somaxconn", "net/ipv4/ip_local_port_range"
    numbers: dict[str, list[int | None]] = {backlog: [128], ports: [1, 100]}
    monkeypatch.setattr(doctor, "_kernel_number", lambda name, part: numbers[name][part])
    levels = found(tmp_path, GOOD, connections=1000)
    assert (levels["kernel backlog"], levels["ephemeral ports"]) == ("warning", "warning")
    numbers = {backlog: [4096], ports: [1, 2000]}
    levels = found(tmp_path, GOOD, connections=1000)
    assert (levels["kernel backlog"], levels["ephemeral ports"]) == ("ok", "ok")
    numbers = {backlog: [None], ports: [None, None]}
    levels = found(tmp_path, GOOD, connections=1000)
    assert levels["kernel backlog"] == "warning"
    assert "ephemeral ports" not in levels


def test_the_expiry_of_a_certificate_is_found(
    tmp_path: Path, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = {"tls_certificate": certificate[0], "tls_key": certificate[1]}
    config = {**GOOD, "server": {**GOOD["server"], **tls}}
    monkeypatch.setattr(doctor, "CERTIFICATE_DAYS", 0)
    assert found(tmp_path, config)["server.tls_certificate"] == "ok"
    monkeypatch.setattr(doctor, "CERTIFICATE_DAYS", 100_000)
    assert found(tmp_path, config)["server.tls_certificate"] == "warning"


@pytest.mark.parametrize(
    ("secret", "clause"),
    [
        ("x" * 31, "it has 31 bytes"),
        ("ab" * 20, "it repeats few characters"),
        ("my-secret-is-long-enough-for-every-check", "it is, or contains"),
        ("CHANGEME" + "1" * 40, "it is, or contains"),
        ("at least 32 bytes that only you know", "it is, or contains"),
        ("1234567890" * 4, "it is, or contains"),
        ("f3b1c2a9e8d70b12345678e4c5a6d7f8", ""),
        (SECRET, ""),
    ],
)
def test_a_weak_secret_is_named(secret: str, clause: str) -> None:
    assert weakness(secret, SECRET_BYTES).startswith(clause) if clause else not weakness(secret, SECRET_BYTES)
    assert KEY_BYTES < SECRET_BYTES


@pytest.mark.parametrize(("page", "key"), [(page, key) for page, keys in DOCUMENTED.items() for key in keys])
def test_the_secrets_of_the_documents_are_weak(page: str, key: str) -> None:
    """Each is on its page, so that the list does not outlive the documents."""
    assert key in (TOP / "docs" / page).read_text()
    assert weakness(key, 1)


@pytest.mark.parametrize(("weak", "level"), [(True, "error"), (False, "ok")])
def test_every_secret_and_key_is_checked(tmp_path: Path, weak: bool, level: str) -> None:
    """Further secrets, those of issuers, named keys and the secret of nodes too."""
    secret = "my-secret-is-long-enough-for-every-check" if weak else SECRET[::-1]
    config = {
        **GOOD,
        "engine": {"control_secret": secret},
        "client": {**GOOD["client"], "token_secrets": [secret]},
        "issuers": {"idp": {"issuer": "https://idp.example", "secrets": [secret]}},
        "api_keys": {"desk": {"keys": [secret[:24]]}},
    }
    levels = found(tmp_path, config)
    checks = ("client.token_secrets", "issuers.idp.secrets", "api_keys.desk.keys")
    assert levels["engine.control_secret"] == level
    assert {levels[f"{check}, number 1"] for check in checks} == {level}


def test_a_key_that_is_configured_as_a_hash_is_not_called_strong(tmp_path: Path) -> None:
    file = tmp_path / "tocsin.toml"
    file.write_text(as_toml({**GOOD, "api": {"keys": ["sha256:" + "0" * 64]}}))
    [text] = [one["text"] for one in doctor.findings(file, 10) if one["check"] == "api.keys, number 1"]
    assert "its strength is not known" in text


@pytest.mark.parametrize(("shift", "level"), [(0, "ok"), (60, "warning")])
def test_redis_and_its_clock_are_checked(tmp_path: Path, shift: int, level: str) -> None:
    """A Redis whose clock is a minute ahead. It also keeps nothing on its disk."""
    clock = Clock(tmp_path / "clock")
    clock.shift(shift)
    with redis_running(tmp_path, environment=clock.environment(MALLOC)) as server:
        file = tmp_path / "tocsin.toml"
        file.write_text(as_toml({**GOOD, "engine": {"url": server.url}}))
        command = [str(TOCSIN), "doctor", "--config", str(file), "--connections", "10", "--json"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=STARTED, check=False, env=os.environ
        )
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    levels = {(finding["check"], finding["level"]) for finding in findings}
    assert {("Redis", "ok"), ("Redis", "warning"), ("clock of Redis", level)} <= levels
    assert done.returncode == 0
