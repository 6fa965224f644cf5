"""What an authorizer decides at once is decided in the step of the session, and bounded in each turn."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest

from tests.server.node.fake_connection import FakeConnection, connected, running
from tests.server.served_node import until
from tocsin_server import errors
from tocsin_server.core.events import (
    Approval,
    Authorize,
    Authorized,
    AuthorizedOutcome,
    ServerDisconnect,
    ServerSubscribe,
)
from tocsin_server.core.tokens import ConnectionClaims
from tocsin_server.engine.nodes import ControlCommand
from tocsin_server.node import authorizations
from tocsin_server.node.authorizations import Authorizations
from tocsin_server.node.client_request import ClientRequest, KeptHeaders
from tocsin_server.node.current_step import CurrentStep
from tocsin_server.node.sampled_log import SampledLog
from tocsin_server.protocol.messages import (
    ClientInfo,
    ConnectRequest,
    Request,
    RpcRequest,
    RpcResult,
    SubscribeRequest,
)

Decide = Callable[[Authorize], Awaitable[AuthorizedOutcome]]

NO_LIMITS: dict[str, Any] = {
    "client": {"command_rate": 0, "user_command_rate": 0, "message_limit_bytes": 1_000_000},
}


class Decider:
    """Decides about some kinds of requests by a function, and notes what it is asked."""

    authorization_seconds = 60.0
    kept_headers: KeptHeaders | None = None

    def __init__(self, decide: Decide, *kinds: type) -> None:
        self.decide = decide
        self.kinds = kinds
        self.asked: list[Authorize] = []

    def start(self) -> bool:
        return True

    def needs_authorization(self, request: Request) -> bool:
        return isinstance(request, self.kinds)

    async def authorize(self, authorize: Authorize, request: ClientRequest | None) -> AuthorizedOutcome:
        self.asked.append(authorize)
        return await self.decide(authorize)


async def approve(authorize: Authorize) -> AuthorizedOutcome:
    if isinstance(authorize.request, ConnectRequest):
        return Approval(authorize.request, ConnectionClaims(sub="ada"))
    return Approval(authorize.request)


async def answer(authorize: Authorize) -> AuthorizedOutcome:
    return RpcResult(authorize.request.data)  # type: ignore[union-attr]


async def test_what_is_decided_at_once_is_answered_in_the_same_call() -> None:
    async with running(authorizer=Decider(approve, ConnectRequest)) as node:
        connection = FakeConnection(node)
        number = connection.send_command("connect")
        reply = connection.reply(number)
        assert reply is not None
        assert "connect" in reply
        assert node.hub.connections_of("ada") == [connection]
        assert len(node._session_io.authorizations) == 0


async def test_a_thousand_commands_at_once_are_answered_in_their_order() -> None:
    """The answers neither nest, nor run in one turn."""
    decider = Decider(answer, RpcRequest)
    async with running(authorizer=decider, **NO_LIMITS) as node:
        connection = await connected(node)
        commands = [{"id": number, "rpc": {"method": "m", "data": number}} for number in range(2, 1002)]
        connection.send_commands(*commands)
        assert len(decider.asked) < 100
        await until(lambda: len(connection.received) > 1000)
        assert [reply["rpc"]["data"] for reply in connection.received[1:]] == list(range(2, 1002))


async def test_decisions_that_take_long_leave_time_in_each_turn_of_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0

    async def decide(authorize: Authorize) -> AuthorizedOutcome:
        nonlocal now
        now += authorizations.TURN_SECONDS / 2
        return await approve(authorize)

    decider = Decider(decide, ConnectRequest)
    async with running(authorizer=decider) as node:
        monkeypatch.setattr(node._session_io.authorizations, "_clock", lambda: now)
        connections = [FakeConnection(node) for _ in range(12)]
        numbers = [connection.send_command("connect") for connection in connections]
        decided = [len(decider.asked)]
        while decided[-1] < len(connections):
            await asyncio.sleep(0)
            decided.append(len(decider.asked))
        assert decided == [2, 4, 6, 8, 10, 12]
        assert all(c.reply(number) for c, number in zip(connections, numbers, strict=True))
        order = [authorize.info.client for authorize in decider.asked]
        assert order == [connection.session.client for connection in connections]


async def test_a_request_is_asked_about_once_what_earlier_commands_asked_for_is_done() -> None:
    users: list[int] = []

    async def decide(authorize: Authorize) -> AuthorizedOutcome:
        users.append(len(node.hub.connections_of("ada")))
        return await approve(authorize)

    async with running(authorizer=Decider(decide, ConnectRequest, SubscribeRequest)) as node:
        connection = FakeConnection(node)
        connection.send_commands({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "open:a"}})
        await until(lambda: connection.reply(2))
        assert users == [0, 1]


async def test_a_subscribe_behind_a_connect_that_waited_is_asked_about_once_the_user_is_known() -> None:
    users: list[int] = []

    async def decide(authorize: Authorize) -> AuthorizedOutcome:
        if isinstance(authorize.request, ConnectRequest):
            await asyncio.sleep(0)
        else:
            users.append(len(node.hub.connections_of("ada")))
        return await approve(authorize)

    async with running(authorizer=Decider(decide, ConnectRequest, SubscribeRequest)) as node:
        connection = FakeConnection(node)
        connection.send_commands({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "open:a"}})
        await until(lambda: connection.reply(2))
        assert users == [1]


async def test_an_authorizer_that_subscribes_its_own_client_goes_on_once_the_subscription_is_live() -> None:
    live: list[list[str]] = []

    async def decide(authorize: Authorize) -> AuthorizedOutcome:
        if isinstance(authorize.request, ConnectRequest):
            return await approve(authorize)
        await node.operations.control(ControlCommand("ada", ServerSubscribe("open:a")))
        live.append(connection.session.live_channels)
        return await answer(authorize)

    async with running(authorizer=Decider(decide, ConnectRequest, RpcRequest)) as node:
        connection = await connected(node)
        await connection.call("rpc", method="m", data=1)
        assert live == [["open:a"]]
        assert not node._session_io._subscription_setup.awaited.by_connection


async def test_a_queued_request_is_asked_about_in_the_context_of_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, page, pages = 0.0, ContextVar("page", default=0), []

    async def decide(authorize: Authorize) -> AuthorizedOutcome:
        nonlocal now
        now += authorizations.TURN_SECONDS
        pages.append(page.get())
        return await approve(authorize)

    async def connect(number: int) -> None:
        page.set(number)
        FakeConnection(node).send_command("connect")

    async with running(authorizer=Decider(decide, ConnectRequest)) as node:
        monkeypatch.setattr(node._session_io.authorizations, "_clock", lambda: now)
        await asyncio.gather(*(connect(number) for number in range(1, 5)))
        await until(lambda: len(pages) == 4)
        assert pages == [1, 2, 3, 4]


class Fault(BaseException):
    """What is no Exception, and ends no program."""


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "later"])
async def test_any_exception_of_an_authorizer_refuses_only_the_request(waits: bool) -> None:
    async def decide(authorize: Authorize) -> AuthorizedOutcome:
        if isinstance(authorize.request, ConnectRequest):
            return await approve(authorize)
        await asyncio.sleep(0) if waits else None
        raise Fault

    async with running(authorizer=Decider(decide, ConnectRequest, RpcRequest)) as node:
        connection = await connected(node)
        reply = await connection.call("rpc", method="m", data=1)
        assert reply["error"]["code"] == errors.INTERNAL_ERROR.code


async def test_an_authorizer_that_disconnects_its_own_client_ends_it_after_the_step() -> None:
    async def decide(authorize: Authorize) -> AuthorizedOutcome:
        node.handle_event(connection, ServerDisconnect(errors.FORCE_DISCONNECT))
        return await approve(authorize)

    async with running(authorizer=Decider(decide, ConnectRequest)) as node:
        connection = FakeConnection(node)
        number = connection.send_command("connect")
        assert (connection.closed_with, connection.reply(number) is None) == (None, False)
        await until(lambda: connection.closed_with)
        assert connection.closed_with == errors.FORCE_DISCONNECT
        assert not node.state.connections


async def test_an_authorizer_that_disconnects_another_client_ends_it_at_once() -> None:
    async def decide(authorize: Authorize) -> AuthorizedOutcome:
        for other in node.hub.connections_of("ada"):
            node.handle_event(other, ServerDisconnect(errors.FORCE_DISCONNECT))
        return await approve(authorize)

    async with running(authorizer=Decider(decide, ConnectRequest)) as node:
        node._session_io.authorizations._clock = lambda: 0.0
        first, second = FakeConnection(node), FakeConnection(node)
        first.send_command("connect")
        number = second.send_command("connect")
        assert first.closed_with == errors.FORCE_DISCONNECT
        assert second.reply(number) is not None
        assert node.metrics.connections.counts["fake"] == 1


async def test_subscriptions_that_are_decided_later_are_asked_about_only_once() -> None:
    gate = asyncio.Event()

    async def decide(authorize: Authorize) -> AuthorizedOutcome:
        if isinstance(authorize.request, SubscribeRequest) and authorize.request.channel == "open:slow":
            await gate.wait()
        return await approve(authorize)

    decider = Decider(decide, SubscribeRequest)
    async with running(authorizer=decider) as node:
        connection = await connected(node)
        slow = connection.send_command("subscribe", channel="open:slow")
        await connection.call("subscribe", channel="open:fast")
        assert connection.reply(slow) is None
        gate.set()
        await until(lambda: connection.reply(slow))
        assert len(decider.asked) == 2
        assert len(node._session_io.authorizations) == 0


# ------------------------------------------------------------------------------------------- without a node


class Answers(list[Authorized]):
    """The answers of authorizations without a node."""

    def of(self, decide: Decide) -> Authorizations:
        """Return authorizations that ask a function."""
        made = Authorizations(
            lambda _connection, answered: self.append(answered), SampledLog(), CurrentStep()
        )
        made.authorizer = Decider(decide, ConnectRequest)
        return made


class OpenConnection:
    """A connection without a transport."""

    request = None
    session = SimpleNamespace(is_closed=False)


CONNECTION: Any = OpenConnection()

REQUEST = Authorize(1, ConnectRequest(), ClientInfo("", "c1"))


async def hang(_authorize: Authorize) -> AuthorizedOutcome:
    return await asyncio.Future[AuthorizedOutcome]()


async def sleep(authorize: Authorize) -> AuthorizedOutcome:
    await asyncio.sleep(0)
    return Approval(authorize.request)


async def test_the_end_of_the_context_waits_for_what_was_asked() -> None:
    answers = Answers()
    async with answers.of(sleep) as made:
        assert made.decide_now(CONNECTION, REQUEST) is None
        made.add(CONNECTION, REQUEST)
        assert (len(made), answers) == (1, [])
    assert (len(made), answers) == (0, [Authorized(1, Approval(REQUEST.request))])


async def test_what_was_asked_is_cancelled_if_the_context_is() -> None:
    answers = Answers()
    made = answers.of(hang)

    async def own() -> None:
        async with made:
            made.decide_now(CONNECTION, REQUEST)

    owner = asyncio.create_task(own())
    await asyncio.sleep(0)
    owner.cancel()
    await asyncio.wait([owner])
    assert (owner.cancelled(), len(made), answers) == (True, 0, [])


async def test_the_late_answer_of_what_is_left_is_ignored() -> None:
    """Also if a second cancellation ends the wait for it."""
    answers, released = Answers(), asyncio.Event()

    async def ignore(authorize: Authorize) -> AuthorizedOutcome:
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()
        return Approval(authorize.request)

    made = answers.of(ignore)

    async def own() -> None:
        async with made:
            made.decide_now(CONNECTION, REQUEST)

    owner = asyncio.create_task(own())
    for _ in range(2):
        for _ in range(3):
            await asyncio.sleep(0)
        assert not owner.done()
        owner.cancel()
    await asyncio.wait([owner])
    left = len(made)
    released.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert (owner.cancelled(), left, answers) == (True, 0, [])


async def test_what_was_asked_is_cancelled_if_the_context_ends_with_an_exception() -> None:
    answers = Answers()
    made = answers.of(hang)

    async def fail() -> None:
        async with made:
            made.decide_now(CONNECTION, REQUEST)
            raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        await fail()
    assert (len(made), answers) == (0, [])


async def test_a_task_that_is_cancelled_before_its_first_step_does_not_hold_up_the_end() -> None:
    """Before Python 3.12 a loop whose `call_soon` was replaced starts each task in its next turn."""
    loop, answers = asyncio.get_running_loop(), Answers()
    made = answers.of(hang)
    loop.call_soon = loop.call_soon  # type: ignore[method-assign]

    async def fail() -> None:
        async with made:
            made.decide_now(CONNECTION, REQUEST)
            raise RuntimeError("a fault")

    try:
        with pytest.raises(RuntimeError, match="a fault"):
            await fail()
        assert answers == []
    finally:
        del loop.call_soon


async def test_outside_the_context_nothing_is_asked() -> None:
    answers = Answers()
    made = answers.of(sleep)
    made.add(CONNECTION, REQUEST)
    assert (made.decide_now(CONNECTION, REQUEST), len(made)) == (None, 0)


def test_what_ends_the_program_ends_the_loop_and_not_the_callback_of_a_transport() -> None:
    answers = Answers()
    decided: list[AuthorizedOutcome | None] = []

    async def interrupt(_authorize: Authorize) -> AuthorizedOutcome:
        raise KeyboardInterrupt

    async def run() -> None:
        async with answers.of(interrupt) as made:
            decided.append(made.decide_now(CONNECTION, REQUEST))
            await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _fault: None)  # the exception of the task is not retrieved
    try:
        task = loop.create_task(run())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        assert decided == [errors.SERVER_ERROR]
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
        gc.collect()
    finally:
        loop.close()
