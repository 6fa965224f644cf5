"""Options that do not agree: each pair has a sentence that names its keys."""

import json

import pytest

from tests.support.tokens import SECRET, subscription_token
from tocsin_server.config.contradictions import SUBSCRIBE_BYTES, contradictions
from tocsin_server.config.loading import Settings


def found(**sections: object) -> list[str]:
    return contradictions(Settings.model_validate(sections))


def test_the_defaults_agree() -> None:
    """No limit must be set because of the default of another one."""
    assert found() == []


def test_the_default_message_limit_admits_as_many_subscriptions_as_the_channel_limit() -> None:
    """An SDK sends them in one message. The tokens have the claims of an identity provider."""
    client = Settings().client
    channel = "$" + "c" * (client.channel_length_limit - 1)
    token = subscription_token("u" * 100, channel, secret=SECRET, groups=["g" * 36] * 50)
    command = json.dumps({"id": 2**32 - 1, "subscribe": {"channel": channel, "token": token}})
    assert len(command) < SUBSCRIBE_BYTES
    assert client.channel_limit * (len(command) + 1) <= client.message_limit_bytes


@pytest.mark.parametrize(
    ("sections", "keys"),
    [
        (
            {"server": {"proxy_protocol": True}},
            ["server.proxy_protocol is true", "server.trusted_proxies is empty"],
        ),
        ({"admin": {"public": ["health"]}}, ["admin.public is set", "admin.host"]),
        ({"admin": {"tls_key": "/file"}}, ["admin.tls_key is set", "admin.host"]),
        (
            {"admin": {"host": "::1", "serve": ["api"], "public": ["docs"]}},
            ["admin.public has docs", "admin.serve has not"],
        ),
        (
            {"client": {"message_limit_bytes": 65_536}},
            ["client.message_limit_bytes is 65536", "at least 524288", "client.channel_limit (128)"],
        ),
        (
            {
                "client": {
                    "channel_limit": 1000,
                    "command_burst": 1001,
                    "error_limit": 1000,
                    "new_channel_burst": 1000,
                }
            },
            ["client.message_limit_bytes is 524288", "at least 4096000", "client.channel_limit (1000)"],
        ),
        (
            {"api": {"body_limit_bytes": 8_000_000}},
            ["client.queue_limit_bytes is 2097152", "at least 8065536", "api.body_limit_bytes (8000000)"],
        ),
        (
            {"client": {"message_limit_bytes": 4_000_000}},
            [
                "client.queue_limit_bytes is 2097152",
                "at least 4065536",
                "client.message_limit_bytes (4000000)",
            ],
        ),
        *(
            ({section: {key: needed - 1}}, [f"{section}.{key} is {needed - 1}", f"at least {needed}"])
            for section, key, needed in (
                ("client", "command_burst", 129),
                ("client", "user_command_burst", 129),
                ("client", "new_channel_burst", 128),
                ("client", "user_new_channel_burst", 128),
                ("client", "error_limit", 128),
                ("limits", "new_channel_burst", 128),
            )
        ),
        (
            {"client": {"expired_close_delay": 1}},
            ["client.token_leeway is 5 s", "client.expired_close_delay (1 s)"],
        ),
        (
            {"client": {"personal_channel_single_connection": True}},
            ["client.personal_channel_single_connection", "client.personal_channel is false"],
        ),
        (
            {"client": {"personal_channel_namespace": "chat"}, "namespaces": {"chat": {}}},
            ["client.personal_channel_namespace", "client.personal_channel is false"],
        ),
        (
            {
                "client": {
                    "personal_channel": True,
                    "personal_channel_single_connection": True,
                    "user_connection_limit": 1,
                }
            },
            ["client.user_connection_limit is 1", "client.personal_channel_single_connection"],
        ),
        (
            {"client": {"personal_channel": True}, "channels": {"channel_regex": "^[a-z]+$"}},
            ["channels.channel_regex", "personal channels"],
        ),
        (
            {"namespaces": {"chat": {"force_positioning": True}}},
            ["namespaces.chat.force_positioning", "namespaces.chat.history_size"],
        ),
        (
            {"channels": {"force_push_join_leave": True}},
            ["channels.force_push_join_leave", "channels.join_leave is false"],
        ),
    ],
)
def test_a_contradiction_is_one_sentence_that_names_its_keys(
    sections: dict[str, object], keys: list[str]
) -> None:
    """It also says which value would agree."""
    (sentence,) = found(**sections)
    assert sentence.endswith(".")
    for key in keys:
        assert key in sentence


def test_limits_that_are_raised_together_agree() -> None:
    """The sentences name values that are enough."""
    assert not found(
        client={
            "channel_limit": 1000,
            "message_limit_bytes": 4_096_000,
            "queue_limit_bytes": 8_065_536,
            "command_burst": 1001,
            "error_limit": 1000,
            "new_channel_burst": 1000,
        },
        api={"body_limit_bytes": 8_000_000},
    )


def test_a_burst_without_a_rate_is_no_limit() -> None:
    """A rate of 0 switches the limit off."""
    assert not found(client={"command_rate": 0, "command_burst": 1})
