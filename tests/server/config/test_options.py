"""Options: their defaults, the forms a value may take, and what makes a section wrong as a whole."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tocsin_server.config.options import (
    ApiOptions,
    ChannelOptions,
    ClientOptions,
    EngineOptions,
    ServerOptions,
)


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
    """Units add up; a number without one is seconds, also as a text, since the environment has only texts."""
    assert ServerOptions(drain_seconds=text).drain_seconds == seconds


@given(st.floats(min_value=0, max_value=1e9) | st.integers(min_value=0, max_value=10**9))
def test_a_number_is_a_duration_in_seconds(number: float) -> None:
    """TOML's numbers arrive as they are."""
    assert ServerOptions(drain_seconds=number).drain_seconds == number


@pytest.mark.parametrize(
    "value", ["soon", "", "5 minutes", "-5s", "5s5", "1e3", -1, True, None, [], float("inf"), float("nan")]
)
def test_anything_else_is_no_duration(value: object) -> None:
    """Neither words nor signs, truth, endlessness or nothing."""
    with pytest.raises(ValidationError):
        ServerOptions(drain_seconds=value)


@given(st.text())
def test_no_text_makes_a_duration_fail_otherwise_than_as_a_mistake(text: str) -> None:
    """A validator that raised anything but a mistake would end the command with a traceback."""
    with suppress(ValidationError):
        assert ServerOptions(drain_seconds=text).drain_seconds >= 0


def test_a_list_may_be_a_text_with_commas() -> None:
    """As the environment has it."""
    assert ApiOptions(keys="first, second,").keys == ("first", "second")


@pytest.mark.parametrize("key", ["", " padded", "pädded", "two\nlines"])
def test_a_key_must_fit_into_a_header(key: str) -> None:
    """Otherwise no client could ever send it."""
    with pytest.raises(ValidationError):
        ApiOptions(keys=[key])


@pytest.mark.parametrize(
    "origin", ["app.example", "https://app.example/", "https://", "//app.example", "*.example"]
)
def test_an_origin_that_could_never_match_is_refused(origin: str) -> None:
    """Browsers send a scheme and a host, never a path."""
    with pytest.raises(ValidationError):
        ServerOptions(allowed_origins=[origin])


@pytest.mark.parametrize(
    "origin", ["*", "https://app.example", "https://*.example.com", "http://127.0.0.1:*"]
)
def test_origins_may_be_patterns(origin: str) -> None:
    """The whole of it, a host, or a part of one."""
    assert ServerOptions(allowed_origins=[origin]).allowed_origins == (origin,)


@pytest.mark.parametrize(
    "options", [{"history_size": 10}, {"history_ttl": "5m"}, {"history_size": 10, "history_ttl": 0}]
)
def test_history_needs_both_size_and_time(options: dict[str, object]) -> None:
    """One alone would silently keep nothing."""
    with pytest.raises(ValidationError, match="both, or neither"):
        ChannelOptions(**options)


def test_recovery_needs_history() -> None:
    """There is nothing to recover from otherwise."""
    with pytest.raises(ValidationError, match="recovery needs history"):
        ChannelOptions(force_recovery=True)


def test_no_log_outlives_its_position() -> None:
    """A log without its epoch could not be recovered from."""
    with pytest.raises(ValidationError, match="at least history_ttl"):
        ChannelOptions(history_size=1, history_ttl="60d")


def test_a_channel_keeps_history_when_size_and_time_are_set() -> None:
    """The one question that other code asks about both."""
    assert ChannelOptions(history_size=1, history_ttl=1).keeps_history
    assert not ChannelOptions().keeps_history


def test_a_pong_is_due_before_the_next_ping() -> None:
    """Two pings waiting for a pong each could not be told apart."""
    with pytest.raises(ValidationError, match="pong_timeout"):
        ClientOptions(ping_interval=5, pong_timeout=5)


def test_no_limit_on_what_waits_can_be_switched_off() -> None:
    """0 means no bound elsewhere; here everything is bounded."""
    with pytest.raises(ValidationError):
        ClientOptions(queue_limit_bytes=0)
    assert ClientOptions(user_connection_limit=0).user_connection_limit == 0


def test_options_never_change() -> None:
    """They are read once, and shared by every connection."""
    with pytest.raises(ValidationError, match="frozen"):
        ClientOptions().insecure = True  # type: ignore[misc]  # that is the point


def test_secrets_are_not_in_the_representation() -> None:
    """A log line or a traceback may hold it."""
    options = (ClientOptions(token_hmac_secret="hush"), ApiOptions(keys=["hush"]))
    assert "hush" not in f"{options!r} {options[0]} {options[1]}"


@pytest.mark.parametrize(
    "url",
    [
        "memory://",
        "redis://127.0.0.1",
        "redis://[::1]:6379/0",
        "redis://:p%40ss@redis.example.com:6380/2",
        "rediss://user:pass@h?ssl_ca_certs=/etc/ca.pem",
        "redis+sentinel://h/main",
        "redis+sentinel://:pass@a:1,b:2/main/3?sentinel_password=x",
        "redis+cluster://h",
        "redis+cluster://user:pass@a:1,[::1]:2,c",
        "rediss+cluster://a:1,b:2/?ssl_ca_certs=/etc/ca.pem",
    ],
)
def test_engines_have_addresses(url: str) -> None:
    """Of one node, of a Redis, of Sentinels, of a cluster. One node is the default."""
    assert EngineOptions().url == "memory://"
    assert EngineOptions(url=url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory://x",
        "redis://",
        "redis:/h",
        "redis://h:p",
        "redis://h/x",
        "http://h",
        "redis+sentinel://h",
        "redis+cluster://",
        "redis+cluster://h/1",
        "redis+cluster://a,,b",
        "cluster://h",
    ],
)
def test_an_address_without_an_engine_is_a_mistake(url: str) -> None:
    """Said with the forms that there are."""
    with pytest.raises(ValidationError, match=r"redis\+sentinel://.*redis\+cluster://"):
        EngineOptions(url=url)
