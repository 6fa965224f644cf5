"""Configuration: three sources, one priority, and a sentence for every mistake."""

import os
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from tocsin_server.cli.check_config import check_config
from tocsin_server.config.loading import ConfigError, Settings, load

SECRET = "hush-hush-hush-hush-hush-hush-32"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the developer has set stays outside."""
    for name in [name for name in os.environ if name.upper().startswith("TOCSIN_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tocsin.toml"


def problems(file: Path, text: str) -> list[str]:
    """What `load` says about a file, with the file's name for its path."""
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    return [problem.replace(str(file), file.name) for problem in caught.value.problems]


def test_without_any_source_the_defaults_hold() -> None:
    """Nothing is open that nobody opened."""
    settings = load()
    assert settings == Settings()
    assert not settings.client.insecure
    assert not settings.client.allow_anonymous
    assert settings.api.keys == ()
    assert settings.server.host == "127.0.0.1"


def test_flags_win_over_the_environment_and_that_over_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key by key: a source that sets one key of a section leaves the others to those below it."""
    file.write_text('[server]\nhost = "::1"\nport = 1\ndrain_seconds = "1m"\n')
    monkeypatch.setenv("TOCSIN_SERVER__PORT", "2")
    monkeypatch.setenv("TOCSIN_SERVER__DRAIN_SECONDS", "2s")
    server = load(file, {"server": {"drain_seconds": 3, "host": None}}).server
    assert (server.host, server.port, server.drain_seconds) == ("::1", 2, 3)


def test_every_key_is_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Namespaces too; lists with commas."""
    monkeypatch.setenv("TOCSIN_CLIENT__INSECURE", "true")
    monkeypatch.setenv("TOCSIN_API__KEYS", "first,second")
    monkeypatch.setenv("TOCSIN_NAMESPACES__CHAT__PRESENCE", "yes")
    settings = load()
    assert settings.client.insecure
    assert settings.api.keys == ("first", "second")
    assert settings.namespaces["chat"].presence


def test_variables_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`TOCSIN_URL` may well be the client's."""
    monkeypatch.setenv("TOCSIN_URL", "ws://127.0.0.1")
    assert load() == Settings()


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
            'client.ping_interval is "soon" in tocsin.toml, but must be a number of seconds, or a text such',
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
            'namespaces.chat.channel_regex is "(" in tocsin.toml, but must be a regular expression (missing',
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
            "client.insecur in tocsin.toml is not known; did you mean insecure?",
        ),
        ("[chanels]", "[chanels] in tocsin.toml is not known; did you mean channels?"),
        ("[zebra]", "[zebra] in tocsin.toml is not known."),
        ("[server]\nhost = []", "server.host is a list in tocsin.toml, but must be a text."),
        ("[client]\ninsecure = {}", "client.insecure is a table in tocsin.toml, but must be true or false."),
        (
            "[namespaces.chat]\nhistry_size = 5",
            "namespaces.chat.histry_size in tocsin.toml is not known; did you",
        ),
        (f"[server]\nport = {'9' * 5000}", "The configuration file tocsin.toml is not valid TOML: "),
        (f'api = "{SECRET}"', "[api] in tocsin.toml must be a table of options."),
        (
            "[client]\ntoken_hmac_secret = 5",
            "client.token_hmac_secret in tocsin.toml must be a text; its value is a secret and is not shown.",
        ),
        (
            f'[engine]\nurl = "redis://:{SECRET}@"',
            'engine.url in tocsin.toml must be "memory://", "redis://',
        ),
        (
            "[server",
            "The configuration file tocsin.toml is not valid TOML: Expected ']' at the end of a table",
        ),
    ],
)
def test_a_mistake_is_one_sentence(file: Path, text: str, sentence: str) -> None:
    """It names the key, the value, the place and what was expected; here is how each begins."""
    (problem,) = problems(file, text)
    assert problem.startswith(sentence)


def test_a_value_is_shown_only_as_far_as_it_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the complaint is one that nobody foresaw."""
    monkeypatch.setenv(name := "TOCSIN_SERVER__PORT", "9" * 5000)
    with pytest.raises(ConfigError) as caught:
        load()
    (problem,) = caught.value.problems
    assert problem.startswith('server.port is "999999')
    assert f"… in the environment variable {name}, but must be valid (Unable to parse" in problem
    assert len(problem) < 300


def test_every_mistake_is_told_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with the source it came from."""
    monkeypatch.setenv(name := "TOCSIN_CLIENT__CHANNEL_LIMIT", "many")
    monkeypatch.setenv("TOCSIN_CHANELS__PRESENCE", "true")
    file.write_text("[server]\nport = -1\n")
    with pytest.raises(ConfigError) as caught:
        load(file, {"server": {"host": 5}})
    assert [problem.replace(str(file), file.name) for problem in caught.value.problems] == [
        "The environment variable TOCSIN_CHANELS__PRESENCE is of no known section; did you mean channels?",
        "server.host is 5 in a flag, but must be a text.",
        "server.port is -1 in tocsin.toml, but must be at least 0.",
        f'client.channel_limit is "many" in the environment variable {name}, but must be a whole number.',
    ]


def test_a_section_that_is_wrong_as_a_whole_names_all_its_sources(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mistake may lie in either."""
    monkeypatch.setenv("TOCSIN_CHANNELS__HISTORY_TTL", "0")
    (problem,) = problems(file, "[channels]\nhistory_size = 5")
    assert problem.startswith("[channels] in the environment and tocsin.toml: history_size is 5")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("nowhere", "No such file"), (".", "Is a directory"), ("x" * 300, "File name too long")],
)
def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path: Path, name: str, reason: str) -> None:
    """A mistyped path must not start a node with its defaults."""
    with pytest.raises(ConfigError, match=f"cannot be read: {reason}"):
        load(tmp_path / name)


def test_a_file_that_is_not_text_is_a_mistake(file: Path) -> None:
    """Rather than a traceback."""
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load(file)


def test_no_secret_is_ever_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in a mistake about it, not in one beside it, not in what the settings print."""
    monkeypatch.setenv("TOCSIN_API__KEYS", f"{SECRET}\N{BELL}")
    said = problems(file, f'[client]\ntoken_hmac_secert = "{SECRET}"\ntoken_hmac_secret = ["{SECRET}"]')
    assert len(said) == 3
    assert SECRET not in str(said)
    monkeypatch.setenv("TOCSIN_API__KEYS", SECRET)
    file.write_text(f'[client]\ntoken_hmac_secret = "{SECRET}"')
    assert SECRET not in repr(load(file))


@pytest.fixture
def command() -> Typer:
    app = Typer()
    app.command()(check_config)
    return app


def test_check_config_says_ok_and_what_is_open(file: Path, command: Typer) -> None:
    """One line for each door."""
    file.write_text(f'[client]\ntoken_hmac_secret = "{SECRET}"\n[api]\nkeys = ["a", "b"]\n')
    result = CliRunner().invoke(command, ["--config", str(file)])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "ok"
    assert "clients: those with a token, no anonymous ones" in result.stdout
    assert "HTTP API: with one of 2 keys" in result.stdout


def test_check_config_explains_each_mistake_and_fails(file: Path, command: Typer) -> None:
    """On standard error, so that a pipe of the good case stays clean."""
    file.write_text("[server]\nport = -1\n[api]\nkey = 5\n")
    result = CliRunner().invoke(command, ["--config", str(file)])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["server.port", "api.key"]
