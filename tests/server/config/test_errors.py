"""Configuration errors: one sentence each, with the key, the value, the source and what was expected."""

from pathlib import Path

import pytest

from tocsin_server.config.errors import ConfigError
from tocsin_server.config.loading import load_settings

SECRET = "hush-hush-hush-hush-hush-hush-32"


def problems(file: Path, text: str) -> list[str]:
    """The configuration errors of a file, with the file's name in place of its path."""
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    return [problem.replace(str(file), file.name) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[server]\nport = 70000",
            "server.port is 70000 in tocsin.toml, but must be at most 65535.",
        ),
        (
            '[client]\nallow_anonymous = "maybe"',
            'client.allow_anonymous is "maybe" in tocsin.toml, but must be true or false.',
        ),
        (
            "[client]\nchannel_limit = 1.5",
            "client.channel_limit is 1.5 in tocsin.toml, but must be a whole number.",
        ),
        (
            '[client]\nping_interval = "soon"',
            'client.ping_interval is "soon" in tocsin.toml, but must be a number of seconds, or a string',
        ),
        (
            '[channels]\nforce_recovery_mode = "both"',
            "channels.force_recovery_mode is \"both\" in tocsin.toml, but must be 'stream' or 'cache'.",
        ),
        (
            '[server]\nallowed_origins = ["*", "app.example"]',
            'server.allowed_origins[1] is "app.example" in tocsin.toml, but must be "*", "self", or origins',
        ),
        (
            '[namespaces.chat]\nchannel_regex = "("',
            'namespaces.chat.channel_regex is "(" in tocsin.toml, but must be a regular expression of RE2',
        ),
        (
            "[namespaces.x]",
            'The name of a namespace is "x" in tocsin.toml, but must be two or more letters, digits, "-"',
        ),
        (
            "[namespaces.chat]\nhistory_size = 10",
            "[namespaces.chat] in tocsin.toml: history_size is 10 and history_ttl is 0 s, but history needs",
        ),
        (
            '[client]\npersonal_channel_namespace = "me"',
            'client.personal_channel_namespace is "me", but there is no section [namespaces.me].',
        ),
        (
            "[client]\ninsecur = true",
            "client.insecur in tocsin.toml is unknown; did you mean insecure?",
        ),
        ("[chanels]", "[chanels] in tocsin.toml is unknown; did you mean channels?"),
        ("[zebra]", "[zebra] in tocsin.toml is unknown."),
        ("[server]\nhost = []", "server.host is a list in tocsin.toml, but must be a string."),
        ("[client]\ninsecure = {}", "client.insecure is a table in tocsin.toml, but must be true or false."),
        (
            "[namespaces.chat]\nhistry_size = 5",
            "namespaces.chat.histry_size in tocsin.toml is unknown; did you",
        ),
        (f"[server]\nport = {'9' * 5000}", "The configuration file tocsin.toml is not valid TOML: "),
        (f'api = "{SECRET}"', "[api] in tocsin.toml must be a table of options."),
        (
            "[client]\ntoken_hmac_secret = 5",
            "client.token_hmac_secret in tocsin.toml must be a string. Its value is not shown, because it is",
        ),
        (
            f'[engine]\nurl = "redis://:{SECRET}@"',
            "engine.url in tocsin.toml must be a redis:// URL with the host after the scheme. Its value",
        ),
        (
            f'[engine]\nurl = "nats://:{SECRET}@h"',
            'engine.url in tocsin.toml must be "memory://", "redis://',
        ),
        (
            "[server",
            "The configuration file tocsin.toml is not valid TOML: Expected ']' at the end of a table",
        ),
    ],
)
def test_a_configuration_error_is_one_sentence(file: Path, text: str, sentence: str) -> None:
    """It names the key, the value, the source and what was expected. The table has its beginning."""
    (problem,) = problems(file, text)
    assert problem.startswith(sentence)


def test_a_long_value_is_shown_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for an error that has no words of its own in the table."""
    monkeypatch.setenv(name := "TOCSIN_SERVER__PORT", "9" * 5000)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    (problem,) = caught.value.problems
    assert problem.startswith('server.port is "999999')
    assert f"… in the environment variable {name}, but must be valid (Unable to parse" in problem
    assert len(problem) < 300


def test_all_configuration_errors_are_reported_together(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each names the source that it comes from."""
    monkeypatch.setenv(name := "TOCSIN_CLIENT__CHANNEL_LIMIT", "many")
    monkeypatch.setenv("TOCSIN_CHANELS__PRESENCE", "true")
    file.write_text("[server]\nport = -1\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(file, {"server": {"host": 5}})
    assert [problem.replace(str(file), file.name) for problem in caught.value.problems] == [
        (
            "The environment variable TOCSIN_CHANELS__PRESENCE belongs to no known section; "
            "did you mean channels?"
        ),
        "server.host is 5 in a flag, but must be a string.",
        "server.port is -1 in tocsin.toml, but must be at least 0.",
        f'client.channel_limit is "many" in the environment variable {name}, but must be a whole number.',
    ]


def test_an_invalid_section_names_all_its_sources(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error may lie in either source."""
    monkeypatch.setenv("TOCSIN_CHANNELS__HISTORY_TTL", "0")
    (problem,) = problems(file, "[channels]\nhistory_size = 5")
    assert problem.startswith("[channels] in the environment and tocsin.toml: history_size is 5")


def test_a_secret_is_never_shown(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in an error about it, not in an error beside it, not in the representation of the settings."""
    monkeypatch.setenv("TOCSIN_API__KEYS", f"{SECRET}\N{BELL}")
    said = problems(file, f'[client]\ntoken_hmac_secert = "{SECRET}"\ntoken_hmac_secret = ["{SECRET}"]')
    assert len(said) == 3
    assert SECRET not in str(said)
    monkeypatch.setenv("TOCSIN_API__KEYS", SECRET)
    file.write_text(f'[client]\ntoken_hmac_secret = "{SECRET}"')
    assert SECRET not in repr(load_settings(file))
