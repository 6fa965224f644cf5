"""Which hook is asked about a request, and which requests none is asked about."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.server.hooks.hooked_node import admitted, running
from tests.server.node.fake_connection import FakeConnection
from tests.server.served_node import settings_of, token_of, until
from tests.support.tokens import subscription_token
from tocsin_server import errors
from tocsin_server.app import create_app
from tocsin_server.core.events import ServerUnsubscribe
from tocsin_server.hooks.answers import Answer, Connected, Published, RpcAnswer, Subscribed
from tocsin_server.hooks.events import ConnectEvent, HookKind, PublishEvent, RpcEvent, SubscribeEvent
from tocsin_server.hooks.registry import Hooks
from tocsin_server.node.node import Node


async def test_without_hooks_no_request_waits_and_no_connection_keeps_its_request() -> None:
    async with running(lambda hooks: None) as node:
        assert node._session_io.authorizations.authorizer is None
        assert node.kept_headers is None


async def test_a_function_without_an_opinion_leaves_the_event_to_the_proxy_and_then_to_the_server() -> None:
    asked: list[str] = []

    async def function(event: RpcEvent) -> RpcAnswer | None:
        asked.append(f"function {event.method}")
        return None if event.method != "mine" else RpcAnswer("mine")

    async def proxy(event: Any) -> Answer:
        asked.append(f"proxy {event.method}")
        return RpcAnswer("theirs") if event.method == "theirs" else None

    hooks = Hooks()
    hooks.rpc(function)
    hooks.add_proxy("backend", proxy, seconds=1, headers=["Cookie"])

    class Section:
        rpc_proxy = "backend"

    section: Any = Section()
    assert [hook.name for hook in hooks.hooks_for(HookKind.RPC, section)] == ["function", "backend"]
    assert [hook.name for hook in hooks.hooks_for(HookKind.CONNECT, section)] == []
    assert hooks.longest_seconds(4) == 5


async def test_methods_of_the_server_come_before_the_hook() -> None:
    async def answer(event: RpcEvent) -> RpcAnswer | None:
        return None if event.method == "unknown" else RpcAnswer([event.method, event.user, event.json()])

    async def now(user: str, params: Any) -> str:
        return "of the server"

    app = create_app(settings_of({}), rpc_methods={"now": now})
    app.hooks.rpc(answer)
    node: Node = app.state.node
    async with node.running():
        connection = await admitted(node)
        assert (await connection.call("rpc", method="now"))["rpc"] == {"data": "of the server"}
        assert (await connection.call("rpc", method="any", data=[1]))["rpc"] == {"data": ["any", "", [1]]}
        assert (await connection.call("rpc", method="unknown"))["error"]["code"] == 104


async def test_a_publish_hook_takes_the_place_of_the_permissions_of_the_channel() -> None:
    async def publish(event: PublishEvent) -> Published | None:
        return Published({"text": event.json(), "by": event.user}) if event.json() != "pass" else None

    closed = {"closed": {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}}
    async with running(lambda hooks: hooks.publish(publish), namespaces=closed) as node:
        connection = await admitted(node, "closed:a")
        assert "publish" in await connection.call("publish", channel="closed:a", data="hello")
        await until(lambda: connection.data)
        assert connection.data == [{"text": "hello", "by": ""}]
        reply = await connection.call("publish", channel="closed:a", data="pass")
        assert reply["error"]["code"] == errors.PERMISSION_DENIED.code


async def test_a_publish_hook_is_not_asked_about_a_client_that_may_not_be_in_the_channel() -> None:
    asked: list[str] = []

    async def publish(event: PublishEvent) -> Published:
        asked.append(event.channel)
        return Published()

    by_name = {"allow_user_limited_channels": True, "allow_publish_for_client": True}
    async with running(lambda hooks: hooks.publish(publish), channels=by_name) as node:
        eve, ann = FakeConnection(node), FakeConnection(node)
        await eve.call("connect", token=token_of("eve"))
        await ann.call("connect", token=token_of("ann"))
        for channel in ("$secret", "room#ann,bob", "#ann"):
            reply = await eve.call("publish", channel=channel, data=1)
            assert reply["error"]["code"] == errors.PERMISSION_DENIED.code, channel
        assert asked == []
        token = subscription_token("eve", "$secret")
        assert "subscribe" in await eve.call("subscribe", channel="$secret", token=token)
        assert "publish" in await eve.call("publish", channel="$secret", data=1)
        for channel in ("room#ann,bob", "#ann"):
            assert "publish" in await ann.call("publish", channel=channel, data=1)
        assert asked == ["$secret", "room#ann,bob", "#ann"]


async def test_a_client_that_is_unsubscribed_while_a_publish_hook_is_asked_does_not_publish() -> None:
    gate = asyncio.Event()
    asked: list[str] = []

    async def publish(event: PublishEvent) -> Published:
        asked.append(event.channel)
        await gate.wait()
        return Published()

    async with running(lambda hooks: hooks.publish(publish)) as node:
        eve = FakeConnection(node)
        await eve.call("connect", token=token_of("eve"))
        token = subscription_token("eve", "$secret")
        assert "subscribe" in await eve.call("subscribe", channel="$secret", token=token)
        command = eve.send_command("publish", channel="$secret", data=1)
        await until(lambda: asked)
        node.handle_event(eve, ServerUnsubscribe("$secret"))
        gate.set()
        await until(lambda: eve.reply(command))
        reply = eve.reply(command)
        assert reply is not None
        assert reply["error"]["code"] == errors.PERMISSION_DENIED.code


async def test_a_subscribe_hook_is_not_asked_where_the_name_of_a_channel_decides() -> None:
    asked: list[str] = []

    async def subscribe(event: SubscribeEvent) -> Subscribed | errors.Refusal:
        asked.append(event.channel)
        return Subscribed(data=event.json())

    async with running(lambda hooks: hooks.subscribe(subscribe)) as node:
        connection = await admitted(node)
        reply = await connection.call("subscribe", channel="closed", data={"a": 1})
        assert reply["subscribe"]["data"] == {"a": 1}
        for channel, code in [("$private", 103), ("closed", 105), ("none:a", 102)]:
            assert (await connection.call("subscribe", channel=channel))["error"]["code"] == code
        assert asked == ["closed"]


async def test_a_token_decides_unless_the_hook_also_wants_those_with_tokens() -> None:
    async def connect(event: ConnectEvent) -> Connected:
        return Connected(f"hook {event.token}")

    for with_token, user in [(False, None), (True, "hook nonsense")]:
        async with running(lambda hooks: hooks.connect(with_token=with_token)(connect)) as node:  # noqa: B023
            connection = FakeConnection(node)
            connection.send_command("connect", token="nonsense")
            await until(lambda: connection.closed_with or connection.reply(1))  # noqa: B023
            assert connection.session.user == (user or "")
            assert (connection.closed_with is errors.INVALID_TOKEN) == (user is None)


async def test_hooks_are_added_once_for_each_kind_and_before_the_node_runs() -> None:
    async def connect(event: ConnectEvent) -> Connected:
        return Connected()

    hooks = Hooks()
    hooks.connect(connect)
    with pytest.raises(ValueError, match="there is a connect hook already: connect"):
        hooks.connect(connect)
    hooks.start()
    with pytest.raises(RuntimeError, match="hooks are added before the node runs"):
        hooks.subscribe(lambda event: None)
