"""Loading: three sources, one priority, and files that cannot be read."""

from pathlib import Path

import pytest

from tocsin_server.config.errors import ConfigError
from tocsin_server.config.loading import Settings, load_settings


def test_the_defaults_hold_without_any_source() -> None:
    """The defaults open nothing."""
    settings = load_settings()
    assert settings == Settings()
    assert not settings.client.insecure
    assert not settings.client.allow_anonymous
    assert settings.api.keys == ()
    assert settings.server.host == "127.0.0.1"


def test_flags_override_the_environment_which_overrides_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that sets one key of a section leaves its other keys to the sources below."""
    file.write_text('[server]\nhost = "::1"\nport = 1\ndrain_seconds = "1m"\n')
    monkeypatch.setenv("TOCSIN_SERVER__PORT", "2")
    monkeypatch.setenv("TOCSIN_SERVER__DRAIN_SECONDS", "2s")
    server = load_settings(file, {"server": {"drain_seconds": 3, "host": None}}).server
    assert (server.host, server.port, server.drain_seconds) == ("::1", 2, 3)


def test_every_key_is_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """This includes keys of namespaces. Lists have commas."""
    monkeypatch.setenv("TOCSIN_CLIENT__INSECURE", "true")
    monkeypatch.setenv("TOCSIN_API__KEYS", "first,second")
    monkeypatch.setenv("TOCSIN_NAMESPACES__CHAT__PRESENCE", "yes")
    settings = load_settings()
    assert settings.client.insecure
    assert settings.api.keys == ("first", "second")
    assert settings.namespaces["chat"].presence


def test_variables_of_other_programs_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """`TOCSIN_URL` may belong to a client."""
    monkeypatch.setenv("TOCSIN_URL", "ws://127.0.0.1")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("nowhere", "No such file"), (".", "Is a directory"), ("x" * 300, "File name too long")],
)
def test_a_file_that_cannot_be_read_is_a_configuration_error(tmp_path: Path, name: str, reason: str) -> None:
    """A mistyped path must not start a node with its defaults."""
    with pytest.raises(ConfigError, match=f"cannot be read: {reason}"):
        load_settings(tmp_path / name)


def test_a_file_that_is_not_utf_8_is_a_configuration_error(file: Path) -> None:
    """A traceback would help no user."""
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_settings(file)
