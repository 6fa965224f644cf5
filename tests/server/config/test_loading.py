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


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\t\n"])
def test_white_space_around_a_value_does_not_count(
    file: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """A file with a secret often ends with a line break, and so does what a shell makes of it."""
    monkeypatch.setenv("TOCSIN_CLIENT__TOKEN_HMAC_SECRET", f"secret{end}")
    monkeypatch.setenv("TOCSIN_ENGINE__URL", f"redis://:pass@h{end}")
    monkeypatch.setenv("TOCSIN_SERVER__PORT", f"8001{end}")
    monkeypatch.setenv("TOCSIN_CLIENT__INSECURE", f"true{end}")
    monkeypatch.setenv("TOCSIN_API__KEYS", f"a, b{end}")
    monkeypatch.setenv("TOCSIN_API__ERROR_MODE", f"transport{end}")
    file.write_text('[client]\ntoken_issuer = """\nissuer\n"""\n')
    settings = load_settings(file)
    assert settings.client.token_hmac_secret == "secret"
    assert settings.engine.url == "redis://:pass@h"
    assert (settings.server.port, settings.client.insecure) == (8001, True)
    assert (settings.api.keys, settings.api.error_mode) == (("a", "b"), "transport")
    assert settings.client.token_issuer == "issuer"


def test_a_byte_order_mark_does_not_count(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Editors of Windows begin files with it."""
    monkeypatch.setenv("TOCSIN_CLIENT__TOKEN_HMAC_SECRET", "\ufeffsecret\r\n")
    file.write_bytes(b"\xef\xbb\xbf[server]\r\nport = 8001\r\n")
    settings = load_settings(file)
    assert (settings.client.token_hmac_secret, settings.server.port) == ("secret", 8001)


@pytest.mark.parametrize("mark", ["'", '"', "`"])
def test_quotation_marks_around_a_variable_are_refused(monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    """`docker --env-file` keeps them. They would be part of the secret, and every token would be invalid."""
    monkeypatch.setenv("TOCSIN_CLIENT__TOKEN_HMAC_SECRET", f"{mark}hush{mark}")
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert str(caught.value) == (
        "The value of the environment variable TOCSIN_CLIENT__TOKEN_HMAC_SECRET is in quotation marks: "
        "remove them."
    )


def test_a_variable_with_one_underscore_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would set nothing. Variables that Kubernetes makes for a Service are ignored."""
    monkeypatch.setenv("TOCSIN_CLIENT_TOKEN_HMAC_SECRET", "hush")
    monkeypatch.setenv("TOCSIN_SERVER_PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("TOCSIN_SERVER_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("TOCSIN_API_KEY", "of a client")
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert str(caught.value) == (
        "The environment variable TOCSIN_CLIENT_TOKEN_HMAC_SECRET sets nothing; "
        "did you mean TOCSIN_CLIENT__TOKEN_HMAC_SECRET?"
    )
