"""Requests whose answer from outside the session is there at once: the session goes on in the same step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.server.core.playbook import Opening, Playbook, connect_reply, error, new_connection
from tests.server.core.session.test_authorization import (
    DISCONNECT,
    REFUSAL,
    connected,
    context_authorizing,
)
from tocsin_server.core.events import Approval, Authorize, Authorized, AuthorizedOutcome, Close, Identify
from tocsin_server.core.phases import Phase
from tocsin_server.core.tokens import ConnectionClaims
from tocsin_server.protocol.messages import ConnectRequest, Request, RpcRequest, RpcResult, SubscribeRequest

Decide = Callable[[Authorize], AuthorizedOutcome | None]


class Decisions(list[Authorize]):
    """Decides at once by a function, and notes what it is asked."""

    def __init__(self, decide: Decide) -> None:
        self.decide = decide

    def decide_now(self, authorize: Authorize) -> AuthorizedOutcome | None:
        self.append(authorize)
        return self.decide(authorize)

    def connection(self, *kinds: type[Request]) -> Playbook:
        """Return a connection that asks about these kinds of requests."""
        return new_connection(replace(context_authorizing(*kinds), decide_now=self.decide_now))


def approve(authorize: Authorize) -> AuthorizedOutcome:
    if isinstance(authorize.request, ConnectRequest):
        return Approval(authorize.request, ConnectionClaims(sub="ada"))
    if isinstance(authorize.request, RpcRequest):
        return RpcResult(authorize.request.data)
    return Approval(authorize.request)


def test_a_connect_command_is_answered_in_its_step() -> None:
    decisions = Decisions(approve)
    playbook = decisions.connection(ConnectRequest) >> {"id": 1, "connect": {}}
    playbook << [Identify("ada"), connect_reply()]
    assert playbook.session.phase is Phase.CONNECTED
    assert len(decisions) == 1


@pytest.mark.parametrize(
    ("outcome", "phase"), [(REFUSAL, Phase.REFUSED), (DISCONNECT, Phase.CLOSED)], ids=["refused", "closed"]
)
def test_a_connect_command_that_is_refused_at_once_ends_as_one_that_waited(
    outcome: AuthorizedOutcome, phase: Phase
) -> None:
    playbook = Decisions(lambda _: outcome).connection(ConnectRequest) >> {"id": 1, "connect": {}}
    playbook << ([error(1, 1000, "not today")] if outcome is REFUSAL else [Close(DISCONNECT)])
    assert playbook.session.phase is phase


def test_a_request_that_cannot_be_decided_at_once_waits_with_the_number_that_was_asked() -> None:
    decisions = Decisions(lambda _: None)
    playbook = decisions.connection(ConnectRequest) >> {"id": 1, "connect": {}}
    assert list(decisions) == [effect for effect in playbook.effects if isinstance(effect, Authorize)]
    assert playbook.session.phase is Phase.AUTHORIZING
    assert playbook.session.deadline is not None


def test_commands_behind_replies_are_decided_at_once_and_behind_anything_else_later() -> None:
    """What an earlier command asked for is done before code of the application runs again."""
    decisions = Decisions(approve)
    playbook = decisions.connection(ConnectRequest, RpcRequest)
    playbook >> [{"id": 1, "connect": {}}, {"id": 2, "rpc": {"method": "m", "data": 1}}]
    assert len(decisions) == 1
    (later,) = [effect for effect in playbook.effects if isinstance(effect, Authorize)]
    playbook >> Authorized(later.id, approve(later))
    playbook >> [{"id": number, "rpc": {"method": "m", "data": number}} for number in (3, 4)]
    assert len(decisions) == 3
    assert not any(isinstance(effect, Authorize) for effect in playbook.effects)


def test_an_answer_at_once_of_another_kind_of_request_is_a_fault() -> None:
    decisions = Decisions(lambda _: Approval(SubscribeRequest("news")))
    with pytest.raises(TypeError, match="SubscribeRequest approves no ConnectRequest"):
        decisions.connection(ConnectRequest) >> {"id": 1, "connect": {}}


def test_a_session_without_the_means_waits_for_every_answer() -> None:
    playbook = connected(RpcRequest) >> {"id": 2, "rpc": {"method": "m"}}
    assert isinstance(playbook.effects[-1], Authorize)


def test_a_subscribe_command_is_set_up_in_its_step() -> None:
    decisions = Decisions(approve)
    playbook = decisions.connection(ConnectRequest, SubscribeRequest) >> {"id": 1, "connect": {}}
    playbook << [Identify("ada"), connect_reply()]
    playbook >> {"id": 2, "subscribe": {"channel": "news"}} << [Opening("news")]
    assert len(decisions) == 2
