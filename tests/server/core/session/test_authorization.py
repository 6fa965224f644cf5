"""Requests that wait for an answer from outside the session: order, time limit, refusal, lost connection."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec import Raw

from tests.server.core.playbook import (
    OPEN,
    Closing,
    Joining,
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
    ConnectionLost,
    Execute,
    Executed,
    GoLive,
    Identify,
    ServerDisconnect,
)
from tocsin_server.core.phases import Phase
from tocsin_server.core.session_context import SessionContext
from tocsin_server.core.tokens import ConnectionClaims, SubscriptionClaims
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.protocol.messages import (
    EMPTY,
    ClientInfo,
    ConnectRequest,
    HistoryRequest,
    PublishRequest,
    RefreshRequest,
    Request,
    RpcRequest,
    SubRefreshRequest,
    SubscribeRequest,
)

TALK = OPEN.model_copy(
    update={"allow_publish_for_subscriber": True, "allow_publish_for_client": True, "join_leave": True}
)
REFUSAL = Refusal(1000, "not today")
DISCONNECT = Disconnect(4500, "go away")
SECONDS = 3.0


def context_authorizing(*kinds: type, **client: Any) -> SessionContext:
    """Return a context in which requests of these kinds wait for authorization."""

    def needs_authorization(request: Request) -> bool:
        return isinstance(request, kinds)

    return replace(
        context(TALK, rpc_methods=frozenset({"now"}), **client),
        needs_authorization=needs_authorization,
        authorization_seconds=SECONDS,
    )


def connected(*kinds: type, **client: Any) -> Playbook:
    """Return a connection of "ada" whose connect command needed no authorization."""
    playbook = new_connection(context_authorizing(*kinds, **client))
    playbook >> {"id": 1, "connect": {"token": connection_token("ada")}} << [Identify("ada"), connect_reply()]
    return playbook


def authorizations(playbook: Playbook) -> list[Authorize]:
    return [effect for effect in playbook.effects if isinstance(effect, Authorize)]


def approve(playbook: Playbook, pending: Authorize, claims: Any = None) -> Playbook:
    return playbook >> Authorized(pending.id, Approval(pending.request, claims))


# ---------------------------------------------------------------------------------------------------- connect


def test_a_connect_command_waits_and_is_decided_by_the_claims_of_the_answer() -> None:
    """It needs no token then, and the channels of the claims are subscribed as a token's are."""
    playbook = new_connection(context_authorizing(ConnectRequest)) >> {"id": 1, "connect": {"data": {"a": 1}}}
    (pending,) = authorizations(playbook)
    assert (pending.request, pending.info, playbook.session.phase) == (
        ConnectRequest(data=Raw(b'{"a": 1}')),
        ClientInfo("", "c1"),
        Phase.AUTHORIZING,
    )
    approve(playbook, pending, ConnectionClaims(sub="eve", channels=["news"]))
    assert playbook.effects[0] == Identify("eve")
    playbook << [Identify("eve"), Opening("news")]


def test_an_approval_without_claims_leaves_the_decision_to_the_token() -> None:
    playbook = new_connection(context_authorizing(ConnectRequest)) >> {
        "id": 1,
        "connect": {"token": connection_token("ada")},
    }
    approve(playbook, *authorizations(playbook)) << [Identify("ada"), connect_reply()]


def test_commands_behind_a_waiting_connect_run_after_its_reply() -> None:
    frame = [{"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "news"}}]
    playbook = new_connection(context_authorizing(ConnectRequest)) >> frame
    (pending,) = authorizations(playbook)
    assert playbook.session.is_busy
    approve(playbook, pending, ConnectionClaims(sub="ada")) << [
        Identify("ada"),
        connect_reply(),
        Opening("news"),
    ]


def test_a_refused_connect_drops_the_backlog() -> None:
    frame = [{"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "news"}}]
    playbook = new_connection(context_authorizing(ConnectRequest)) >> frame
    (pending,) = authorizations(playbook)
    playbook >> Authorized(pending.id, REFUSAL) << [error(1, 1000, "not today")]
    playbook >> {"id": 3, "connect": {}} << [Close(errors.PROTOCOL_VIOLATION)]


def test_a_connect_without_an_answer_in_time_closes_the_connection() -> None:
    """With a code after which the client reconnects."""
    playbook = new_connection(context_authorizing(ConnectRequest)) >> {"id": 1, "connect": {}}
    (pending,) = authorizations(playbook)
    playbook >> Wait(SECONDS) << [Close(errors.SERVER_ERROR)]
    approve(playbook, pending, ConnectionClaims(sub="ada")) << []


@pytest.mark.parametrize(
    "event", [ConnectionLost(), ServerDisconnect(errors.SHUTDOWN)], ids=["lost", "drained"]
)
def test_an_answer_after_the_end_of_the_session_is_ignored(event: ConnectionLost | ServerDisconnect) -> None:
    playbook = new_connection(context_authorizing(ConnectRequest)) >> {"id": 1, "connect": {}}
    (pending,) = authorizations(playbook)
    playbook >> event
    approve(playbook, pending, ConnectionClaims(sub="ada")) << []
    assert playbook.session.deadline is None


# ---------------------------------------------------------------------------------------- refusals and limits

COMMANDS: dict[str, tuple[type, dict[str, Any]]] = {
    "subscribe": (SubscribeRequest, {"subscribe": {"channel": "news"}}),
    "publish": (PublishRequest, {"publish": {"channel": "news", "data": 1}}),
    "history": (HistoryRequest, {"history": {"channel": "news"}}),
    "refresh": (RefreshRequest, {"refresh": {"token": "any"}}),
    "sub_refresh": (SubRefreshRequest, {"sub_refresh": {"channel": "news", "token": "any"}}),
    "rpc": (RpcRequest, {"rpc": {"method": "now"}}),
}
commands = pytest.mark.parametrize(("kind", "command"), COMMANDS.values(), ids=COMMANDS)


@commands
def test_a_waiting_command_can_be_refused(kind: type, command: dict[str, Any]) -> None:
    playbook = connected(kind) >> {"id": 2, **command}
    (pending,) = authorizations(playbook)
    playbook >> Authorized(pending.id, REFUSAL) << [error(2, 1000, "not today")]


@commands
def test_a_waiting_command_can_close_the_connection(kind: type, command: dict[str, Any]) -> None:
    playbook = connected(kind) >> {"id": 2, **command}
    (pending,) = authorizations(playbook)
    playbook >> Authorized(pending.id, DISCONNECT) << [Close(DISCONNECT)]


@commands
def test_a_command_without_an_answer_in_time_is_refused_and_the_next_one_runs(
    kind: type, command: dict[str, Any]
) -> None:
    """The late answer changes nothing."""
    playbook = connected(kind) >> {"id": 2, **command}
    (pending,) = authorizations(playbook)
    playbook >> Wait(SECONDS) << [error(2, 100, "internal server error", temporary=True)]
    playbook >> Authorized(pending.id, Approval(pending.request)) << []
    playbook >> {"id": 3, "unsubscribe": {"channel": "other"}} << [{"id": 3, "unsubscribe": {}}]


@commands
def test_commands_behind_a_waiting_one_keep_their_order(kind: type, command: dict[str, Any]) -> None:
    playbook = connected(kind) >> [{"id": 2, **command}, {"id": 3, "unsubscribe": {"channel": "other"}}]
    (pending,) = authorizations(playbook)
    assert playbook.effects == [pending]
    playbook >> Authorized(pending.id, REFUSAL)
    playbook << [error(2, 1000, "not today"), {"id": 3, "unsubscribe": {}}]


# -------------------------------------------------------------------------------------------------- approvals


def test_the_request_of_the_answer_takes_the_place_of_the_client_s() -> None:
    playbook = connected(PublishRequest) >> {"id": 2, "publish": {"channel": "news", "data": 1}}
    (pending,) = authorizations(playbook)
    changed = PublishRequest("news", Raw(b"2"))
    playbook >> Authorized(pending.id, Approval(changed)) << [Execute(2, changed, ClientInfo("ada", "c1"))]
    playbook >> Executed(2, EMPTY) << [{"id": 2, "publish": {}}]


def test_a_subscription_is_decided_by_the_claims_of_the_answer() -> None:
    playbook = connected(SubscribeRequest) >> {"id": 2, "subscribe": {"channel": "$private"}}
    (pending,) = authorizations(playbook)
    claims = SubscriptionClaims(sub="ada", channel="$private", expire_at=playbook.now.unix + 60)
    approve(playbook, pending, claims) << [Opening("$private")]
    playbook >> opened("$private")
    playbook << [{"id": 2, "subscribe": {}}, GoLive("$private"), Joining("$private")]


def test_subscribes_wait_together_and_are_decided_in_any_order() -> None:
    """Every other command waits for all of them."""
    frame = [
        {"id": 2, "subscribe": {"channel": "a"}},
        {"id": 3, "subscribe": {"channel": "b"}},
        {"id": 4, "unsubscribe": {"channel": "a"}},
    ]
    playbook = connected(SubscribeRequest) >> frame
    first, second = authorizations(playbook)
    approve(playbook, second) << [Opening("b")]
    playbook >> Authorized(first.id, REFUSAL) << [error(2, 1000, "not today")]
    playbook >> opened("b")
    playbook << [{"id": 3, "subscribe": {}}, GoLive("b"), Joining("b"), {"id": 4, "unsubscribe": {}}]


def test_only_as_many_subscribes_wait_for_authorization_as_a_connection_may_have_channels() -> None:
    """The next one waits in the backlog, so that the transport reads no further."""
    frame = [{"id": number, "subscribe": {"channel": f"c{number}"}} for number in range(2, 6)]
    playbook = connected(SubscribeRequest, channel_limit=3) >> frame
    first = authorizations(playbook)
    assert len(first) == 3
    assert len(playbook.session.backlog) == 1
    playbook >> Authorized(first[0].id, REFUSAL)
    assert len(authorizations(playbook)) == 1
    assert not playbook.session.backlog


def test_of_two_waiting_subscribes_to_one_channel_the_second_is_refused() -> None:
    frame = [{"id": 2, "subscribe": {"channel": "a"}}, {"id": 3, "subscribe": {"channel": "a"}}]
    playbook = connected(SubscribeRequest) >> frame
    first, second = authorizations(playbook)
    approve(playbook, first) << [Opening("a")]
    approve(playbook, second) << [error(3, 105, "already subscribed")]


def test_a_connection_lost_while_subscribing_leaves_no_subscription() -> None:
    frame = [{"id": 2, "subscribe": {"channel": "a"}}, {"id": 3, "subscribe": {"channel": "b"}}]
    playbook = connected(SubscribeRequest) >> frame
    first, second = authorizations(playbook)
    approve(playbook, first)
    playbook >> ConnectionLost() << []
    approve(playbook, second) << []
    playbook >> opened("a") << [Closing("a")]


def test_the_claims_of_an_answer_take_the_place_of_a_refresh_token_s() -> None:
    playbook = connected(RefreshRequest) >> {"id": 2, "refresh": {"token": "any"}}
    (pending,) = authorizations(playbook)
    approve(playbook, pending, ConnectionClaims(sub="ada"))
    playbook << [{"id": 2, "refresh": {"client": "c1", "version": "1.0"}}]


@pytest.mark.parametrize(
    ("approval", "message"),
    [
        (Approval(SubscribeRequest("news")), "SubscribeRequest approves no ConnectRequest"),
        (Approval(ConnectRequest(), SubscriptionClaims(channel="news")), "no claims for a ConnectRequest"),
    ],
    ids=["another kind of request", "claims of another kind"],
)
def test_an_approval_of_another_kind_is_an_error_of_the_authorizer(approval: Approval, message: str) -> None:
    """The node closes the connection then; the client's own token must not decide instead."""
    connect = {"id": 1, "connect": {"token": connection_token("ada")}}
    playbook = new_connection(context_authorizing(ConnectRequest)) >> connect
    (pending,) = authorizations(playbook)
    with pytest.raises(TypeError, match=message):
        playbook >> Authorized(pending.id, approval)


def test_refreshes_without_a_token_are_not_authorized() -> None:
    """Else a client without a token could make what its token granted last longer."""
    playbook = connected(RefreshRequest, SubRefreshRequest)
    playbook >> {"id": 2, "subscribe": {"channel": "news"}} >> opened("news")
    playbook >> {"id": 3, "sub_refresh": {"channel": "news"}}
    playbook << [error(3, 107, "bad request: there is no token")]
    playbook >> {"id": 4, "sub_refresh": {"channel": "other"}} << [error(4, 103, "permission denied")]
    playbook >> {"id": 5, "refresh": {}}
    assert playbook.effects[0] == Close(errors.PROTOCOL_VIOLATION)
    playbook = connected(SubRefreshRequest) >> {"id": 2, "sub_refresh": {}}
    playbook << [Close(errors.PROTOCOL_VIOLATION)]


def test_requests_that_need_no_authorization_are_decided_at_once() -> None:
    playbook = connected(RpcRequest) >> {"id": 2, "publish": {"channel": "news", "data": 1}}
    assert not authorizations(playbook)
