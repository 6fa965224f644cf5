"""Revocations: which tokens they cover, and what a session does about its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.server.core.playbook import (
    START,
    Closing,
    Playbook,
    connected,
    context,
    error,
    new_connection,
    opened,
    unsubscribe_push,
)
from tests.support.tokens import connection_token, subscription_token
from tocsin_server import errors
from tocsin_server.core.events import Approval, Authorized, Close, TokensRevoked
from tocsin_server.core.revocations import Revocation, Revocations
from tocsin_server.core.session_context import SessionContext
from tocsin_server.core.tokens import ConnectionClaims
from tocsin_server.protocol.messages import ConnectRequest

NOW = START.unix
LATER = NOW + 1000
REVOKED = error(1, 109, "token expired: it was revoked")


def revocations(*added: Revocation) -> Revocations:
    found = Revocations()
    for revocation in added:
        found.add(revocation, NOW)
    return found


@pytest.mark.parametrize(
    ("token", "is_covered"),
    [
        (("t1", "bob", NOW), True),
        (("t2", "bob", NOW), False),
        (("", "bob", 0.0), False),
        (("", "ann", 99.0), True),
        (("", "ann", 99.9), True),
        (("", "ann", 100.0), False),
        (("t2", "ann", 0.0), True),
        (("", "", 0.0), False),
        (("", "eve", 0.0), False),
    ],
)
def test_a_token_is_covered_by_its_id_or_its_user_and_time(
    token: tuple[str, str, float], is_covered: bool
) -> None:
    known = revocations(
        Revocation(LATER, token_id="t1"),
        Revocation(LATER, user="ann", issued_before=100),
        Revocation(LATER, user="eve", channel="news", issued_before=100),
    )
    assert known.covers(*token, NOW) is is_covered
    assert not known.covers(*token, LATER)


def test_a_revocation_of_a_channel_covers_only_its_subscription_tokens() -> None:
    known = revocations(Revocation(LATER, user="eve", channel="news", issued_before=100))
    assert known.covers("", "eve", 50, NOW, "news")
    assert not known.covers("", "eve", 50, NOW, "chat")
    assert not known.covers("", "eve", 100, NOW, "news")
    assert not known.covers("", "bob", 50, NOW, "news")


def test_a_second_revocation_never_revokes_less() -> None:
    known = Revocations()
    assert known.add(Revocation(NOW + 9, user="ann", issued_before=100), NOW)
    assert not known.add(Revocation(NOW + 5, user="ann", issued_before=90), NOW)
    assert known.add(Revocation(NOW + 5, user="ann", issued_before=110), NOW)
    assert known.covers("", "ann", 105, NOW + 8)
    assert known.add(Revocation(NOW + 5, token_id="t"), NOW)
    assert not known.add(Revocation(NOW + 5, token_id="t"), NOW)
    assert not known.add(Revocation(NOW, token_id="past"), NOW)
    assert len(known) == 2


def test_expired_revocations_are_freed() -> None:
    """However many there were."""
    known = revocations(Revocation(NOW + 50_000, token_id="stays"))
    for second in range(10_000):
        known.add(Revocation(NOW + second + 1, token_id=str(second)), NOW + second)
        assert len(known) <= 200
    assert [one.token_id for one in known.all() if one.expire_at == NOW + 50_000] == ["stays"]


def test_all_revocations_make_an_equal_copy() -> None:
    known = [Revocation(LATER, token_id="t"), Revocation(LATER, user="ann", channel="c", issued_before=7)]
    assert revocations(*known).all() == known


# --------------------------------------------------------------------------------------------------- sessions


def connect(playbook: Playbook, **claims: Any) -> Playbook:
    return playbook >> {"id": 1, "connect": {"token": connection_token("ada", **claims)}}


@pytest.mark.parametrize(
    ("revocation", "claims", "is_revoked"),
    [
        (Revocation(LATER, token_id="t1"), {"jti": "t1", "iat": NOW}, True),
        (Revocation(LATER, token_id="t1"), {"jti": "t2"}, False),
        (Revocation(LATER, user="ada", issued_before=NOW), {"iat": NOW - 1}, True),
        (Revocation(LATER, user="ada", issued_before=NOW), {"iat": NOW}, False),
        (Revocation(LATER, user="ada", issued_before=NOW), {}, True),
        (Revocation(LATER, user="bob", issued_before=NOW), {}, False),
    ],
)
def test_a_revoked_token_opens_no_connection_and_ends_the_open_one(
    revocation: Revocation, claims: dict[str, Any], is_revoked: bool
) -> None:
    """The new connect has error 109, after which SDKs get a new token; the close is 3005."""
    session_context = context()
    before = connected(session_context, **claims)
    session_context.revocations.add(revocation, NOW)
    before >> TokensRevoked() << ([Close(errors.CONNECTION_EXPIRED)] if is_revoked else [])
    after = connect(new_connection(session_context), **claims)
    if is_revoked:
        assert after << [REVOKED]
    else:
        assert after.session.user == "ada"


def test_a_connection_that_is_being_made_ends_too() -> None:
    """Its server-side subscriptions are closed once they are set up."""
    session_context = context()
    playbook = connect(new_connection(session_context), jti="t1", channels=["news"])
    session_context.revocations.add(Revocation(LATER, token_id="t1"), NOW)
    playbook >> TokensRevoked() << [Close(errors.CONNECTION_EXPIRED)]
    playbook >> opened("news") << [Closing("news")]


def test_a_connection_without_a_token_is_not_revoked() -> None:
    session_context = context(allow_anonymous=True)
    playbook = new_connection(session_context) >> {"id": 1, "connect": {}}
    session_context.revocations.add(Revocation(LATER, user="ada", issued_before=NOW), NOW)
    playbook >> TokensRevoked() << []


def test_a_refresh_with_a_revoked_token_expires_the_connection() -> None:
    session_context = context()
    playbook = connected(session_context, jti="t1", exp=NOW + 60)
    session_context.revocations.add(Revocation(LATER, token_id="t2"), NOW)
    token = connection_token("ada", jti="t2", exp=NOW + 90)
    playbook >> {"id": 2, "refresh": {"token": token}} << [Close(errors.CONNECTION_EXPIRED)]


def test_a_refreshed_connection_is_that_of_its_new_token() -> None:
    session_context = context()
    playbook = connected(session_context, jti="t1", exp=NOW + 60)
    playbook >> {"id": 2, "refresh": {"token": connection_token("ada", jti="t2", exp=NOW + 90)}}
    session_context.revocations.add(Revocation(LATER, token_id="t1"), NOW)
    assert not playbook.session.has_token({"t1"})
    playbook >> TokensRevoked() << []
    session_context.revocations.add(Revocation(LATER, token_id="t2"), NOW)
    assert playbook.session.has_token({"t2"})
    playbook >> TokensRevoked() << [Close(errors.CONNECTION_EXPIRED)]


def with_subscription(session_context: SessionContext, **claims: Any) -> Playbook:
    """A connection with a subscription by token to `news`, and one without a token to `chat`."""
    playbook = connected(session_context, iat=NOW)
    token = subscription_token("ada", "news", **claims)
    playbook >> {"id": 2, "subscribe": {"channel": "news", "token": token}} >> opened("news")
    playbook >> {"id": 3, "subscribe": {"channel": "chat"}} >> opened("chat")
    assert playbook.session.live_channels == ["news", "chat"]
    return playbook


@pytest.mark.parametrize(
    ("revocation", "ends"),
    [
        (Revocation(LATER, token_id="t1"), True),
        (Revocation(LATER, user="ada", channel="news", issued_before=NOW), True),
        (Revocation(LATER, user="ada", issued_before=NOW), True),
        (Revocation(LATER, user="ada", channel="chat", issued_before=NOW), False),
        (Revocation(LATER, user="ada", channel="news", issued_before=NOW - 9), False),
    ],
)
def test_a_revoked_subscription_token_ends_its_subscription_alone(revocation: Revocation, ends: bool) -> None:
    """With 2501, so that the client gets a new token for it. The old one has error 109."""
    session_context = context()
    playbook = with_subscription(session_context, jti="t1", iat=NOW - 5)
    session_context.revocations.add(revocation, NOW)
    push = unsubscribe_push("news", 2501, "subscription expired")
    playbook >> TokensRevoked() << ([Closing("news"), push] if ends else [])
    if ends:
        token = subscription_token("ada", "news", jti="t1", iat=NOW - 5)
        again = playbook >> {"id": 4, "subscribe": {"channel": "news", "token": token}}
        assert again << [error(4, 109, "token expired: it was revoked")]


def test_a_sub_refresh_with_a_revoked_token_is_refused() -> None:
    session_context = context()
    playbook = with_subscription(session_context, jti="t1", iat=NOW, exp=NOW + 60)
    session_context.revocations.add(Revocation(LATER, token_id="t2"), NOW)
    token = subscription_token("ada", "news", jti="t2", exp=NOW + 90)
    refresh = {"id": 4, "sub_refresh": {"channel": "news", "token": token}}
    playbook >> refresh << [error(4, 109, "token expired: it was revoked")]


def test_a_refreshed_subscription_is_that_of_its_new_token() -> None:
    session_context = context()
    playbook = with_subscription(session_context, jti="t1", iat=NOW, exp=NOW + 60)
    token = subscription_token("ada", "news", jti="t2", exp=NOW + 90)
    playbook >> {"id": 4, "sub_refresh": {"channel": "news", "token": token}}
    session_context.revocations.add(Revocation(LATER, token_id="t1"), NOW)
    assert not playbook.session.has_token({"t1"})
    playbook >> TokensRevoked() << []
    session_context.revocations.add(Revocation(LATER, token_id="t2"), NOW)
    assert playbook.session.has_token({"t2"})
    playbook >> TokensRevoked()
    assert playbook.session.live_channels == ["chat"]


def test_a_subscription_that_is_being_set_up_ends_after_its_reply() -> None:
    session_context = context()
    playbook = connected(session_context, iat=NOW)
    token = subscription_token("ada", "news", jti="t1")
    playbook >> {"id": 2, "subscribe": {"channel": "news", "token": token}}
    session_context.revocations.add(Revocation(LATER, token_id="t1"), NOW)
    playbook >> TokensRevoked() << []
    playbook >> opened("news")
    assert playbook.session.live_channels == []


def test_the_claims_of_an_authorizer_count_as_issued_now() -> None:
    """It decides at this moment, so that an earlier revocation of the user's tokens does not concern them."""
    session_context = replace(context(), needs_authorization=lambda _request: True)
    session_context.revocations.add(Revocation(LATER, user="ada", issued_before=NOW), NOW)
    for claims, is_accepted in [
        (ConnectionClaims(sub="ada"), True),
        (ConnectionClaims(sub="ada", iat=NOW - 1), False),
    ]:
        playbook = new_connection(session_context) >> {"id": 1, "connect": {}}
        playbook >> Authorized(1, Approval(ConnectRequest(), claims))
        assert (playbook.session.user == "ada") is is_accepted
        playbook >> TokensRevoked()
        assert playbook.session.user == ("ada" if is_accepted else "")
