"""[webhooks.NAME]: which options are valid, and what a configuration of webhooks leaves open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.support.server import as_toml
from tocsin_server.config.contradictions import contradictions
from tocsin_server.config.errors import ConfigError
from tocsin_server.config.exposure import startup_notices
from tocsin_server.config.loading import Settings, load_settings
from tocsin_server.config.tls_files import tls_file_problems
from tocsin_server.config.webhook_options import WebhookOptions

SECRET = "a secret of forty characters, which is long"


def settings(**options: Any) -> Settings:
    section = {"url": "https://app.example/events", "secrets": [SECRET], **options}
    return Settings.model_validate({"webhooks": {"app": section}, "events": {"types": ["connected"]}})


@pytest.mark.parametrize(
    ("url", "is_valid"),
    [
        ("https://app.example/events?x=1", True),
        ("http://127.0.0.1:5/", True),
        ("http://app.example", True),
        ("https://user:password@app.example/", False),
        ("https://app.example/#fragment", False),
        ("https://app.example:port/", False),
        ("https:///events", False),
        ("file:///etc/passwd", False),
        ("https://app.example/a b", False),
        ("events", False),
    ],
)
def test_the_address_is_of_http_without_credentials(url: str, is_valid: bool) -> None:
    try:
        WebhookOptions(url=url)
    except ValidationError:
        assert not is_valid
    else:
        assert is_valid


@pytest.mark.parametrize(
    "options",
    [
        {"secrets": ["short"]},
        {"types": ["arrived"]},
        {"batch_size": 0},
        {"batch_size": 1001},
        {"batch_delay": "2m"},
        {"timeout": 0},
        {"permanent_statuses": [503]},
        {"permanent_statuses": [200]},
        {"dead_letter_limit": 0},
        {"static_headers": {"X-Tocsin-Signature": "1"}},
        {"static_headers": {"Host": "other.example"}},
        {"static_headers": {"bad name": "1"}},
        {"static_headers": {"authorization": "a\r\nb: c"}},
        {"url": ""},
    ],
)
def test_an_option_that_cannot_be_used_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**options)


def test_a_refused_header_is_not_shown(tmp_path: Path) -> None:
    """Neither its value nor that of a secret is part of the message."""
    file = tmp_path / "tocsin.toml"
    section = {
        "url": "https://app.example",
        "secrets": ["hunter2"],
        "static_headers": {"authorization": "hunter2\n"},
    }
    file.write_text(as_toml({"webhooks": {"app": section}}))
    with pytest.raises(ConfigError) as refused:
        load_settings(file)
    assert "webhooks.app.static_headers.authorization" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_webhook_is_configured_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_WEBHOOKS__APP__URL", "https://app.example")
    monkeypatch.setenv("TOCSIN_WEBHOOKS__APP__TYPES", "connected, disconnected")
    monkeypatch.setenv("TOCSIN_WEBHOOKS__APP__PERMANENT_STATUSES", "400,404")
    webhook = load_settings().webhooks["app"]
    assert webhook.types == ("connected", "disconnected")
    assert webhook.permanent_statuses == (400, 404)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"retry_for": 5}, "webhooks.app.retry_for"),
        ({"dead_letter_ttl": "1h"}, "webhooks.app.dead_letter_ttl"),
        ({"url": "http://127.0.0.1/", "tls_ca": "ca.pem"}, "webhooks.app.url"),
        ({"retry_for": "24h"}, "webhooks.app.retry_for"),
        ({"types": ["connected", "occupied"]}, "webhooks.app.types has occupied"),
    ],
)
def test_options_that_contradict_each_other_are_named(options: dict[str, Any], key: str) -> None:
    assert [text for text in contradictions(settings(**options)) if text.startswith(key)]


def test_a_webhook_without_recorded_events_is_a_contradiction() -> None:
    """The defaults do not contradict each other, except that nothing is recorded."""
    assert contradictions(settings()) == []
    (problem,) = contradictions(Settings.model_validate({"webhooks": {"app": {"url": "https://a.example"}}}))
    assert problem.startswith("[webhooks.app] has no effect")


def test_a_webhook_that_is_open_is_announced_at_start() -> None:
    """Requests without a signature, and events that travel without TLS to another machine."""
    assert not [text for text in startup_notices(settings()) if "webhook" in text]
    assert "can be forged" in str(startup_notices(settings(secrets=[])))
    assert "without TLS" in str(startup_notices(settings(url="http://app.example")))


def test_a_secret_in_the_address_is_not_shown() -> None:
    """The query may hold one."""
    assert "hunter2" not in str(startup_notices(settings(url="https://app.example/?key=hunter2", secrets=[])))


def test_files_for_tls_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    problems = tls_file_problems(settings(tls_ca=str(file), tls_certificate="missing.pem"))
    assert any("webhooks.app.tls_ca" in text for text in problems)
    assert any(
        "webhooks.app.tls_certificate is set, but not webhooks.app.tls_key" in text for text in problems
    )
