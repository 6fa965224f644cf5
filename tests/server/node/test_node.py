"""The node: a fault affects one connection only, and a lost connection leaves no state."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.server.node.fake_connection import FakeConnection, connected, running
from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import (
    assert_nothing_is_left,
    is_settled,
    new_channel,
    present_in,
    publish,
    settings_of,
    subscribed_channels,
    token_of,
    until,
)
from tests.support.timing import SOON, TICK
from tocsin_server import errors
from tocsin_server.core.events import (
    ConnectionLost,
    Effect,
    Event,
    Received,
    ServerDisconnect,
    ServerSubscribe,
    SubscriptionsOpened,
    Timestamp,
)
from tocsin_server.core.session import Session
from tocsin_server.engine.nodes import ControlCommand, NodeInfo, SurveyRequest
from tocsin_server.errors import EngineError, EngineLimit
from tocsin_server.node.node import Node
from tocsin_server.protocol.json import JSON

UNREACHABLE = EngineError("the engine is out of reach")


@pytest.fixture
def engine() -> FaultyEngine:
    return FaultyEngine()


@pytest.fixture
async def node(engine: FaultyEngine) -> AsyncIterator[Node]:
    async with running(engine) as node:
        yield node
        for gate in engine.blocked.values():
            gate.set()  # a failed test may have left calls blocked


async def until_settled(node: Node) -> None:
    await until(lambda: is_settled(node))


async def drop_and_check(node: Node, *connections: FakeConnection) -> None:
    """Drop the connections, and check that no state is left."""
    for connection in connections:
        connection.drop()
    await until_settled(node)
    assert_nothing_is_left(node)


# -------------------------------------------------------------------------------------- defects of the server


class FailingSession(Session):
    """A session with a defect."""

    __slots__ = ()
    on: type[Event] = Received

    def handle(self, event: Event, now: Timestamp) -> list[Effect]:
        if isinstance(event, self.on) and not self.is_closed:
            raise RuntimeError("a fault")
        return super().handle(event, now)


class FailingWhenOpened(FailingSession):
    """A session with a defect in the handling of `SubscriptionsOpened`."""

    __slots__ = ()
    on = SubscriptionsOpened


async def test_a_session_that_raises_closes_only_its_connection(node: Node) -> None:
    """With 3004, so the client reconnects, and a traceback in the log. Other subscribers are not affected."""
    news = new_channel("open")
    broken, other = await connected(node, news), await connected(node, news)
    broken.session.__class__ = FailingSession
    with capture_logs() as log_lines:
        broken.send_command("presence", channel=news)
    assert broken.closed_with == errors.SERVER_ERROR
    (log_line,) = (log_line for log_line in log_lines if log_line["event"] == "session_failed")
    assert (log_line["log_level"], log_line["client"], log_line["exc_info"]) == (
        "error",
        broken.session.client,
        True,
    )
    await publish(node, news, b"1")
    await until(lambda: other.data == [1])
    assert broken.data == []
    assert (await other.call("presence_stats", channel=news))["presence_stats"]["num_clients"] == 1
    await drop_and_check(node, other)


async def test_a_session_that_raises_during_set_up_leaves_no_state(node: Node) -> None:
    """The subscription that was being set up is closed too."""
    connection = await connected(node)
    connection.session.__class__ = FailingWhenOpened
    connection.send_command("subscribe", channel=new_channel("open"))
    await until(lambda: connection.closed_with)
    assert connection.closed_with == errors.SERVER_ERROR
    await drop_and_check(node)


async def rpc_that_fails(_user: str, _params: Any) -> Any:
    raise RuntimeError("a fault of the application's")


async def test_an_rpc_method_that_raises_is_answered_and_logged() -> None:
    """With error 100. The connection stays open, since its state is not affected."""
    async with running(rpc={"broken": rpc_that_fails}) as node:
        connection = await connected(node)
        with capture_logs() as log_lines:
            answer = await connection.call("rpc", method="broken", data={})
        assert answer["error"]["code"] == 100
        assert [log_line["log_level"] for log_line in log_lines] == ["error"]
        assert "rpc" not in await connection.call("rpc", method="broken", data={})
        assert connection.closed_with is None


@pytest.mark.parametrize(
    "call", ["subscribe", "add", "read_history", "remove", "publish_join_leave", "unsubscribe"]
)
async def test_a_defect_of_the_engine_affects_only_one_connection(
    node: Node, engine: FaultyEngine, call: str
) -> None:
    """An exception that is not an EngineError is logged; other connections continue."""
    news, other_news = new_channel("open"), new_channel("open")
    other = await connected(node, other_news)
    engine.failures[call] = RuntimeError("a fault")
    connection = await connected(node)
    with capture_logs() as log_lines:
        answer = await connection.call("subscribe", channel=news)
        connection.drop()
        await until_settled(node)
    assert ("error" in answer) == (call in ("subscribe", "add", "read_history"))
    assert any(log_line["log_level"] == "error" and log_line.get("exc_info") for log_line in log_lines)
    engine.failures.clear()
    await publish(node, other_news, b"1")
    await until(lambda: other.data == [1])
    assert news not in node.hub.channels
    assert not node.state.connections - {other}


# ------------------------------------------------------------------------------------- failures of the engine


@pytest.mark.parametrize("call", ["subscribe", "add", "read_history"])
async def test_an_engine_failure_refuses_a_subscription(node: Node, engine: FaultyEngine, call: str) -> None:
    """With error 100, temporary. No state is left, and the client may subscribe again."""
    news = new_channel("open")
    connection = await connected(node)
    engine.failures[call] = UNREACHABLE
    error = (await connection.call("subscribe", channel=news))["error"]
    assert (error["code"], error["temporary"]) == (100, True)
    await until_settled(node)
    assert not node.hub.channels
    assert not subscribed_channels(node)
    assert not present_in(node)
    assert sum(node.metrics.engine_errors.counts.values()) == 1
    engine.failures.clear()
    assert "subscribe" in await connection.call("subscribe", channel=news)
    await publish(node, news, b"1")
    await until(lambda: connection.data == [1])
    await drop_and_check(node, connection)


async def test_a_failed_subscription_does_not_affect_other_subscribers(
    node: Node, engine: FaultyEngine
) -> None:
    """The node stays subscribed to the channel, and the client has no presence entry."""
    news = new_channel("open")
    other, connection = await connected(node, news), await connected(node)
    engine.failures["read_history"] = UNREACHABLE
    assert "error" in await connection.call("subscribe", channel=news)
    await until_settled(node)
    assert subscribed_channels(node) == {news}
    assert present_in(node) == {news: {other.session.client}}
    await publish(node, news, b"1")
    await until(lambda: other.data == [1])
    assert connection.data == []
    engine.failures.clear()
    await drop_and_check(node, connection, other)


async def test_an_engine_failure_during_connect_closes_the_connection(
    node: Node, engine: FaultyEngine
) -> None:
    """With 3004, since the connect reply has no room for it. No subscription is left."""
    engine.failures["read_history"] = UNREACHABLE
    connection = FakeConnection(node)
    connection.send_command(
        "connect", token=token_of("ann", channels=[new_channel("open"), new_channel("open")])
    )
    await until(lambda: connection.closed_with)
    assert connection.closed_with == errors.SERVER_ERROR
    await drop_and_check(node)


async def test_a_failed_publish_is_refused(node: Node, engine: FaultyEngine) -> None:
    """With error 100, and no subscriber receives the publication."""
    news = new_channel("open")
    connection = await connected(node, news)
    engine.failures["publish"] = UNREACHABLE
    error = (await connection.call("publish", channel=news, data=1))["error"]
    assert (error["code"], error["temporary"]) == (100, True)
    with pytest.raises(EngineError):
        await publish(node, news, b"2")
    engine.failures.clear()
    assert await connection.call("publish", channel=news, data=3)
    await until(lambda: connection.data == [3])
    assert node.metrics.publications.count == 1


@pytest.mark.parametrize("method", ["presence", "presence_stats", "history"])
async def test_an_engine_failure_refuses_a_read(node: Node, engine: FaultyEngine, method: str) -> None:
    news = new_channel("open")
    connection = await connected(node, news)
    engine.failures |= dict.fromkeys(["members", "stats", "read_history"], UNREACHABLE)
    assert (await connection.call(method, channel=news))["error"]["code"] == 100
    engine.failures.clear()
    assert method in await connection.call(method, channel=news)


# ---------------------------------------------------------------------------------- subscribe and unsubscribe


def random_turns(generator: random.Random) -> Callable[[], int]:
    return lambda: generator.randrange(4)


@pytest.mark.parametrize("seed", range(2))
async def test_the_node_is_subscribed_exactly_while_a_channel_has_subscribers(seed: int) -> None:
    """Thirty connections subscribe to one channel and unsubscribe, over an engine with random delays."""
    generator = random.Random(seed)
    news = new_channel("open")
    async with running(FaultyEngine(random_turns(generator))) as node:
        connections = [await connected(node) for _ in range(30)]

        async def churn(connection: FakeConnection) -> None:
            for _ in range(generator.randrange(1, 5)):
                await connection.call("subscribe", channel=news)
                for _ in range(generator.randrange(3)):
                    await asyncio.sleep(0)
                await connection.call("unsubscribe", channel=news)
            if generator.random() < 0.5:
                await connection.call("subscribe", channel=news)

        for round_number in range(2):
            for connection in connections:
                await connection.call("unsubscribe", channel=news)
            await asyncio.gather(*map(churn, connections))
            await until_settled(node)
            subscribed = [
                connection for connection in connections if news in connection.session.live_channels
            ]
            assert subscribed_channels(node) == ({news} if subscribed else set())
            assert present_in(node).get(news, set()) == {
                connection.session.client for connection in subscribed
            }
            before = {connection: len(connection.data) for connection in connections}
            await publish(node, news, b"%d" % round_number)
            await until_settled(node)
            assert [
                connection for connection in connections if len(connection.data) > before[connection]
            ] == subscribed
        await drop_and_check(node, *connections)


@pytest.mark.parametrize("seed", range(2))
async def test_a_connection_lost_at_any_moment_leaves_no_presence_entry(seed: int) -> None:
    """While connecting, subscribing, unsubscribing, or waiting for a reply."""
    generator = random.Random(seed)
    async with running(FaultyEngine(random_turns(generator))) as node:
        subscriber = await connected(node, "open:stay")

        async def connect_and_drop(number: int) -> None:
            connection = FakeConnection(node)
            channels = [f"open:{number % 7}", f"plain:{number % 5}"]
            token = token_of(f"user{number % 9}", channels=channels[: generator.randrange(3)])
            connection.send_commands(
                {"id": 1, "connect": {"token": token}},
                {"id": 2, "subscribe": {"channel": "open:stay"}},
                {"id": 3, "publish": {"channel": "open:stay", "data": number}},
                {"id": 4, "unsubscribe": {"channel": "open:stay"}},
                {"id": 5, "subscribe": {"channel": "open:stay"}},
            )
            for _ in range(generator.randrange(800)):
                await asyncio.sleep(0)
            connection.drop()

        for _ in range(3):
            await asyncio.gather(*(connect_and_drop(number) for number in range(40)))
        await until_settled(node)
        assert set(node.state.connections) == {subscriber}
        assert subscribed_channels(node) == {"open:stay"}
        assert present_in(node) == {"open:stay": {subscriber.session.client}}
        joins, leaves = (
            {push["info"]["client"] for push in subscriber.pushes(kind)} - {subscriber.session.client}
            for kind in ("join", "leave")
        )
        assert joins, "no client got as far as a join"
        assert joins == leaves
        offsets = [publication["offset"] for publication in subscriber.pushes("pub")]
        assert offsets == list(range(1, len(offsets) + 1))
        await drop_and_check(node, subscriber)


async def test_a_client_that_subscribes_again_at_once_is_present(node: Node, engine: FaultyEngine) -> None:
    """The unsubscribe does not overtake the subscribe after it, and costs no call of the engine."""
    news = new_channel("open")
    connection = await connected(node, news)
    for _ in range(10):
        connection.send_command("unsubscribe", channel=news)
        connection.send_command("subscribe", channel=news)
        await until_settled(node)
        assert present_in(node) == {news: {connection.session.client}}
        assert subscribed_channels(node) == {news}
    assert engine.calls["unsubscribe"] == 0
    await drop_and_check(node, connection)


# ------------------------------------------------------------------------------------------------------ pings


async def test_the_first_pings_of_sessions_are_spread(node: Node) -> None:
    """Over the second half of the interval, though all connected at once."""
    phases = set()
    for _ in range(20):
        session, now = node.new_session(), node.now()
        session.handle(Received(JSON.decode_commands(b'{"id":1,"connect":{}}')), now)
        assert session.deadline is not None
        phases.add((session.deadline - now.monotonic) / node.settings.client.ping_interval)
    assert all(0.49 < phase < 1.01 for phase in phases)
    assert len(phases) == 20


# ------------------------------------------------------------------------------------------------------ users

SINGLE = {"personal_channel": True, "personal_channel_single_connection": True}


async def test_a_new_connection_of_a_user_closes_the_others() -> None:
    """With 3504, if so configured. Other users and anonymous connections are not affected."""
    async with running(client=SINGLE) as node:
        others = [await connected(node, token=token_of("bob")), await connected(node), await connected(node)]
        old = await connected(node, token=token_of("ann"))
        new = await connected(node, token=token_of("ann"))
        await until(lambda: old.closed_with)
        assert old.closed_with == errors.CONNECTION_LIMIT
        assert [connection.closed_with for connection in (*others, new)] == [None] * 4


async def test_of_simultaneous_connections_of_a_user_one_stays() -> None:
    """If each closed the others, none would be left, and 3504 forbids to reconnect."""
    async with running(client=SINGLE) as node:
        connections = [FakeConnection(node) for _ in range(5)]
        for connection in connections:
            connection.send_command("connect", token=token_of("ann"))
        await until(lambda: sum(connection.closed_with is not None for connection in connections) >= 4)
        await until_settled(node)
        assert len(node.hub.connections_of("ann")) == 1
        (stayed,) = (connection for connection in connections if connection.closed_with is None)
        assert stayed.reply(1)


async def test_the_number_of_connections_of_a_user_is_limited() -> None:
    """A connect above the limit is refused for now, also if all are made at once."""
    async with running(client={"user_connection_limit": 2}) as node:
        connections = [FakeConnection(node) for _ in range(4)]
        replies = await asyncio.gather(
            *(connection.call("connect", token=token_of("ann")) for connection in connections)
        )
        refused = {
            "code": 106,
            "message": "limit exceeded: the limit of connections of a user is 2",
            "temporary": True,
        }
        assert [reply.get("error") for reply in replies] == [None, None, refused, refused]
        assert len(node.hub.connections_of("ann")) == 2
        await connected(node, token=token_of("bob"))
        connections[0].drop()
        await connected(node, token=token_of("ann"))
        assert "error" in await FakeConnection(node).call("connect", token=token_of("ann"))


async def test_a_connection_that_ends_while_it_is_counted_is_not_counted_further() -> None:
    """Nor does one whose count failed. That one is closed, and may reconnect."""
    engine = FaultyEngine()
    async with running(engine, client={"user_connection_limit": 1}) as node:
        go_on = engine.block("add")
        connection = FakeConnection(node)
        connection.send_command("connect", token=token_of("ann"))
        await until(lambda: engine.calls["add"] == 1)
        connection.drop()
        del engine.blocked["add"]
        go_on.set()
        engine.failures["add"] = EngineError("gone")
        failed = FakeConnection(node)
        failed.send_command("connect", token=token_of("ann"))
        await until(lambda: failed.closed_with)
        assert failed.closed_with == errors.SERVER_ERROR
        del engine.failures["add"]
        await until(lambda: not engine._users._clients)
        await connected(node, token=token_of("ann"))


async def test_a_control_command_affects_only_the_connections_it_names(node: Node) -> None:
    """The connections of one user, or one of them, without the excluded ones."""
    ann = [await connected(node, token=token_of("ann")) for _ in range(3)]
    bob = await connected(node, token=token_of("bob"))
    disconnect = ServerDisconnect(errors.FORCE_DISCONNECT)
    node.engine_callbacks.on_control(ControlCommand("ann", disconnect, client=ann[0].session.client))
    assert [connection.closed_with for connection in (*ann, bob)] == [
        errors.FORCE_DISCONNECT,
        None,
        None,
        None,
    ]
    node.engine_callbacks.on_control(ControlCommand("bob", disconnect, client=ann[1].session.client))
    node.engine_callbacks.on_control(
        ControlCommand("ann", disconnect, exclude_clients=(ann[1].session.client,))
    )
    assert [connection.closed_with is None for connection in (*ann, bob)] == [False, True, False, True]


async def subscribe(node: Node, user: str, channel: str) -> None:
    await node.operations.control(ControlCommand(user, ServerSubscribe(channel)))


async def test_subscribing_a_user_counts_as_applied_once_the_subscriptions_are_live() -> None:
    """The next publication of a channel without history reaches every connection of the user."""
    engine, news = FaultyEngine(), new_channel("plain")
    async with running(engine) as node:
        clients = [await connected(node, token=token_of("ann")) for _ in range(2)]
        go_on = engine.block("subscribe")
        subscribing = asyncio.create_task(subscribe(node, "ann", news))
        await until(lambda: engine.calls["subscribe"])
        assert not subscribing.done()
        go_on.set()
        await subscribing
        await publish(node, news, b"1")
        await until(lambda: all(client.data == [1] for client in clients))
        assert not node._session_io._subscription_setup.awaited.by_connection


@pytest.mark.parametrize("is_refused", [False, True], ids=["admitted", "refused"])
async def test_subscribing_a_user_waits_for_a_connection_that_has_no_connect_reply_yet(
    is_refused: bool,
) -> None:
    engine, news = FaultyEngine(), new_channel("plain")
    async with running(engine, client={"user_connection_limit": 1}) as node:
        go_on = engine.block("add")
        client = FakeConnection(node)
        number = client.send_command("connect", token=token_of("ann"))
        await until(lambda: engine.calls["add"])
        subscribing = asyncio.create_task(subscribe(node, "ann", news))
        await asyncio.sleep(0)
        assert not subscribing.done()
        if is_refused:
            limit = "client.user_connection_limit"
            engine.failures["add"] = EngineLimit(limit, errors.too_many_connections(1))
        go_on.set()
        await subscribing
        assert client.reply(number) is not None
        assert client.session.live_channels == ([] if is_refused else [news])
        assert not node._session_io._subscription_setup.awaited.by_connection


@pytest.mark.parametrize("ends_by", ["close", "failure"])
async def test_subscribing_a_user_does_not_wait_for_a_set_up_that_ended(ends_by: str) -> None:
    """Nor for a connection that has gone."""
    engine, news = FaultyEngine(), new_channel("plain")
    async with running(engine) as node:
        client = await connected(node, token=token_of("ann"))
        go_on = engine.block("subscribe")
        subscribing = asyncio.create_task(subscribe(node, "ann", news))
        await until(lambda: engine.calls["subscribe"])
        if ends_by == "close":
            client.drop()
        else:
            engine.failures["subscribe"] = EngineError("gone")
            go_on.set()
        await subscribing
        assert not node._session_io._subscription_setup.awaited.by_connection
        go_on.set()


async def test_node_info_counts_connections_and_channels(node: Node) -> None:
    """Connections without a connect reply and channels without a live subscriber do not count."""
    news, others = new_channel("open"), new_channel("plain")
    await connected(node, news, others, token=token_of("ann"))
    await connected(node, news, token=token_of("ann"))
    await connected(node)
    FakeConnection(node)
    report = await node.node_info(SurveyRequest())
    assert report == NodeInfo(
        uid=node.uid,
        name=node.name,
        version=report.version,
        num_clients=3,
        num_users=2,
        num_channels=2,
        num_subs=3,
        uptime=report.uptime,
        state="ready",
        memory_bytes=report.memory_bytes,
    )
    assert report.memory_bytes > 10_000_000, "no Python process is smaller"
    assert (await node.node_info(SurveyRequest(wants_channels=True))).channels == {news: 2, others: 1}
    assert (await node.node_info(SurveyRequest(wants_channels=True, pattern="pl*:*"))).channels == {others: 1}


async def test_node_info_leaves_out_channels_that_are_being_set_up(node: Node, engine: FaultyEngine) -> None:
    gate = engine.block("subscribe")
    connection = await connected(node)
    connection.send_command("subscribe", channel=new_channel("open"))
    assert (await node.node_info(SurveyRequest(wants_channels=True))).channels == {}
    gate.set()
    await until(lambda: connection.reply(2))
    assert (await node.node_info(SurveyRequest())).num_channels == 1


# ------------------------------------------------------------------------------------------------- transports


class BrokenConnection(FakeConnection):
    """A connection whose transport raises when it is written to."""

    def write(self, payload: bytes) -> None:
        raise RuntimeError("broken")


async def test_a_connection_whose_write_raises_is_closed_alone(node: Node) -> None:
    """With 3004: the client reconnects and recovers, and so misses no publication silently."""
    news = new_channel("open")
    first = await connected(node, news)
    broken = BrokenConnection(node)
    await broken.call("connect")
    with capture_logs() as log_lines:
        await broken.call("subscribe", channel=news)
        last = await connected(node, news)
        await publish(node, news, b"1", b"2")
        await until_settled(node)
    await publish(node, news, b"3")
    await until_settled(node)
    assert broken.closed_with == errors.SERVER_ERROR
    assert [log_line["event"] for log_line in log_lines if log_line["log_level"] == "error"] == [
        "write_failed"
    ]
    assert first.data == last.data == [1, 2, 3]
    await drop_and_check(node, first, last)


async def test_reading_is_paused_while_commands_wait(node: Node, engine: FaultyEngine) -> None:
    """Until every command is answered."""
    connection = await connected(node)
    gate = engine.block("publish")
    for number in range(3):
        connection.send_command("publish", channel="open:held", data=number)
    assert connection.pauses.pop() is True
    gate.set()
    await until(lambda: connection.reply(4))
    assert connection.pauses.pop() is False
    assert [connection.reply(number) for number in (2, 3, 4)] == [{"id": n, "publish": {}} for n in (2, 3, 4)]


# --------------------------------------------------------------------------------------------- start and stop


async def test_a_node_that_stops_closes_every_connection() -> None:
    """With 3001, in every phase. Their subscriptions are closed before the engine stops."""
    engine = FaultyEngine()
    async with running(engine) as node:
        live = await connected(node, "open:1", token=token_of("ann"))
        gate = engine.block("read_history")
        opening, without_connect = await connected(node), FakeConnection(node)
        opening.send_command("subscribe", channel="open:2")
        asyncio.get_running_loop().call_later(0.01, gate.set)
        assert node.unready_reason == ""
    assert [connection.closed_with for connection in (live, opening, without_connect)] == [
        errors.SHUTDOWN
    ] * 3
    assert_nothing_is_left(node)
    assert node._session_io._deadlines._timer is None
    assert node.unready_reason == "The node is not running."
    with pytest.raises(EngineError):
        await publish(node, "open:1", b"1")


async def test_a_node_that_does_not_run_closes_new_connections() -> None:
    """With 3001, before it starts as well as after it stops. No state is left."""
    node = Node(settings_of({}), FaultyEngine())
    connections = [FakeConnection(node)]
    async with node.running():
        pass
    connections.append(FakeConnection(node))
    for connection in connections:
        connection.send_command("connect")
        assert connection.received == []
        assert connection.closed_with == errors.SHUTDOWN
        node.handle_event(connection, ConnectionLost())
    assert_nothing_is_left(node)


async def rpc_that_hangs(_user: str, _params: Any) -> Any:
    await asyncio.Event().wait()


async def test_an_rpc_method_without_an_answer_does_not_prevent_a_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is cancelled after a while. Other tasks finish before."""
    monkeypatch.setattr("tocsin_server.node.node_tasks.STOP_SECONDS", TICK)
    with capture_logs() as log_lines:
        async with running(rpc={"hang": rpc_that_hangs}) as node:
            connection = await connected(node, "open:1")
            connection.send_command("rpc", method="hang", data={})
            await asyncio.sleep(0)
    assert connection.closed_with == errors.SHUTDOWN
    assert [log_line["event"] for log_line in log_lines if log_line["log_level"] == "warning"] == [
        "tasks_cancelled_at_stop"
    ]
    assert_nothing_is_left(node)


async def test_an_rpc_method_that_ignores_its_cancellation_does_not_prevent_a_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is left, and the log names it."""
    monkeypatch.setattr("tocsin_server.node.node_tasks.STOP_SECONDS", TICK)
    monkeypatch.setattr("tocsin_server.cancellation.CANCEL_SECONDS", TICK)
    released, ended = asyncio.Event(), asyncio.Event()

    async def hang(_user: str, _params: Any) -> None:
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()
        ended.set()

    with capture_logs() as log_lines:
        async with asyncio.timeout(SOON), running(rpc={"hang": hang}) as node:
            connection = await connected(node, "open:1")
            connection.send_command("rpc", method="hang", data={})
            await asyncio.sleep(0)
    assert {"event": "rpc_method_ignores_cancellation", "log_level": "warning", "method": "hang"} in log_lines
    released.set()
    await asyncio.wait_for(ended.wait(), SOON)


async def test_an_rpc_method_whose_own_await_is_cancelled_is_answered_with_an_error() -> None:
    """The client is not left without an answer, and its next command runs."""

    async def fail(_user: str, _params: Any) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with asyncio.timeout(SOON), running(rpc={"fail": fail}) as node:
        connection = await connected(node, "open:1")
        assert (await connection.call("rpc", method="fail", data={}))["error"]["code"] == 100
        assert (await connection.call("rpc", method="fail", data={}))["error"]["code"] == 100


async def test_the_unready_reason_of_a_running_node_is_the_engine_s() -> None:
    """Its own reason before it runs, the engine's while it does."""
    engine = FaultyEngine()
    async with running(engine) as node:
        assert node.unready_reason == ""
        engine.forced_unready_reason = "The pub/sub connection is dead."
        assert node.unready_reason == "The pub/sub connection is dead."


async def test_two_callers_that_prepare_a_node_start_its_engine_once() -> None:
    """A failed start can be repeated."""
    engine = FaultyEngine()
    node = Node(settings_of({}), engine)
    await asyncio.gather(node.prepare(), node.prepare())
    assert engine.starts == 1
    await engine.stop()


async def test_presence_entries_of_a_channel_are_limited() -> None:
    """The subscription above the limit is refused in its own words. The others go on."""
    async with running(
        limits={"presence_entries": 2},
        channels={"presence": True, "allow_subscribe_for_client": True},
        client={"insecure": True},
    ) as node:
        connections = [await connected(node, "news") for _ in range(2)]
        third = await connected(node)
        refused = await third.call("subscribe", channel="news")
        assert refused["error"] == {
            "code": 106,
            "message": "limit exceeded: the channel has 2 presence entries",
        }
        assert len(await node.engine.presence.members("news")) == 2
        assert b'tocsin_limits_reached_total{limit="limits.presence_entries"} 1' in node.metrics.page()
        connections[0].drop()
        await until_settled(node)
        assert "subscribe" in await third.call("subscribe", channel="news")
