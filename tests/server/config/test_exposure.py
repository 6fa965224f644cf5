"""Exposure: what a configuration leaves open, and what it keeps closed, in sentences."""

from collections.abc import Mapping

import pytest

from tocsin_server.config.exposure import exposures, startup_notices
from tocsin_server.config.loading import Settings

SECRET = "hush-hush-hush-hush-hush-hush-32"


def configured(sections: Mapping[str, Mapping[str, object]]) -> Settings:
    return Settings.model_validate(sections)


def test_a_node_without_configuration_prints_which_keys_to_set() -> None:
    """Each closed way to reach the node comes with the key that opens it."""
    said = "\n".join(startup_notices(Settings()))
    for key in ["server.host", "client.token_hmac_secret", "server.allowed_origins", "api.keys"]:
        assert f"set {key}" in said


def test_an_insecure_node_prints_a_loud_warning() -> None:
    """The warning says which machines can reach the node."""
    open_ = {"client": {"insecure": True}, "api": {"insecure": True}}
    local = [line for line in startup_notices(configured(open_)) if "INSECURE" in line]
    assert len(local) == 2
    assert all("reached from this machine" in line for line in local)
    far = startup_notices(configured({**open_, "server": {"host": "0.0.0.0"}}))
    assert sum("reached from OTHER MACHINES" in line for line in far) == 2


def test_a_node_with_deliberate_settings_prints_no_notices() -> None:
    """Notices that are always there are not read."""
    settings = configured(
        {
            "server": {"host": "127.0.0.1", "allowed_origins": ["https://app.example"]},
            "client": {"token_hmac_secret": SECRET},
            "channels": {"allow_subscribe_for_client": True},
            "api": {"keys": ["key"]},
        },
    )
    assert startup_notices(settings) == []


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"server": {"host": "::1"}}, "address: [::1]:8000, which only this machine can reach"),
        ({"server": {"host": "node.example"}}, "address: node.example:8000"),
        ({"server": {"host": "0.0.0.0", "port": 0}}, "address: 0.0.0.0, on a free port"),
        (
            {"client": {"allow_anonymous": True}},
            "clients: may connect without a token; tokens are refused, since no key is set",
        ),
        (
            {"client": {"allow_anonymous": True, "token_hmac_secret": SECRET}},
            "clients: may connect with a token or without one",
        ),
        ({"client": {"insecure": True}}, "channels: every client may subscribe to all of them"),
        (
            {"namespaces": {"chat": {"allow_subscribe_for_anonymous": True}, "news": {}}},
            "channels: those of [namespaces.chat] need no subscription token",
        ),
        (
            {"channels": {"allow_user_limited_channels": True}},
            "channels: need a subscription token, or a name that lists the user",
        ),
        ({"server": {"allowed_origins": "*"}}, "pages: those of every origin may connect"),
        (
            {"server": {"allowed_origins": "self, https://app.example"}},
            "pages: those of this server, https://app.example may connect",
        ),
        ({"api": {"keys": "key"}}, "HTTP API: needs the key"),
    ],
)
def test_each_exposure_is_one_line(overrides: dict[str, dict[str, object]], line: str) -> None:
    """It says which clients, pages or callers have access."""
    assert line in [str(exposure) for exposure in exposures(configured(overrides))]


def test_a_short_secret_is_reported() -> None:
    """RFC 7518 requires as many bytes as the hash has. The secret itself is not shown."""
    (line,) = [
        line
        for line in startup_notices(configured({"client": {"token_hmac_secret": "short"}}))
        if "bytes" in line
    ]
    assert "has 5 bytes, use at least 32" in line
    assert '"short"' not in line
