"""Expiries of what was authorized from outside: the session asks before them, and no command waits for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec import Raw

from tests.server.core.playbook import (
    OPEN,
    Closing,
    Opening,
    Playbook,
    Wait,
    connect_reply,
    context,
    error,
    new_connection,
    opened,
)
from tests.support.tokens import connection_token, subscription_token
from tocsin_server import errors
from tocsin_server.core.events import (
    Approval,
    Authorize,
    Authorized,
    Close,
    ConnectionRefused,
    ConnectionReserved,
    GoLive,
    Identify,
    Renewal,
    ReserveConnection,
    ServerRefresh,
    ServerSubscribe,
    ServerUnsubscribe,
    TokensRevoked,
)
from tocsin_server.core.renewals import LEAD_SECONDS, RETRY_SECONDS
from tocsin_server.core.revocations import Revocation
from tocsin_server.core.session_context import SessionContext
from tocsin_server.core.tokens import ConnectionClaims, ExpiringGrant, SubscriptionClaims
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.protocol.messages import (
    ClientInfo,
    ConnectRequest,
    RefreshRequest,
    Request,
    RpcRequest,
    RpcResult,
    SubRefreshRequest,
    SubscribeRequest,
)

SECONDS = 3.0
"""How long an answer may take."""
DELAY = 4.0
"""How long after its expiry a connection or subscription ends."""
REFUSED = Refusal(1000, "the session is over")
TEMPORARY = Refusal(1001, "later", temporary=True)
ALL = (ConnectRequest, SubscribeRequest, RefreshRequest, SubRefreshRequest, RpcRequest)


def asking_context(kinds: tuple[type, ...], **client: Any) -> SessionContext:
    """Return a context in which hooks are asked about these kinds of requests."""

    def needs_authorization(request: Request) -> bool:
        if isinstance(request, RefreshRequest | SubRefreshRequest) and request.token:
            return False
        return isinstance(request, kinds)

    return replace(
        context(OPEN, expired_close_delay=DELAY, ping_interval=9999, **client),
        needs_authorization=needs_authorization,
        authorization_seconds=SECONDS,
    )


def connected(
    lifetime: float = 60,
    kinds: tuple[type, ...] = ALL,
    claims: dict[str, Any] | None = None,
    token: str = "",
    user_connection_limit: int = 0,
    **approval: Any,
) -> Playbook:
    """Return a connection of "ada" that a hook admitted for so many seconds, also in place of a token."""
    playbook = new_connection(asking_context(kinds, user_connection_limit=user_connection_limit))
    playbook >> {"id": 1, "connect": {"token": token}}
    (asked,) = questions(playbook)
    found = ConnectionClaims(sub="ada", expire_at=playbook.now.unix + lifetime, **claims or {})
    return playbook >> Authorized(asked.id, Approval(ConnectRequest(token), found, **approval))


def subscribed(lifetime: float, kinds: tuple[type, ...] = ALL, token: str = "") -> Playbook:
    """Return a connection with a subscription that a hook admitted for so many seconds."""
    playbook = connected(9999, kinds) >> {"id": 2, "subscribe": {"channel": "a", "token": token}}
    (asked,) = questions(playbook)
    claims = SubscriptionClaims(sub="ada", channel="a", expire_at=playbook.now.unix + lifetime)
    playbook >> Authorized(asked.id, Approval(SubscribeRequest("a", token), claims)) << [Opening("a")]
    return playbook >> opened("a") << [{"id": 2, "subscribe": {}}, GoLive("a")]


def questions(playbook: Playbook) -> list[Authorize]:
    return [effect for effect in playbook.effects if isinstance(effect, Authorize)]


def asked_after(playbook: Playbook, seconds: float) -> Authorize:
    """Return the one question that is asked within so many seconds, and not before."""
    playbook >> Wait(seconds - 0.5) << []
    (asked,) = questions(playbook >> Wait(0.5))
    assert asked.id < 0
    return asked


def test_a_client_is_not_told_of_an_expiry_for_which_it_has_no_token() -> None:
    connected() << [Identify("ada"), connect_reply(ping=9999)]


def test_the_connect_reply_has_the_data_of_the_answer() -> None:
    connected(data=Raw(b'{"a":1}')) << [Identify("ada"), connect_reply(ping=9999, data={"a": 1})]


def test_the_session_asks_before_the_connection_expires_and_again_before_the_next_expiry() -> None:
    playbook = connected(60)
    asked = asked_after(playbook, 60 - LEAD_SECONDS)
    assert (asked.request, asked.info) == (RefreshRequest(), ClientInfo("ada", "c1"))
    playbook >> Authorized(asked.id, Renewal(playbook.now.unix + 100, Raw(b'"new"'))) << []
    assert playbook.session.info == ClientInfo("ada", "c1", Raw(b'"new"'))
    asked_after(playbook, 100 - LEAD_SECONDS)


def test_a_short_life_is_renewed_after_its_half() -> None:
    asked_after(connected(8), 4)


def test_a_renewal_without_an_end_is_the_last() -> None:
    playbook = connected(60)
    asked = asked_after(playbook, 60 - LEAD_SECONDS)
    playbook >> Authorized(asked.id, Renewal()) >> Wait(5000) << []


def test_commands_do_not_wait_for_a_renewal() -> None:
    playbook = connected(60)
    asked_after(playbook, 60 - LEAD_SECONDS)
    assert not playbook.session.is_busy
    playbook >> {"id": 2, "unsubscribe": {"channel": "a"}} << [{"id": 2, "unsubscribe": {}}]


@pytest.mark.parametrize(
    ("outcome", "why"),
    [(REFUSED, errors.CONNECTION_EXPIRED), (Disconnect(4500, "gone"), Disconnect(4500, "gone"))],
    ids=["refused", "disconnected"],
)
def test_a_connection_that_may_not_go_on_is_closed(outcome: Refusal | Disconnect, why: Disconnect) -> None:
    playbook = connected(60)
    asked = asked_after(playbook, 60 - LEAD_SECONDS)
    playbook >> Authorized(asked.id, outcome) << [Close(why)]


def test_a_temporary_refusal_is_asked_again_until_the_connection_ends() -> None:
    playbook = connected(60)
    asked = asked_after(playbook, 60 - LEAD_SECONDS)
    playbook >> Authorized(asked.id, TEMPORARY) << []
    again = asked_after(playbook, RETRY_SECONDS)
    playbook >> Authorized(again.id, TEMPORARY) >> Wait(LEAD_SECONDS - RETRY_SECONDS + DELAY)
    assert playbook.effects[-1] == Close(errors.CONNECTION_EXPIRED)


def test_a_question_without_an_answer_is_asked_again_and_the_late_answer_ignored() -> None:
    playbook = connected(60)
    late = asked_after(playbook, 60 - LEAD_SECONDS)
    again = asked_after(playbook, SECONDS + RETRY_SECONDS)
    playbook >> Authorized(late.id, REFUSED) << []
    playbook >> Authorized(again.id, Renewal()) >> Wait(5000) << []


def test_without_an_opinion_the_connection_expires() -> None:
    playbook = connected(60)
    asked = asked_after(playbook, 60 - LEAD_SECONDS)
    playbook >> Authorized(asked.id, Approval(RefreshRequest())) << []
    playbook >> Wait(LEAD_SECONDS + DELAY) << [Close(errors.CONNECTION_EXPIRED)]


def test_nothing_is_asked_where_no_answer_is_given_to_refreshes() -> None:
    playbook = connected(60, kinds=(ConnectRequest,)) >> Wait(60 + DELAY)
    playbook << [Close(errors.CONNECTION_EXPIRED)]


def test_a_refresh_by_the_api_moves_the_question() -> None:
    playbook = connected(60)
    playbook >> ServerRefresh(expire_at=playbook.now.unix + 200)
    asked_after(playbook, 200 - LEAD_SECONDS)


@pytest.mark.parametrize("token", ["", connection_token("ada")], ids=["without a token", "with a token"])
@pytest.mark.parametrize("connect_token", ["", connection_token("ada")], ids=["no token", "token"])
def test_a_client_cannot_refresh_a_connection_that_a_hook_admitted(connect_token: str, token: str) -> None:
    """The node renews it. Else the client's token would bring back what the hook did not grant."""
    playbook = connected(60, token=connect_token)
    playbook >> {"id": 2, "refresh": {"token": token}} << [Close(errors.PROTOCOL_VIOLATION)]


def test_a_hook_that_admitted_in_place_of_a_token_is_asked_to_renew() -> None:
    playbook = connected(60, token=connection_token("ada")) << [Identify("ada"), connect_reply(ping=9999)]
    asked_after(playbook, 60 - LEAD_SECONDS)


@pytest.mark.parametrize("channel", ["", "a"], ids=["connection", "subscription"])
def test_an_answer_that_changes_nothing_is_asked_for_seldom_until_the_expiry(channel: str) -> None:
    playbook = subscribed(60) if channel else connected(60)
    expire_at = playbook.now.unix + 60
    times = []
    for seconds in range(60 + round(DELAY)):
        for asked in questions(playbook >> Wait(1)):
            times.append(seconds + 1)
            playbook >> Authorized(asked.id, Renewal(expire_at))
    assert times == [50, 55, 60]
    is_over = not playbook.session.live_channels if channel else playbook.session.is_closed
    assert is_over


def test_an_answer_that_names_a_passed_moment_says_that_the_connection_has_expired() -> None:
    playbook = connected(60)
    asked = asked_after(playbook, 60 - LEAD_SECONDS)
    playbook >> Authorized(asked.id, Renewal(playbook.now.unix)) << [Close(errors.CONNECTION_EXPIRED)]


def test_nothing_is_asked_before_the_connect_reply() -> None:
    """The session waits for no moment that has come already."""
    playbook = connected(1, user_connection_limit=5)
    playbook << [Identify("ada"), ReserveConnection("ada")]
    playbook >> Wait(2) << []
    playbook >> ConnectionReserved() >> Wait(0)
    assert questions(playbook)


def test_nothing_is_asked_about_a_refused_connection() -> None:
    playbook = connected(1, user_connection_limit=5) >> ConnectionRefused(REFUSED)
    playbook << [error(1, 1000, "the session is over")]
    playbook >> Wait(2) << []


# ---------------------------------------------------------------------------------------------- subscriptions


def test_a_subscription_is_renewed_before_it_expires() -> None:
    playbook = subscribed(60)
    asked = asked_after(playbook, 60 - LEAD_SECONDS)
    assert asked.request == SubRefreshRequest("a")
    playbook >> Authorized(asked.id, Renewal(playbook.now.unix + 100)) << []
    asked_after(playbook, 100 - LEAD_SECONDS)


def test_a_subscription_that_may_not_go_on_ends_so_that_its_client_subscribes_again() -> None:
    playbook = subscribed(60)
    asked = asked_after(playbook, 60 - LEAD_SECONDS)
    playbook >> Authorized(asked.id, REFUSED)
    playbook << [Closing("a"), unsubscribed("a", 2501, "subscription expired")]


def test_a_subscription_without_a_renewal_ends_in_the_same_way() -> None:
    playbook = subscribed(60, kinds=(ConnectRequest, SubscribeRequest)) >> Wait(60 + DELAY)
    playbook << [Closing("a"), unsubscribed("a", 2501, "subscription expired")]


def test_nothing_is_asked_for_a_channel_that_the_client_has_left() -> None:
    playbook = subscribed(60) >> {"id": 3, "unsubscribe": {"channel": "a"}}
    playbook >> Wait(1000) << []


@pytest.mark.parametrize("sub_token", ["", "any"], ids=["no token", "token"])
def test_a_client_cannot_refresh_a_subscription_that_a_hook_admitted(sub_token: str) -> None:
    playbook = subscribed(60, token=sub_token) >> {"id": 3, "sub_refresh": {"channel": "a"}}
    playbook << [error(3, 107, "bad request: there is no token")]
    token = subscription_token("ada", "a")
    playbook >> {"id": 4, "sub_refresh": {"channel": "a", "token": token}}
    playbook << [Close(errors.PROTOCOL_VIOLATION), Closing("a")]


def test_a_subscription_admitted_in_place_of_a_token_is_renewed_by_the_hook() -> None:
    asked = asked_after(subscribed(60, token="any"), 60 - LEAD_SECONDS)
    assert asked.request == SubRefreshRequest("a")


@pytest.mark.parametrize("outcome", [REFUSED, Renewal(1)], ids=["refused", "expired"])
def test_a_late_answer_does_not_concern_the_next_subscription(outcome: Refusal | Renewal) -> None:
    playbook = subscribed(60)
    late = asked_after(playbook, 60 - LEAD_SECONDS)
    playbook >> {"id": 3, "unsubscribe": {"channel": "a"}} >> {"id": 4, "subscribe": {"channel": "a"}}
    (asked,) = questions(playbook)
    claims = SubscriptionClaims(sub="ada", channel="a", expire_at=playbook.now.unix + 9000)
    playbook >> Authorized(asked.id, Approval(SubscribeRequest("a"), claims)) >> opened("a")
    playbook >> Authorized(late.id, outcome) << []
    assert playbook.session.live_channels == ["a"]


def test_a_late_answer_ends_no_subscription_that_the_api_made_meanwhile() -> None:
    playbook = subscribed(60)
    late = asked_after(playbook, 60 - LEAD_SECONDS)
    playbook >> ServerUnsubscribe("a") >> ServerSubscribe("a") >> opened("a")
    playbook >> Authorized(late.id, REFUSED) << []


# ------------------------------------------------------------------------------------------------ revocations


def revoked(playbook: Playbook, channel: str = "") -> Revocation:
    """Revoke the tokens of "ada" that were issued until now. A moment passes."""
    now = playbook.now.unix + 0.5
    revocation = Revocation(now + 9999, user="ada", channel=channel, issued_before=now)
    playbook.session._context.revocations.add(revocation, now)
    playbook >> TokensRevoked() >> Wait(1)
    return revocation


def test_a_revocation_counts_while_a_connect_hook_is_asked() -> None:
    """The hook may have decided before it."""
    playbook = new_connection(asking_context(ALL)) >> {"id": 1, "connect": {}}
    (asked,) = questions(playbook)
    revoked(playbook)
    playbook >> Authorized(asked.id, Approval(ConnectRequest(), ConnectionClaims(sub="ada")))
    playbook << [error(1, 109, "token expired: it was revoked")]


def test_a_revocation_counts_while_a_subscribe_hook_is_asked() -> None:
    playbook = connected(9999) >> {"id": 2, "subscribe": {"channel": "a"}}
    (asked,) = questions(playbook)
    revoked(playbook, "a")
    claims = SubscriptionClaims(sub="ada", channel="a")
    playbook >> Authorized(asked.id, Approval(SubscribeRequest("a"), claims))
    playbook << [error(2, 109, "token expired: it was revoked")]


@pytest.mark.parametrize("channel", ["", "a"], ids=["connection", "subscription"])
def test_a_renewal_counts_as_issued_when_it_was_asked_for(channel: str) -> None:
    """A node may learn of a revocation after the answer, and the question was asked before it."""
    for is_asked_before in (True, False):
        playbook = subscribed(60) if channel else connected(60)
        if not is_asked_before:
            playbook >> Wait(60 - LEAD_SECONDS - 1)
        at = playbook.now.unix + 60 - LEAD_SECONDS + 0.5 if is_asked_before else playbook.now.unix
        asked = asked_after(playbook, 60 - LEAD_SECONDS if is_asked_before else 1)
        playbook >> Wait(1) >> Authorized(asked.id, Renewal(playbook.now.unix + 900)) << []
        revocation = Revocation(at + 9999, user="ada", channel=channel, issued_before=at)
        playbook.session._context.revocations.add(revocation, playbook.now.unix)
        playbook >> TokensRevoked()
        assert bool(playbook.effects) is is_asked_before


@pytest.mark.parametrize("channel", ["", "a"], ids=["connection", "subscription"])
def test_a_renewal_without_a_decision_counts_as_issued_before(channel: str) -> None:
    """A revocation of a moment before the question still ends what the application admitted earlier."""
    for is_decided in (True, False):
        playbook = subscribed(60) if channel else connected(60)
        playbook >> Wait(1)
        at = playbook.now.unix
        asked = asked_after(playbook, 60 - LEAD_SECONDS - 1)
        playbook >> Authorized(asked.id, Renewal(playbook.now.unix + 900, is_decided=is_decided)) << []
        revocation = Revocation(at + 9999, user="ada", channel=channel, issued_before=at)
        playbook.session._context.revocations.add(revocation, playbook.now.unix)
        playbook >> TokensRevoked()
        assert bool(playbook.effects) is not is_decided


def test_a_server_side_subscription_of_an_answer_is_renewed_and_its_refusal_closes() -> None:
    grant = ExpiringGrant(info=Raw(b"1"), payload=Raw(b"2"), expire_at=0)
    playbook = connected(9999, claims={"subs": {"b": grant}})
    playbook << [Identify("ada"), Opening("b")]
    playbook >> opened("b") << [connect_reply(ping=9999, subs={"b": {"data": 2}}), GoLive("b")]
    playbook >> Wait(1000) << []
    expiring = ExpiringGrant(expire_at=playbook.now.unix + 60 - 1000)
    playbook = connected(9999, claims={"subs": {"b": expiring}}) >> opened("b")
    asked = asked_after(playbook, 60 - LEAD_SECONDS)
    assert asked.request == SubRefreshRequest("b")
    playbook >> Authorized(asked.id, REFUSED) << [Close(errors.SUBSCRIPTION_EXPIRED), Closing("b")]


def test_a_client_cannot_name_a_channel_in_its_connect_command_that_needs_authorization() -> None:
    """Else it would be subscribed where only an answer may admit it."""
    playbook = new_connection(
        replace(context(OPEN), needs_authorization=lambda request: isinstance(request, SubscribeRequest))
    )
    playbook >> {"id": 1, "connect": {"token": connection_token("ada"), "subs": {"a": {}}}}
    playbook << [Identify("ada"), connect_reply()]


# ------------------------------------------------------------------------------------------------------ calls


def test_an_answer_to_a_call_is_its_result() -> None:
    playbook = connected() >> {"id": 2, "rpc": {"method": "any", "data": 1}}
    (asked,) = questions(playbook)
    playbook >> Authorized(asked.id, RpcResult(Raw(b"[2]"))) << [{"id": 2, "rpc": {"data": [2]}}]


def test_a_call_that_is_left_to_the_server_has_an_unknown_method() -> None:
    playbook = connected() >> {"id": 2, "rpc": {"method": "any"}}
    (asked,) = questions(playbook)
    playbook >> Authorized(asked.id, Approval(asked.request)) << [error(2, 104, "method not found")]


@pytest.mark.parametrize("outcome", [Renewal(), RpcResult()], ids=["renewal", "result"])
def test_an_answer_to_another_kind_of_request_is_a_fault(outcome: Renewal | RpcResult) -> None:
    playbook = connected(9999) >> {"id": 2, "subscribe": {"channel": "a"}}
    (asked,) = questions(playbook)
    with pytest.raises(TypeError, match="answers no SubscribeRequest"):
        playbook >> Authorized(asked.id, outcome)


def unsubscribed(channel: str, code: int, reason: str) -> dict[str, Any]:
    return {"push": {"channel": channel, "unsubscribe": {"code": code, "reason": reason}}}
