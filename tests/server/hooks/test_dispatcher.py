"""Hooks are asked within a deadline, so many at once, and what they do wrong harms no client."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from io import StringIO
from typing import Any

import pytest
from msgspec import Raw
from rich.console import Console
from rich.pretty import Pretty
from structlog.testing import capture_logs

from tests.server.node.fake_connection import FakeConnection
from tests.server.served_node import (
    assert_nothing_is_left,
    is_settled,
    new_channel,
    settings_of,
    token_of,
    until,
)
from tests.support.timing import SOON, TICK
from tests.support.tokens import subscription_token
from tocsin_server import errors
from tocsin_server.app import create_app
from tocsin_server.core.events import ServerUnsubscribe
from tocsin_server.hooks import dispatcher
from tocsin_server.hooks.answers import Answer, Connected, Published, RpcAnswer, Subscribed
from tocsin_server.hooks.events import ConnectEvent, HookKind, PublishEvent, RpcEvent, SubscribeEvent
from tocsin_server.hooks.registry import Hooks
from tocsin_server.node.client_request import ClientRequest, KeptHeaders, joined
from tocsin_server.node.node import Node


@asynccontextmanager
async def running(add_hooks: Callable[[Hooks], object], **sections: Any) -> AsyncIterator[Node]:
    """Run a node with hooks, without a server."""
    app = create_app(settings_of(sections))
    add_hooks(app.hooks)
    node: Node = app.state.node
    async with node.running():
        yield node


def calls_of(node: Node) -> dict[tuple[str, ...], int]:
    """Return how many calls of hooks were counted, by kind, hook and outcome."""
    return dict(node.metrics.hook_calls.counts)


async def admitted(node: Node, *channels: str) -> FakeConnection:
    """Return a connection that hooks have admitted, if they are asked."""
    connection = FakeConnection(node)
    assert "connect" in await connection.call("connect", data={"name": "ada"})
    for channel in channels:
        assert "subscribe" in await connection.call("subscribe", channel=channel)
    return connection


# ------------------------------------------------------------------------------------------------ deadlines


async def test_plain_functions_of_one_kind_hold_up_no_other_kind() -> None:
    opened = threading.Event()

    def block(event: RpcEvent) -> RpcAnswer:
        opened.wait()
        return RpcAnswer()

    def connect(event: ConnectEvent) -> Connected:
        return Connected("ada")

    def add(hooks: Hooks) -> None:
        hooks.rpc(block)
        hooks.connect(connect)

    async with running(add, limits={"hook_threads": 1}) as node:
        first = await admitted(node)
        command = first.send_command("rpc", method="any")
        await admitted(node)
        assert first.reply(command) is None
        opened.set()
        await until(lambda: first.reply(command))


@pytest.mark.parametrize("is_plain", [False, True], ids=["async", "plain"])
async def test_a_hook_that_hangs_refuses_the_request_at_its_deadline_and_the_next_command_runs(
    is_plain: bool,
) -> None:
    release = threading.Event()

    async def hang(event: PublishEvent) -> Published:
        return await asyncio.Future[Published]()

    def block(event: PublishEvent) -> Published:
        release.wait()
        return Published()

    def add(hooks: Hooks) -> None:
        hooks.publish(block if is_plain else hang)

    async with running(add, client={"hook_timeout": TICK}) as node:
        news = new_channel("open")
        connection = await admitted(node, news)
        try:
            reply = await connection.call("publish", channel=news, data=1)
            assert reply["error"]["code"] == errors.INTERNAL_ERROR.code
            assert "unsubscribe" in await connection.call("unsubscribe", channel="other")
        finally:
            release.set()
        name = "block" if is_plain else "hang"
        await until(lambda: is_settled(node))
        assert calls_of(node) == {("publish", name, "timeout"): 1}
        assert connection.data == []


async def test_threads_of_plain_hooks_that_hang_stay_counted() -> None:
    """The number of threads is bounded, however many clients ask."""
    release = threading.Event()
    started = []

    def block(event: PublishEvent) -> Published:
        started.append(event.client)
        release.wait()
        return Published()

    sections = {"client": {"hook_timeout": TICK}, "limits": {"hook_threads": 2}}
    async with running(lambda hooks: hooks.publish(block), **sections) as node:
        news = new_channel("open")
        connections = [await admitted(node) for _ in range(5)]
        try:
            replies = await asyncio.gather(
                *(connection.call("publish", channel=news, data=1) for connection in connections)
            )
            assert {reply["error"]["code"] for reply in replies} == {errors.INTERNAL_ERROR.code}
            assert len(started) == 2
        finally:
            release.set()
        await until(lambda: is_settled(node))


async def test_a_hook_that_goes_on_although_it_is_cancelled_holds_up_no_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatcher, "GRACE_SECONDS", TICK)
    release = asyncio.Event()

    async def suppress(event: PublishEvent) -> Published:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return Published()

    async with running(lambda hooks: hooks.publish(suppress), client={"hook_timeout": TICK}) as node:
        news = new_channel("open")
        connection = await admitted(node, news)
        reply = await connection.call("publish", channel=news, data=1)
        assert reply["error"]["code"] == errors.INTERNAL_ERROR.code
        assert "unsubscribe" in await connection.call("unsubscribe", channel="other")
        release.set()
        await until(lambda: is_settled(node))
        assert connection.data == []


# --------------------------------------------------------------------------------------------------- faults


class FaultError(Exception):
    """What a hook of these tests raises."""


@pytest.mark.parametrize("is_plain", [False, True], ids=["async", "plain"])
async def test_a_hook_that_raises_is_logged_with_its_client_and_without_what_the_client_sent(
    is_plain: bool,
) -> None:
    async def fail(event: PublishEvent) -> Published:
        raise FaultError

    def fail_plainly(event: PublishEvent) -> Published:
        raise FaultError

    async with running(lambda hooks: hooks.publish(fail_plainly if is_plain else fail)) as node:
        news = new_channel("open")
        connection = await admitted(node)
        with capture_logs() as lines:
            reply = await connection.call("publish", channel=news, data="a secret of the client")
        assert reply["error"]["code"] == errors.INTERNAL_ERROR.code
        (line,) = [line for line in lines if line["log_level"] == "error"]
        assert (line["event"], line["kind"], line["client"]) == (
            "hook_raised",
            "publish",
            connection.session.client,
        )
        assert "a secret" not in repr(lines)


async def test_a_hook_that_awaits_what_is_cancelled_refuses_the_request_at_once() -> None:
    async def fail(event: PublishEvent) -> Published:
        task = asyncio.create_task(asyncio.sleep(0, Published()))
        task.cancel()
        return await task

    async with running(lambda hooks: hooks.publish(fail)) as node:
        connection = await admitted(node)
        with capture_logs() as lines:
            reply = await connection.call("publish", channel=new_channel("open"), data=1)
        assert reply["error"]["code"] == errors.INTERNAL_ERROR.code
        assert [line["event"] for line in lines if line["log_level"] == "error"] == ["hook_raised"]
        assert calls_of(node) == {("publish", "fail", "error"): 1}


async def test_an_answer_that_is_not_valid_is_logged_and_refuses_the_request() -> None:
    async def answer(event: PublishEvent) -> Any:
        return errors.Refusal(7000, "out of range")

    async with running(lambda hooks: hooks.publish(answer)) as node:
        connection = await admitted(node)
        with capture_logs() as lines:
            reply = await connection.call("publish", channel=new_channel("open"), data=1)
        assert reply["error"] == {"code": 100, "message": "internal server error", "temporary": True}
        (line,) = [line for line in lines if line["event"] == "hook_answer_invalid"]
        assert line["error"] == "the code of an error must be from 400 to 1999, not 7000"


async def test_a_faulty_connect_hook_makes_the_client_come_back() -> None:
    async def fail(event: ConnectEvent) -> Connected:
        raise FaultError

    async with running(lambda hooks: hooks.connect(fail)) as node:
        connection = FakeConnection(node)
        connection.send_command("connect")
        await until(lambda: connection.closed_with)
        assert connection.closed_with is errors.SERVER_ERROR
        assert calls_of(node) == {("connect", "fail", "error"): 1}


async def test_a_refusal_may_be_raised() -> None:
    async def refuse(event: PublishEvent) -> Published:
        raise errors.Refused(errors.Refusal(402, "not paid"))

    async with running(lambda hooks: hooks.publish(refuse)) as node:
        connection = await admitted(node)
        reply = await connection.call("publish", channel=new_channel("open"), data=1)
        assert reply["error"] == {"code": 402, "message": "not paid"}
        assert calls_of(node) == {("publish", "refuse", "refused"): 1}


# --------------------------------------------------------------------------------------------------- limits


class Gate:
    """A hook that answers once it may, and counts."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.asked: list[str] = []

    async def __call__(self, event: Any) -> Any:
        self.asked.append(event.client)
        await self.opened.wait()
        return Connected("ada") if isinstance(event, ConnectEvent) else Subscribed()


async def test_events_beyond_the_limit_wait_and_too_many_of_them_are_refused() -> None:
    gate = Gate()
    limits = {"hooks_at_once": 2}
    async with running(lambda hooks: hooks.connect(gate), limits=limits) as node:
        connections = [FakeConnection(node) for _ in range(2 * 21 + 3)]
        for connection in connections:
            connection.send_command("connect")
        await until(lambda: sum(connection.closed_with is not None for connection in connections) == 3)
        assert len(gate.asked) == 2
        assert [connection.closed_with for connection in connections[-3:]] == [errors.SERVER_ERROR] * 3
        gate.opened.set()
        await until(lambda: all(connection.reply(1) for connection in connections[:-3]))
        assert calls_of(node) == {("connect", "Gate", "admitted"): 42, ("connect", "Gate", "too_many"): 3}
        assert dict(node.metrics.limits_reached.counts) == {("limits.hooks_at_once",): 3}


async def test_one_client_does_not_hold_up_the_others() -> None:
    """However many of its own commands wait for hooks."""
    gate = Gate()
    async with running(lambda hooks: hooks.subscribe(gate), limits={"hooks_at_once": 8}) as node:
        greedy, other = await admitted(node), await admitted(node)
        greedy.send_commands(
            *({"id": 100 + number, "subscribe": {"channel": f"c{number}"}} for number in range(50))
        )
        other.send_command("subscribe", channel="news")
        await until(lambda: len(gate.asked) == 2)
        assert gate.asked == [greedy.session.client, other.session.client]
        gate.opened.set()
        await until(lambda: other.reply(2) and all(greedy.reply(100 + number) for number in range(50)))


async def test_a_hook_that_hangs_holds_up_no_other() -> None:
    gate = Gate()

    def add(hooks: Hooks) -> None:
        hooks.connect(lambda _event: Connected("ada"))
        hooks.subscribe(gate)

    async with running(add, limits={"hooks_at_once": 1}) as node:
        waiting = [await admitted(node) for _ in range(2)]
        for connection in waiting:
            connection.send_command("subscribe", channel="news")
        await until(lambda: gate.asked)
        await admitted(node)
        gate.opened.set()
        await until(lambda: all(connection.reply(2) for connection in waiting))


# ------------------------------------------------------------------------------------------- lost connections


@pytest.mark.parametrize("is_plain", [False, True], ids=["async", "plain"])
async def test_a_client_that_leaves_while_a_hook_is_asked_leaves_nothing(is_plain: bool) -> None:
    gate, plain_gate = Gate(), threading.Event()

    def wait(event: ConnectEvent) -> Connected:
        gate.asked.append(event.client)
        plain_gate.wait()
        return Connected("ada", subscriptions={"news": Subscribed()})

    async with running(lambda hooks: hooks.connect(wait if is_plain else gate)) as node:
        connection = FakeConnection(node)
        connection.send_command("connect")
        await until(lambda: gate.asked)
        connection.drop()
        gate.opened.set()
        plain_gate.set()
        await until(lambda: is_settled(node))
        assert_nothing_is_left(node)


async def test_a_connection_that_hooks_decided_about_is_freed_without_the_garbage_collector() -> None:
    async def connect(event: ConnectEvent) -> Connected:
        await asyncio.sleep(0)
        return Connected("ada")

    async def publish(event: PublishEvent) -> Published:
        raise FaultError

    def add(hooks: Hooks) -> None:
        hooks.connect(connect)
        hooks.publish(publish)

    async with running(add) as node:
        gc.disable()
        try:
            connection = await admitted(node)
            with capture_logs():
                await connection.call("publish", channel="news", data=1)
            freed = weakref.ref(connection)
            connection.drop()
            await until(lambda: is_settled(node))
            del connection
            await asyncio.sleep(0)
            assert freed() is None
        finally:
            gc.enable()


async def test_what_a_plain_function_raises_is_freed_without_the_garbage_collector() -> None:
    raised: list[weakref.ref[errors.Refused]] = []

    def refuse(event: PublishEvent) -> Published:
        error = errors.Refused(errors.Refusal(1000, "not today"))
        raised.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error  # a frame that refers to what it raised is a cycle of the function itself

    async with running(lambda hooks: hooks.publish(refuse)) as node:
        connection = await admitted(node)
        gc.collect()
        gc.disable()
        try:
            reply = await connection.call("publish", channel=new_channel("open"), data=1)
            assert reply["error"]["code"] == 1000
            await until(lambda: raised[0]() is None)
        finally:
            gc.enable()


async def test_a_node_that_drains_closes_a_client_whose_hook_is_asked() -> None:
    gate = Gate()
    async with running(lambda hooks: hooks.connect(gate)) as node:
        connection = FakeConnection(node)
        connection.send_command("connect")
        await until(lambda: gate.asked)
        await node.drain(0, lambda: True)
        assert connection.closed_with is errors.SHUTDOWN
        gate.opened.set()
        await until(lambda: is_settled(node))
        assert_nothing_is_left(node)


# ---------------------------------------------------------------------------------------- which hook is asked


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


# -------------------------------------------------------------------------------------------------- requests


def kept(
    sent: list[tuple[str, str]],
    query: str = "",
    names: list[str] | None = None,
    *,
    cookies_count: bool = True,
) -> ClientRequest:
    """Return what a connection keeps of its request."""
    headers = joined((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in sent)
    kept_headers = KeptHeaders(names)
    return kept_headers.request("sse", "json", "192.0.2.1", headers, query, cookies_count=cookies_count)


def test_a_connection_keeps_the_headers_that_hooks_want() -> None:
    sent = [("Cookie", "a=1"), ("cookie", "b=2"), ("X-Part", "1"), ("x-part", "2"), ("Other", "3")]
    request = kept(sent, "a=1&a=2&b=%20", ["COOKIE", "x-part"])
    assert request.headers == {"cookie": "a=1; b=2", "x-part": "1, 2"}
    assert request.cookies == {"a": "1", "b": "2"}
    assert request.query == {"a": "2", "b": " "}
    assert kept(sent).headers["other"] == "3"


def test_cookies_that_do_not_count_are_not_kept() -> None:
    request = kept([("Cookie", "a=1"), ("Other", "3")], cookies_count=False)
    assert (request.headers, request.cookies) == ({"other": "3"}, {})


@pytest.mark.parametrize(
    "odd",
    ['prefs={"a":1}', "version=2", "x[y]=1", "name=J\u00fcrgen", "a=b c", "path=1", "lone", "a b=\x00; ="],
)
def test_a_cookie_that_is_not_valid_hides_no_other(odd: str) -> None:
    for sent in (f"{odd}; session=a=b", f"session=a=b; {odd}"):
        assert kept([("Cookie", sent)]).cookies["session"] == "a=b"


def test_an_event_in_a_traceback_shows_no_secret() -> None:
    """Applications may log tracebacks with the values of variables."""
    request = kept([("Cookie", "a-secret")], "token=a-secret")
    event = ConnectEvent(client="c1", request=request, token="a-secret", data=Raw(b'"a-secret"'))
    console = Console(file=StringIO(), width=200)
    console.print(Pretty(event))
    assert isinstance(console.file, StringIO)
    for shown in (repr(event), console.file.getvalue()):
        assert "c1" in shown
        assert "a-secret" not in shown


async def test_a_hook_that_ignores_its_cancellation_does_not_prevent_a_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is left, and the log names it. Its late answer is ignored."""
    monkeypatch.setattr("tocsin_server.node.node_tasks.STOP_SECONDS", TICK)
    monkeypatch.setattr("tocsin_server.cancellation.CANCEL_SECONDS", TICK)
    released, ended = asyncio.Event(), asyncio.Event()

    async def hang(_: ConnectEvent) -> Connected:
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()
        ended.set()
        return Connected(user="ada")

    with capture_logs() as lines:
        async with asyncio.timeout(SOON), running(lambda hooks: hooks.connect(hang)) as node:
            connection = FakeConnection(node)
            connection.send_command("connect")
            await asyncio.sleep(0)
    assert [line for line in lines if line["event"] == "hook_ignores_cancellation"] == [
        {
            "event": "hook_ignores_cancellation",
            "log_level": "warning",
            "kind": "connect",
            "hook": "hang",
            "calls": 1,
        }
    ]
    released.set()
    await asyncio.wait_for(ended.wait(), SOON)
    await asyncio.sleep(0)
    assert connection.received == []
    assert_nothing_is_left(node)
