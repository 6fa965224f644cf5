"""The node: what goes wrong for one connection is that one's trouble, and nothing is left of who has gone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.server.node.fake_connection import FakeConnection, joined, running
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
from tests.support.timing import TICK
from tocsin_server import errors
from tocsin_server.core.events import (
    ConnectionLost,
    Effect,
    Event,
    Received,
    ServerDisconnect,
    SubscriptionsOpened,
    Timestamp,
)
from tocsin_server.core.session import Session
from tocsin_server.engine.nodes import ControlCommand, NodeInfo, SurveyRequest
from tocsin_server.errors import EngineError
from tocsin_server.node.node import Node
from tocsin_server.protocol.json import JSON

UNREACHABLE = EngineError("the store is out of reach")


@pytest.fixture
def engine() -> FaultyEngine:
    return FaultyEngine()


@pytest.fixture
async def node(engine: FaultyEngine) -> AsyncIterator[Node]:
    async with running(engine) as node:
        yield node
        for gate in engine.held.values():
            gate.set()  # whatever a test that failed left waiting


async def settled(node: Node) -> None:
    await until(lambda: is_settled(node))


async def emptied(node: Node, *peers: FakeConnection) -> None:
    """Let the peers go; nothing must be left."""
    for peer in peers:
        peer.lose()
    await settled(node)
    assert_nothing_is_left(node)


# --------------------------------------------------------------------------------------------- our own faults


class Failing(Session):
    """A session with a fault in it."""

    __slots__ = ()
    on: type[Event] = Received

    def handle(self, event: Event, now: Timestamp) -> list[Effect]:
        if isinstance(event, self.on) and not self.is_closed:
            raise RuntimeError("a fault")
        return super().handle(event, now)


class FailingToEnter(Failing):
    """A session with a fault where it learns that it may hear."""

    __slots__ = ()
    on = SubscriptionsOpened


async def test_a_session_that_fails_is_closed_alone(node: Node) -> None:
    """3004, which invites it back, and a traceback in the log; its channels' others hear on."""
    news = new_channel("open")
    broken, other = await joined(node, news), await joined(node, news)
    broken.session.__class__ = Failing
    with capture_logs() as logs:
        broken.say("presence", channel=news)
    assert broken.why == errors.SERVER_ERROR
    (line,) = (line for line in logs if line["event"] == "session_failed")
    assert (line["log_level"], line["client"], line["exc_info"]) == ("error", broken.session.client, True)
    await publish(node, news, b"1")
    await until(lambda: other.data == [1])
    assert broken.data == []
    assert (await other.call("presence_stats", channel=news))["presence_stats"]["num_clients"] == 1
    await emptied(node, other)


async def test_a_session_that_fails_while_entering_leaves_nothing_behind(node: Node) -> None:
    """Also what was being entered is left."""
    peer = await joined(node)
    peer.session.__class__ = FailingToEnter
    peer.say("subscribe", channel=new_channel("open"))
    await until(lambda: peer.why)
    assert peer.why == errors.SERVER_ERROR
    await emptied(node)


async def rpc_that_fails(_user: str, _params: Any) -> Any:
    raise RuntimeError("a fault of the application's")


async def test_a_method_that_fails_is_answered_and_logged() -> None:
    """Error 100; the connection lives on, since nothing of its state was touched."""
    async with running(rpc={"broken": rpc_that_fails}) as node:
        peer = await joined(node)
        with capture_logs() as logs:
            answer = await peer.call("rpc", method="broken", data={})
        assert answer["error"]["code"] == 100
        assert [line["log_level"] for line in logs] == ["error"]
        assert "rpc" not in await peer.call("rpc", method="broken", data={})
        assert peer.why is None


@pytest.mark.parametrize(
    "call", ["subscribe", "add", "read_history", "remove", "publish_join_leave", "unsubscribe"]
)
async def test_a_task_that_fails_harms_nobody_else(node: Node, engine: FaultyEngine, call: str) -> None:
    """A fault in the engine (not a failure that it reports) is logged once; everybody else goes on."""
    news, other_news = new_channel("open"), new_channel("open")
    other = await joined(node, other_news)
    engine.failing[call] = RuntimeError("a fault")
    peer = await joined(node)
    with capture_logs() as logs:
        answer = await peer.call("subscribe", channel=news)
        peer.lose()
        await settled(node)
    assert ("error" in answer) == (call in ("subscribe", "add", "read_history"))
    assert any(line["log_level"] == "error" and line.get("exc_info") for line in logs)
    engine.failing.clear()
    await publish(node, other_news, b"1")
    await until(lambda: other.data == [1])
    assert news not in node.hub.channels
    assert not node.state.connections - {other}


# ---------------------------------------------------------------------------------------- the engine's faults


@pytest.mark.parametrize("call", ["subscribe", "add", "read_history"])
async def test_a_subscription_that_the_engine_cannot_make_is_refused(
    node: Node, engine: FaultyEngine, call: str
) -> None:
    """Error 100, temporary; nothing is left behind, and the client may try again."""
    news = new_channel("open")
    peer = await joined(node)
    engine.failing[call] = UNREACHABLE
    error = (await peer.call("subscribe", channel=news))["error"]
    assert (error["code"], error["temporary"]) == (100, True)
    await settled(node)
    assert not node.hub.channels
    assert not subscribed_channels(node)
    assert not present_in(node)
    assert node.metrics.engine_errors.counts.total() == 1
    engine.failing.clear()
    assert "subscribe" in await peer.call("subscribe", channel=news)
    await publish(node, news, b"1")
    await until(lambda: peer.data == [1])
    await emptied(node, peer)


async def test_a_failed_subscription_takes_nothing_from_who_was_there(
    node: Node, engine: FaultyEngine
) -> None:
    """The channel is still listened to for the others, and the failed one is not present."""
    news = new_channel("open")
    other, peer = await joined(node, news), await joined(node)
    engine.failing["read_history"] = UNREACHABLE
    assert "error" in await peer.call("subscribe", channel=news)
    await settled(node)
    assert subscribed_channels(node) == {news}
    assert present_in(node) == {news: {other.session.client}}
    await publish(node, news, b"1")
    await until(lambda: other.data == [1])
    assert peer.data == []
    engine.failing.clear()
    await emptied(node, peer, other)


async def test_channels_of_a_token_that_cannot_be_entered_close_the_connection(
    node: Node, engine: FaultyEngine
) -> None:
    """There is no reply that could say it: 3004, so the client comes back; all of them are left."""
    engine.failing["read_history"] = UNREACHABLE
    peer = FakeConnection(node)
    peer.say("connect", token=token_of("ann", channels=[new_channel("open"), new_channel("open")]))
    await until(lambda: peer.why)
    assert peer.why == errors.SERVER_ERROR
    await emptied(node)


async def test_a_publish_that_failed_is_never_answered_with_success(node: Node, engine: FaultyEngine) -> None:
    """Error 100, and nobody hears it."""
    news = new_channel("open")
    peer = await joined(node, news)
    engine.failing["publish"] = UNREACHABLE
    error = (await peer.call("publish", channel=news, data=1))["error"]
    assert (error["code"], error["temporary"]) == (100, True)
    with pytest.raises(EngineError):
        await publish(node, news, b"2")
    engine.failing.clear()
    assert await peer.call("publish", channel=news, data=3)
    await until(lambda: peer.data == [3])
    assert node.metrics.publications.count == 1


@pytest.mark.parametrize("method", ["presence", "presence_stats", "history"])
async def test_a_question_that_the_engine_cannot_answer_is_refused(
    node: Node, engine: FaultyEngine, method: str
) -> None:
    news = new_channel("open")
    peer = await joined(node, news)
    engine.failing |= dict.fromkeys(["members", "stats", "read_history"], UNREACHABLE)
    assert (await peer.call(method, channel=news))["error"]["code"] == 100
    engine.failing.clear()
    assert method in await peer.call(method, channel=news)


# ------------------------------------------------------------------------------------------- coming and going


def chance_turns(chance: random.Random) -> Callable[[], int]:
    return lambda: chance.randrange(4)


@pytest.mark.parametrize("seed", range(2))
async def test_the_engine_listens_exactly_while_somebody_wants_to_hear(seed: int) -> None:
    """Thirty peers subscribe to one channel and leave it at once, over an engine that takes its time."""
    chance = random.Random(seed)
    news = new_channel("open")
    async with running(FaultyEngine(chance_turns(chance))) as node:
        peers = [await joined(node) for _ in range(30)]

        async def come_and_go(peer: FakeConnection) -> None:
            for _ in range(chance.randrange(1, 5)):
                await peer.call("subscribe", channel=news)
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
                await peer.call("unsubscribe", channel=news)
            if chance.random() < 0.5:
                await peer.call("subscribe", channel=news)

        for round_number in range(2):
            for peer in peers:
                await peer.call("unsubscribe", channel=news)
            await asyncio.gather(*map(come_and_go, peers))
            await settled(node)
            hearing = [peer for peer in peers if news in peer.session.live_channels]
            assert subscribed_channels(node) == ({news} if hearing else set())
            assert present_in(node).get(news, set()) == {peer.session.client for peer in hearing}
            before = {peer: len(peer.data) for peer in peers}
            await publish(node, news, b"%d" % round_number)
            await settled(node)
            assert [peer for peer in peers if len(peer.data) > before[peer]] == hearing
        await emptied(node, *peers)


@pytest.mark.parametrize("seed", range(2))
async def test_who_is_lost_at_any_moment_is_not_present(seed: int) -> None:
    """Connections that drop while connecting, entering, leaving or asking leave nothing anywhere."""
    chance = random.Random(seed)
    async with running(FaultyEngine(chance_turns(chance))) as node:
        staying = await joined(node, "open:stay")

        async def visit(number: int) -> None:
            peer = FakeConnection(node)
            channels = [f"open:{number % 7}", f"plain:{number % 5}"]
            token = token_of(f"user{number % 9}", channels=channels[: chance.randrange(3)])
            peer.say_all(
                {"id": 1, "connect": {"token": token}},
                {"id": 2, "subscribe": {"channel": "open:stay"}},
                {"id": 3, "publish": {"channel": "open:stay", "data": number}},
                {"id": 4, "unsubscribe": {"channel": "open:stay"}},
                {"id": 5, "subscribe": {"channel": "open:stay"}},
            )
            for _ in range(chance.randrange(800)):
                await asyncio.sleep(0)
            peer.lose()

        for _ in range(3):
            await asyncio.gather(*(visit(number) for number in range(40)))
        await settled(node)
        assert set(node.state.connections) == {staying}
        assert subscribed_channels(node) == {"open:stay"}
        assert present_in(node) == {"open:stay": {staying.session.client}}
        joins, leaves = (
            {push["info"]["client"] for push in staying.pushes(kind)} - {staying.session.client}
            for kind in ("join", "leave")
        )
        assert joins, "some got through"
        assert joins == leaves
        offsets = [publication["offset"] for publication in staying.pushes("pub")]
        assert offsets == list(range(1, len(offsets) + 1))
        await emptied(node, staying)


async def test_who_comes_back_at_once_is_present(node: Node, engine: FaultyEngine) -> None:
    """The leaving of a channel does not overtake the entering that followed it, and is not worth a call."""
    news = new_channel("open")
    peer = await joined(node, news)
    for _ in range(10):
        peer.say("unsubscribe", channel=news)
        peer.say("subscribe", channel=news)
        await settled(node)
        assert present_in(node) == {news: {peer.session.client}}
        assert subscribed_channels(node) == {news}
    assert engine.calls["unsubscribe"] == 0
    await emptied(node, peer)


# ------------------------------------------------------------------------------------------------------ pings


async def test_sessions_are_not_pinged_in_step(node: Node) -> None:
    """The first ping of each falls anywhere in the second half of the interval, though all came at once."""
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
    """3504, if so configured; other users and anonymous ones are not meant."""
    async with running(client=SINGLE) as node:
        others = [await joined(node, token=token_of("bob")), await joined(node), await joined(node)]
        old = await joined(node, token=token_of("ann"))
        new = await joined(node, token=token_of("ann"))
        await until(lambda: old.why)
        assert old.why == errors.CONNECTION_LIMIT
        assert [peer.why for peer in (*others, new)] == [None] * 4


async def test_of_connections_made_at_once_one_stays() -> None:
    """They must not send each other away, since none of them would come back."""
    async with running(client=SINGLE) as node:
        peers = [FakeConnection(node) for _ in range(5)]
        for peer in peers:
            peer.say("connect", token=token_of("ann"))
        await until(lambda: sum(peer.why is not None for peer in peers) >= 4)
        await settled(node)
        assert len(node.hub.connections_of("ann")) == 1
        (stayed,) = (peer for peer in peers if peer.why is None)
        assert stayed.reply(1)


async def test_a_user_has_as_many_connections_as_allowed() -> None:
    """One more is closed with 3504, also if they come at once; whoever leaves makes room."""
    async with running(client={"user_connection_limit": 2}) as node:
        peers = [FakeConnection(node) for _ in range(4)]
        for peer in peers:
            peer.say("connect", token=token_of("ann"))
        assert [peer.why for peer in peers] == [None, None, *[errors.CONNECTION_LIMIT] * 2]
        await joined(node, token=token_of("bob"))
        peers[0].lose()
        await joined(node, token=token_of("ann"))


async def test_an_order_concerns_those_it_names(node: Node) -> None:
    """The connections of one user, or one of them, but for those spared."""
    ann = [await joined(node, token=token_of("ann")) for _ in range(3)]
    bob = await joined(node, token=token_of("bob"))
    away = ServerDisconnect(errors.FORCE_DISCONNECT)
    node.on_control(ControlCommand("ann", away, client=ann[0].session.client))
    assert [peer.why for peer in (*ann, bob)] == [errors.FORCE_DISCONNECT, None, None, None]
    node.on_control(ControlCommand("bob", away, client=ann[1].session.client))
    node.on_control(ControlCommand("ann", away, exclude_clients=(ann[1].session.client,)))
    assert [peer.why is None for peer in (*ann, bob)] == [False, True, False, True]


async def test_a_node_reports_what_it_holds(node: Node) -> None:
    """Connections that have not connected yet are nobody; a channel being entered is not one yet."""
    news, others = new_channel("open"), new_channel("plain")
    await joined(node, news, others, token=token_of("ann"))
    await joined(node, news, token=token_of("ann"))
    await joined(node)
    FakeConnection(node)
    report = node.node_info(SurveyRequest())
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
    assert report.memory_bytes > 10_000_000, "no Python is smaller"
    assert node.node_info(SurveyRequest(wants_channels=True)).channels == {news: 2, others: 1}
    assert node.node_info(SurveyRequest(wants_channels=True, pattern="pl*:*")).channels == {others: 1}


async def test_what_is_being_entered_is_not_reported(node: Node, engine: FaultyEngine) -> None:
    gate = engine.hold("subscribe")
    peer = await joined(node)
    peer.say("subscribe", channel=new_channel("open"))
    assert node.node_info(SurveyRequest(wants_channels=True)).channels == {}
    gate.set()
    await until(lambda: peer.reply(2))
    assert node.node_info(SurveyRequest()).num_channels == 1


# ---------------------------------------------------------------------------------------------------- writing


class BrokenPeer(FakeConnection):
    """A peer whose transport fails when it is written to."""

    def write(self, payload: bytes) -> None:
        raise RuntimeError("broken")


async def test_a_peer_that_cannot_be_written_to_is_closed_and_the_others_get_everything(node: Node) -> None:
    """3004: it comes back and recovers, rather than miss something and not know."""
    news = new_channel("open")
    first = await joined(node, news)
    broken = BrokenPeer(node)
    await broken.call("connect")
    await broken.call("subscribe", channel=news)
    last = await joined(node, news)
    with capture_logs() as logs:
        await publish(node, news, b"1", b"2")
        await settled(node)
    await publish(node, news, b"3")
    await settled(node)
    assert broken.why == errors.SERVER_ERROR
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["write_failed"]
    assert first.data == last.data == [1, 2, 3]
    await emptied(node, first, last)


async def test_commands_that_wait_hold_the_reading_back(node: Node, engine: FaultyEngine) -> None:
    """Until everything that was asked is answered."""
    peer = await joined(node)
    gate = engine.hold("publish")
    for number in range(3):
        peer.say("publish", channel="open:held", data=number)
    assert peer.held_back.pop() is True
    gate.set()
    await until(lambda: peer.reply(4))
    assert peer.held_back.pop() is False
    assert [peer.reply(number) for number in (2, 3, 4)] == [{"id": n, "publish": {}} for n in (2, 3, 4)]


# ------------------------------------------------------------------------------------------------------- life


async def test_a_node_that_stops_sends_everybody_back() -> None:
    """3001 for all, whatever they are doing, and everything they had is let go before the engine is."""
    engine = FaultyEngine()
    async with running(engine) as node:
        live = await joined(node, "open:1", token=token_of("ann"))
        gate = engine.hold("read_history")
        entering, silent = await joined(node), FakeConnection(node)
        entering.say("subscribe", channel="open:2")
        asyncio.get_running_loop().call_later(0.01, gate.set)
        assert node.unready_reason == ""
    assert [peer.why for peer in (live, entering, silent)] == [errors.SHUTDOWN] * 3
    assert_nothing_is_left(node)
    assert node._deadlines._timer is None
    assert node.unready_reason == "The node is not running."
    with pytest.raises(EngineError):
        await publish(node, "open:1", b"1")


async def test_who_comes_to_a_node_that_does_not_run_is_sent_away() -> None:
    """3001, before it starts as well as once it stops: nothing could be done for it, and nothing is left."""
    node = Node(settings_of({}), FaultyEngine())
    peers = [FakeConnection(node)]
    async with node.running():
        pass
    peers.append(FakeConnection(node))
    for peer in peers:
        peer.say("connect")
        assert peer.told == []
        assert peer.why == errors.SHUTDOWN
        node.handle_event(peer, ConnectionLost())
    assert_nothing_is_left(node)


async def rpc_that_hangs(_user: str, _params: Any) -> Any:
    await asyncio.Event().wait()


async def test_a_method_that_never_answers_does_not_keep_the_node_from_stopping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a while it is cancelled; what else was under way was done before."""
    monkeypatch.setattr("tocsin_server.node.node.STOP_SECONDS", TICK)
    with capture_logs() as logs:
        async with running(rpc={"hang": rpc_that_hangs}) as node:
            peer = await joined(node, "open:1")
            peer.say("rpc", method="hang", data={})
            await asyncio.sleep(0)
    assert peer.why == errors.SHUTDOWN
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["tasks_cancelled_at_stop"]
    assert_nothing_is_left(node)


async def test_a_node_says_why_it_is_not_ready() -> None:
    """Its own reason before it runs, the engine's while it does."""
    engine = FaultyEngine()
    async with running(engine) as node:
        assert node.unready_reason == ""
        engine.why_not = "The link is deaf."
        assert node.unready_reason == "The link is deaf."
