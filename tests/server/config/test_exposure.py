"""Advice: what a configuration opens, and what it leaves closed, in words."""

from collections.abc import Mapping

import pytest

from tocsin_server.config.exposure import doors, safe_start_advice
from tocsin_server.config.loading import Settings

SECRET = "hush-hush-hush-hush-hush-hush-32"


def configured(sections: Mapping[str, Mapping[str, object]]) -> Settings:
    return Settings.model_validate(sections)


def test_a_node_without_configuration_says_what_to_set() -> None:
    """Each closed door with the key that opens it."""
    said = "\n".join(safe_start_advice(Settings()))
    for key in ["server.host", "client.token_hmac_secret", "server.allowed_origins", "api.keys"]:
        assert f"set {key}" in said


def test_an_insecure_node_says_loudly_what_it_opens() -> None:
    """And who can reach it."""
    open_ = {"client": {"insecure": True}, "api": {"insecure": True}}
    local = [line for line in safe_start_advice(configured(open_)) if "INSECURE" in line]
    assert len(local) == 2
    assert all("reached from this machine" in line for line in local)
    far = safe_start_advice(configured({**open_, "server": {"host": "0.0.0.0"}}))
    assert sum("reached from OTHER MACHINES" in line for line in far) == 2


def test_a_node_whose_doors_were_set_on_purpose_says_nothing() -> None:
    """Advice that is always there is not read."""
    settings = configured(
        {
            "server": {"host": "127.0.0.1", "allowed_origins": ["https://app.example"]},
            "client": {"token_hmac_secret": SECRET},
            "channels": {"allow_subscribe_for_client": True},
            "api": {"keys": ["key"]},
        },
    )
    assert safe_start_advice(settings) == []


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"server": {"host": "::1"}}, "address: [::1]:8000, this machine only"),
        ({"server": {"host": "node.example"}}, "address: node.example:8000"),
        (
            {"client": {"allow_anonymous": True}},
            "clients: anonymous ones only, since no key for tokens is set",
        ),
        (
            {"client": {"allow_anonymous": True, "token_hmac_secret": SECRET}},
            "clients: those with a token, anonymous ones too",
        ),
        ({"client": {"insecure": True}}, "channels: all"),
        (
            {"namespaces": {"chat": {"allow_subscribe_for_anonymous": True}, "news": {}}},
            "channels: without a subscription token those of [namespaces.chat]",
        ),
        (
            {"channels": {"allow_user_limited_channels": True}},
            "channels: those that name their users, or with a subscription token",
        ),
        ({"server": {"allowed_origins": "*"}}, "pages: of every origin"),
        ({"server": {"allowed_origins": "https://app.example"}}, "pages: of https://app.example"),
        ({"api": {"keys": "key"}}, "HTTP API: with the key"),
    ],
)
def test_each_door_says_who_may_pass(overrides: dict[str, dict[str, object]], line: str) -> None:
    """In one clause."""
    assert line in [str(door) for door in doors(configured(overrides))]


def test_a_short_secret_is_told() -> None:
    """RFC 7518 asks for as many bytes as the hash has; the secret itself is not shown."""
    (line,) = [
        line
        for line in safe_start_advice(configured({"client": {"token_hmac_secret": "short"}}))
        if "bytes" in line
    ]
    assert "has 5 bytes, use at least 32" in line
    assert '"short"' not in line
