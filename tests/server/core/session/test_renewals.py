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
from tests.support.tokens import connection_token
from tocsin_server import errors
from tocsin_server.core.events import (
    Approval,
    Authorize,
    Authorized,
    Close,
    GoLive,
    Identify,
    Renewal,
    ServerRefresh,
)
from tocsin_server.core.renewals import LEAD_SECONDS, RETRY_SECONDS
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


def connected(
    lifetime: float = 60, kinds: tuple[type, ...] = ALL, claims: dict[str, Any] | None = None, **approval: Any
) -> Playbook:
    """Return a connection of "ada" that a hook admitted for so many seconds."""

    def needs_authorization(request: Request) -> bool:
        return isinstance(request, kinds)

    playbook = new_connection(
        replace(
            context(OPEN, expired_close_delay=DELAY, ping_interval=9999),
            needs_authorization=needs_authorization,
            authorization_seconds=SECONDS,
        )
    )
    playbook >> {"id": 1, "connect": {}}
    (asked,) = questions(playbook)
    found = ConnectionClaims(sub="ada", expire_at=playbook.now.unix + lifetime, **claims or {})
    return playbook >> Authorized(asked.id, Approval(ConnectRequest(), found, **approval))


def subscribed(lifetime: float, kinds: tuple[type, ...] = ALL) -> Playbook:
    """Return a connection with a subscription that a hook admitted for so many seconds."""
    playbook = connected(9999, kinds) >> {"id": 2, "subscribe": {"channel": "a"}}
    (asked,) = questions(playbook)
    claims = SubscriptionClaims(sub="ada", channel="a", expire_at=playbook.now.unix + lifetime)
    playbook >> Authorized(asked.id, Approval(SubscribeRequest("a"), claims)) << [Opening("a")]
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


def test_the_answer_to_a_clients_own_refresh_is_its_reply() -> None:
    playbook = connected(60) >> {"id": 2, "refresh": {}}
    (asked,) = questions(playbook)
    playbook >> Authorized(asked.id, Renewal(playbook.now.unix + 90))
    playbook << [{"id": 2, "refresh": {"client": "c1", "version": "1.0", "expires": True, "ttl": 90}}]


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


def test_the_answer_to_a_clients_own_sub_refresh_is_its_reply() -> None:
    playbook = subscribed(60) >> {"id": 3, "sub_refresh": {"channel": "a"}}
    (asked,) = questions(playbook)
    playbook >> Authorized(asked.id, Renewal(playbook.now.unix + 90))
    playbook << [{"id": 3, "sub_refresh": {"expires": True, "ttl": 90}}]


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
