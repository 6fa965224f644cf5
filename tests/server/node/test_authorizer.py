"""A node with an authorizer: approval, refusal, a late answer, an authorizer that raises, a lost client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from structlog.testing import capture_logs

from tests.server.node.fake_connection import FakeConnection, connected, running
from tests.server.served_node import assert_nothing_is_left, is_settled, new_channel, until
from tests.support.timing import TICK
from tocsin_server import errors
from tocsin_server.core.events import Approval, Authorize
from tocsin_server.core.tokens import ConnectionClaims
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.node.client_request import ClientRequest, KeptHeaders
from tocsin_server.protocol.messages import ConnectRequest, PublishRequest, Request

Outcome = Approval | Refusal | Disconnect


class ScriptedAuthorizer:
    """Decides requests of one kind by a function."""

    def __init__(
        self, kind: type, decide: Callable[[Authorize], Awaitable[Outcome]], authorization_seconds: float = 60
    ) -> None:
        self.kind = kind
        self.decide = decide
        self.authorization_seconds = authorization_seconds
        self.requests: list[Request] = []
        self.kept_headers: KeptHeaders | None = None

    def start(self) -> bool:
        return True

    def needs_authorization(self, request: Request) -> bool:
        return isinstance(request, self.kind)

    async def authorize(self, authorize: Authorize, request: ClientRequest | None) -> Outcome:
        self.requests.append(authorize.request)
        async with asyncio.timeout(self.authorization_seconds):
            return await self.decide(authorize)


async def approve_as_ada(authorize: Authorize) -> Outcome:
    return Approval(authorize.request, ConnectionClaims(sub="ada"))


async def refuse(_authorize: Authorize) -> Outcome:
    return Refusal(1000, "not today")


async def hang(_authorize: Authorize) -> Outcome:
    return await asyncio.Future[Outcome]()


async def fail(_authorize: Authorize) -> Outcome:
    raise RuntimeError("a fault")


async def test_a_connection_gets_the_user_that_the_authorizer_names() -> None:
    async with running(authorizer=ScriptedAuthorizer(ConnectRequest, approve_as_ada)) as node:
        connection = await connected(node)
        assert (connection.session.user, node.hub.connections_of("ada")) == ("ada", [connection])


async def test_a_message_that_no_codec_encodes_closes_only_its_connection() -> None:
    """Also one that the answer of an authorizer brings: the node goes on."""

    async def refuse_badly(_authorize: Authorize) -> Outcome:
        return Refusal(1000, "half a pair \ud800")

    async with running(authorizer=ScriptedAuthorizer(PublishRequest, refuse_badly)) as node:
        broken, other = await connected(node), await connected(node)
        with capture_logs() as log_lines:
            broken.send_command("publish", channel=new_channel("open"), data=1)
            await until(lambda: broken.closed_with)
        assert broken.closed_with == errors.SERVER_ERROR
        assert [line["event"] for line in log_lines if line["log_level"] == "error"] == ["session_failed"]
        assert "unsubscribe" in await other.call("unsubscribe", channel="news")
        assert node.unready_reason == ""


async def test_a_refused_publish_is_not_published() -> None:
    authorizer = ScriptedAuthorizer(PublishRequest, refuse)
    async with running(authorizer=authorizer) as node:
        news = new_channel("open")
        connection = await connected(node, news)
        reply = await connection.call("publish", channel=news, data=1)
        assert (reply["error"]["code"], connection.data) == (1000, [])
        (requests,) = authorizer.requests
        assert isinstance(requests, PublishRequest)
        assert (requests.channel, bytes(requests.data)) == (news, b"1")


async def test_an_authorizer_without_an_answer_is_cancelled_and_the_request_refused() -> None:
    """The next command runs."""
    authorizer = ScriptedAuthorizer(PublishRequest, hang, authorization_seconds=TICK)
    async with running(authorizer=authorizer) as node:
        news = new_channel("open")
        connection = await connected(node, news)
        reply = await connection.call("publish", channel=news, data=1)
        assert reply["error"]["code"] == errors.INTERNAL_ERROR.code
        assert "unsubscribe" in await connection.call("unsubscribe", channel=news)
        await until(lambda: is_settled(node))


async def test_an_authorizer_that_raises_refuses_the_request_and_is_logged() -> None:
    async with running(authorizer=ScriptedAuthorizer(PublishRequest, fail)) as node:
        news = new_channel("open")
        connection = await connected(node, news)
        with capture_logs() as log_lines:
            reply = await connection.call("publish", channel=news, data=1)
        assert reply["error"]["code"] == errors.INTERNAL_ERROR.code
        assert [line["event"] for line in log_lines if line["log_level"] == "error"] == [
            "authorization_raised"
        ]


async def test_a_connection_lost_during_authorization_leaves_no_state() -> None:
    gate = asyncio.Event()

    async def decide(authorize: Authorize) -> Outcome:
        await gate.wait()
        return await approve_as_ada(authorize)

    authorizer = ScriptedAuthorizer(ConnectRequest, decide)
    async with running(authorizer=authorizer) as node:
        connection = FakeConnection(node)
        connection.send_command("connect")
        await until(lambda: authorizer.requests)
        connection.drop()
        gate.set()
        await until(lambda: is_settled(node))
        assert_nothing_is_left(node)
