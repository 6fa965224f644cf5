"""Why a client was refused is reported for the operator, and the client gets the protocol's message alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.core.playbook import START, connected, context, new_connection
from tests.support.tokens import connection_token, subscription_token
from tocsin_server.config.channel_options import ChannelOptions

NOW = START.unix


@pytest.mark.parametrize(
    ("token", "options", "report"),
    [
        ("garbage", {}, ("connection token", "it is no signed JSON Web Token")),
        (connection_token("ada", exp=NOW - 60), {}, ("connection token", "expired 60 s ago")),
        (connection_token("ada", nbf=NOW + 60), {}, ("connection token", "not valid for another 60 s")),
        (connection_token("ada", expire_at=NOW - 60), {}, ("connection token", "its expire_at has passed")),
        (connection_token("ada", channels=["no:1"]), {}, ("connection token", "unknown channel: no:1")),
        (connection_token("ada", b64info="!"), {}, ("connection token", "Only base64 data is allowed")),
        ("", {}, ("connect", "there is no token, and client.allow_anonymous is false")),
        (
            connection_token("ada"),
            {"connections": 2, "user_connection_limit": 2},
            ("connect", "the user has client.user_connection_limit (2) connections"),
        ),
        (
            connection_token("ada", channels=["a", "b"]),
            {"channel_limit": 1},
            ("connect", "more than client.channel_limit (1) channels"),
        ),
    ],
)
def test_why_a_connect_is_refused_is_reported(
    token: str, options: dict[str, Any], report: tuple[str, str]
) -> None:
    """Once, and without the token."""
    reports: list[tuple[str, str]] = []
    new_connection(context(reports=reports, **options)) >> {"id": 1, "connect": {"token": token}}
    assert reports == [report]


@pytest.mark.parametrize(
    ("token", "report"),
    [
        ("garbage", ("subscription token", "it is no signed JSON Web Token")),
        (subscription_token("ada", "other"), ("subscription token", "it is for another channel")),
        (subscription_token("bob", "news"), ("subscription token", "it is for another user")),
        (subscription_token("ada", "news", client="c2"), ("subscription token", "it is for another client")),
        (subscription_token("ada", "news", exp=NOW - 60), ("subscription token", "expired 60 s ago")),
        (
            subscription_token("ada", "news", expire_at=NOW - 60),
            ("subscription token", "its expire_at has passed"),
        ),
        ("", ("subscribe", "permission denied, and no subscription token: news")),
    ],
)
def test_why_a_subscribe_is_refused_is_reported(token: str, report: tuple[str, str]) -> None:
    reports: list[tuple[str, str]] = []
    connected(context(ChannelOptions(), reports=reports)) >> {
        "id": 2,
        "subscribe": {"channel": "news", "token": token},
    }
    assert reports == [report]


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("garbage", "it is no signed JSON Web Token"),
        (connection_token("bob"), "it is for another user"),
        (connection_token("ada", channels=["news"]), "it grants other channels"),
    ],
)
def test_why_a_refresh_is_refused_is_reported(token: str, reason: str) -> None:
    reports: list[tuple[str, str]] = []
    connected(context(reports=reports)) >> {"id": 2, "refresh": {"token": token}}
    assert reports == [("connection token", reason)]


def test_a_client_that_is_accepted_is_not_reported() -> None:
    reports: list[tuple[str, str]] = []
    connected(context(reports=reports)) >> {"id": 2, "subscribe": {"channel": "news"}}
    assert reports == []
