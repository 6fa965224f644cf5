"""Options: their defaults, the forms of their values, and invalid sections."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.options import ApiOptions, ServerOptions


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("300s", 300),
        ("5m", 300),
        ("720h", 2592000),
        ("30d", 2592000),
        ("1h30m", 5400),
        ("25", 25),
    ],
)
def test_a_duration_may_be_written_with_units(text: str, seconds: float) -> None:
    """Units add up. A string without a unit is a number of seconds: the environment has only strings."""
    assert ServerOptions(drain_seconds=text).drain_seconds == seconds


@given(st.floats(min_value=0, max_value=1e9) | st.integers(min_value=0, max_value=10**9))
def test_a_number_is_a_duration_in_seconds(number: float) -> None:
    """A number in TOML stays as it is."""
    assert ServerOptions(drain_seconds=number).drain_seconds == number


@pytest.mark.parametrize(
    "value", ["soon", "", "5 minutes", "-5s", "5s5", "1e3", -1, True, None, [], float("inf"), float("nan")]
)
def test_other_values_are_no_durations(value: object) -> None:
    """Words, negative numbers, booleans, infinity and null are refused."""
    with pytest.raises(ValidationError):
        ServerOptions(drain_seconds=value)


@given(st.text())
def test_every_string_is_a_duration_or_a_validation_error(text: str) -> None:
    """A validator that raised anything else would end the command with a traceback."""
    with suppress(ValidationError):
        assert ServerOptions(drain_seconds=text).drain_seconds >= 0


def test_a_list_may_be_a_string_with_commas() -> None:
    """The environment gives lists this way."""
    assert ApiOptions(keys="first, second,").keys == ("first", "second")


@pytest.mark.parametrize("key", ["", " padded", "pädded", "two\nlines"])
def test_a_key_must_fit_into_a_header(key: str) -> None:
    """Otherwise no caller could send it."""
    with pytest.raises(ValidationError):
        ApiOptions(keys=[key])


@pytest.mark.parametrize(
    "origin", ["app.example", "https://app.example/", "https://", "//app.example", "*.example"]
)
def test_an_origin_that_could_never_match_is_refused(origin: str) -> None:
    """Browsers send a scheme and a host, and no path."""
    with pytest.raises(ValidationError):
        ServerOptions(allowed_origins=[origin])


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "file://",
        "capacitor://localhost",
        "http://[::1]:3000",
        "https://app.example",
        "https://*.example.com",
        "http://127.0.0.1:*",
    ],
)
def test_origins_are_exact_or_patterns(origin: str) -> None:
    """A pattern matches a whole origin, a host, or a part of a host."""
    assert ServerOptions(allowed_origins=[origin]).allowed_origins == (origin,)


def test_the_default_port_of_an_origin_is_left_out_as_browsers_do() -> None:
    options = ServerOptions(allowed_origins=["https://app.example:443", "http://app.example:443"])
    assert options.allowed_origins == ("https://app.example", "http://app.example:443")


@pytest.mark.parametrize(
    ("host", "hosts"),
    [
        ("127.0.0.1", ("127.0.0.1",)),
        (["127.0.0.1", "::1"], ("127.0.0.1", "::1")),
        ("127.0.0.1, ::1", ("127.0.0.1", "::1")),
        (["unix:/run/tocsin.sock", "fd:3", "systemd"], ("unix:/run/tocsin.sock", "fd:3", "systemd")),
    ],
)
def test_a_server_may_have_several_hosts(host: object, hosts: tuple[str, ...]) -> None:
    """The environment separates them by commas."""
    assert ServerOptions.model_validate({"host": host}).hosts == hosts


@pytest.mark.parametrize("host", ["", "unix:", "unix:relative.sock", "fd:", "fd:x", ["::1", ""]])
def test_a_host_that_cannot_be_listened_on_is_refused(host: object) -> None:
    with pytest.raises(ValidationError, match="host names"):
        ServerOptions.model_validate({"host": host})


@pytest.mark.parametrize(
    "options", [{"history_size": 10}, {"history_ttl": "5m"}, {"history_size": 10, "history_ttl": 0}]
)
def test_history_needs_both_size_and_time(options: dict[str, object]) -> None:
    """One without the other would silently keep no history."""
    with pytest.raises(ValidationError, match="both or neither"):
        ChannelOptions(**options)


def test_recovery_needs_history() -> None:
    """A client recovers from history alone."""
    with pytest.raises(ValidationError, match="recovery needs history"):
        ChannelOptions(force_recovery=True)


def test_history_never_outlives_its_position() -> None:
    """A client cannot recover from history without its epoch."""
    with pytest.raises(ValidationError, match="at least history_ttl"):
        ChannelOptions(history_size=1, history_ttl="60d")


def test_a_channel_keeps_history_when_size_and_time_are_set() -> None:
    """Other code uses this property alone."""
    assert ChannelOptions(history_size=1, history_ttl=1).keeps_history
    assert not ChannelOptions().keeps_history


def test_a_pong_is_due_before_the_next_ping() -> None:
    """With two pings in flight, a pong would not show which one it answers."""
    with pytest.raises(ValidationError, match="pong_timeout"):
        ClientOptions(ping_interval=5, pong_timeout=5)


def test_the_limit_on_queued_bytes_cannot_be_switched_off() -> None:
    """0 means no bound for other limits; queues are always bounded."""
    with pytest.raises(ValidationError):
        ClientOptions(queue_limit_bytes=0)
    assert ClientOptions(user_connection_limit=0).user_connection_limit == 0


def test_options_are_immutable() -> None:
    """All connections share them."""
    with pytest.raises(ValidationError, match="frozen"):
        ClientOptions().insecure = True  # type: ignore[misc]  # that is the point


def test_secrets_are_not_in_the_representation() -> None:
    """A log line or a traceback may hold the representation."""
    options = (ClientOptions(token_hmac_secret="hush"), ApiOptions(keys=["hush"]))
    assert "hush" not in f"{options!r} {options[0]} {options[1]}"
