"""The asyncio client over real sockets."""

import asyncio
import gc
import logging
from typing import Any

import pytest

from tests.client.scripted_server import ScriptedServer
from tests.support.timing import SOON
from tocsin import (
    CallError,
    Client,
    ConnectionLost,
    Disconnected,
    Joined,
    PermissionDenied,
    Position,
    Publication,
    State,
    StateChanged,
    Subscribed,
    SubscriptionEnded,
    Unauthorized,
)


async def take(events: Any, count: int) -> list[Any]:
    return [await anext(events) for _ in range(count)]


async def test_one_line_receives_a_channel(scripted: ScriptedServer) -> None:
    received = []
    async with Client(scripted.url) as client:
        waiting = asyncio.create_task(scripted.subscribed())
        waiting.add_done_callback(lambda _: asyncio.create_task(scripted.publish("a", "b", "c")))
        async for publication in client.subscribe("news"):
            received.append((publication.data, publication.offset, str(publication.position)))
            if len(received) == 3:
                break
    assert received == [("a", 1, "1@E"), ("b", 2, "2@E"), ("c", 3, "3@E")]


async def test_entering_does_not_wait_and_ready_waits_for_the_connection(scripted: ScriptedServer) -> None:
    states = []
    async with Client(scripted.url) as client:
        states.append(client.state)
        await client.ready()
        states.append(client.state)
    assert [*states, client.state] == [State.CONNECTING, State.CONNECTED, State.DISCONNECTED]


async def test_a_cut_connection_recovers_and_misses_no_publication(scripted: ScriptedServer) -> None:
    async with Client(scripted.url) as client, client.subscribe("news") as news:
        recovered = [news.recovered]
        await scripted.publish(1, 2)
        assert [one.data for one in await take(news, 2)] == [1, 2]
        scripted.cut()
        scripted.append(3)
        await scripted.until(lambda server: not server.connections)
        await scripted.subscribed()
        await scripted.publish(4)
        assert [one.data for one in await take(news, 2)] == [3, 4]
        assert [*recovered, news.recovered] == [None, True]
        assert str(news.position) == "4@E"


async def test_a_gap_is_reported_in_the_order_of_events(scripted: ScriptedServer) -> None:
    async with Client(scripted.url) as client:
        events = client.subscribe("news").events()
        await scripted.subscribed()
        await scripted.publish(1)
        assert [type(one) for one in await take(events, 2)] == [Subscribed, Publication]
        scripted.replies["subscribe"] = {
            "subscribe": {"recoverable": True, "positioned": True, "epoch": "F", "offset": 7}
        }
        scripted.cut()
        assert await anext(events) == Subscribed("news", False, Position(7, "F"))


async def test_a_missing_publication_is_recovered_before_the_next_one(scripted: ScriptedServer) -> None:
    async with Client(scripted.url) as client, client.subscribe("news") as news:
        scripted.append("lost")
        await scripted.publish("next")
        assert [one.data for one in await take(news, 2)] == ["lost", "next"]
        assert len(scripted.connections) == 1


async def test_breaking_out_of_a_bare_iteration_unsubscribes(scripted: ScriptedServer) -> None:
    async with Client(scripted.url) as client:
        subscription = client.subscribe("news")
        await subscription.ready()
        await scripted.publish(1)
        async for _ in subscription:
            break
        assert scripted.subscribers["news"]
        del subscription
        gc.collect()
        await scripted.until(lambda server: not server.subscribers["news"])
        assert (await client.subscribe("news").ready()).channel == "news"


async def test_unsubscribing_ends_the_iteration_without_an_error(scripted: ScriptedServer) -> None:
    async with Client(scripted.url) as client:
        subscription = await client.subscribe("news").ready()
        with pytest.raises(ValueError, match="already has a subscription"):
            client.subscribe("news")
        await scripted.publish(1)
        await anext(subscription)
        await subscription.unsubscribe()
        assert [one async for one in subscription] == []
        await scripted.until(lambda server: not server.subscribers["news"])


async def test_closing_ends_every_iteration_without_an_error(scripted: ScriptedServer) -> None:
    client = Client(scripted.url)
    async with client:
        subscription = await client.subscribe("news").ready()
        reading = asyncio.create_task(anext(subscription, None))
        await asyncio.sleep(0)
    assert await reading is None
    with pytest.raises(Disconnected):
        client.subscribe("other")
    with pytest.raises(Disconnected):
        await client.publish("news", 1)


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [(3503, "force disconnect", Disconnected), (3500, "invalid token", Unauthorized)],
)
async def test_a_final_disconnect_is_raised_to_every_reader(
    scripted: ScriptedServer, code: int, reason: str, error: type[Exception]
) -> None:
    async with Client(scripted.url) as client:
        news, other = await client.subscribe("news").ready(), await client.subscribe("other").ready()
        await scripted.close_all(code, reason)
        for subscription in (news, other):
            with pytest.raises(error, match=reason):
                await anext(subscription)
        with pytest.raises(error):
            await client.publish("news", 1)


async def test_a_refused_subscription_raises_and_leaves_the_others_alone(scripted: ScriptedServer) -> None:
    async with Client(scripted.url) as client:
        news = await client.subscribe("news").ready()
        scripted.replies["subscribe"] = {"error": {"code": 103, "message": "permission denied"}}
        with pytest.raises(PermissionDenied):
            await client.subscribe("secret").ready()
        await scripted.publish(1)
        assert (await anext(news)).data == 1
        [connection] = scripted.connections
        unsubscribe = {"code": 2000, "reason": "server unsubscribe"}
        await scripted.send(connection, {"push": {"channel": "news", "unsubscribe": unsubscribe}})
        with pytest.raises(SubscriptionEnded, match="server unsubscribe"):
            await anext(news)


async def test_commands_return_results_or_raise(scripted: ScriptedServer) -> None:
    async with Client(scripted.url) as client:
        await client.publish("news", {"a": 1})
        scripted.replies = {
            "history": {"history": {"publications": [{"data": "x", "offset": 4}], "epoch": "E", "offset": 9}},
            "presence": {"presence": {"presence": {"c": {"user": "u", "client": "c"}}}},
            "presence_stats": {"presence_stats": {"num_clients": 2, "num_users": 1}},
            "rpc": {"rpc": {"data": 3}},
            "publish": {"error": {"code": 103, "message": "permission denied"}},
        }
        page = await client.history("news", limit=1, since="3@E", reverse=True)
        assert [one.data for one in page.publications] == ["x"]
        assert str(page.position) == "9@E"
        assert (await client.presence("news"))["c"].user == "u"
        assert (await client.presence_stats("news")).num_clients == 2
        assert await client.rpc("sum", [1, 2]) == 3
        with pytest.raises(CallError, match="permission denied"):
            await client.publish("news", 1)
    sent = [command for command in scripted.received if "history" in command]
    assert sent[0]["history"] == {
        "channel": "news",
        "limit": 1,
        "since": {"offset": 3, "epoch": "E"},
        "reverse": True,
    }


async def test_a_command_whose_connection_breaks_raises_connection_lost(
    scripted: ScriptedServer,
) -> None:
    async with Client(scripted.url) as client:
        scripted.replies["publish"] = None
        call = asyncio.create_task(client.publish("news", 1))
        await scripted.until(lambda server: any("publish" in command for command in server.received))
        scripted.cut()
        with pytest.raises(ConnectionLost):
            await call


async def test_callbacks_may_be_plain_or_async_and_may_use_the_client(scripted: ScriptedServer) -> None:
    """A callback that waits for a reply does not block the reading of that reply."""
    received: list[Any] = []
    finished = asyncio.Event()

    async def on_publication(publication: Publication) -> None:
        await client.publish("echo", publication.data)
        received.append(publication.data)
        if publication.data == 3:
            finished.set()

    async with Client(scripted.url, on_state=received.append) as client:
        client.subscribe(
            "news", on_publication=on_publication, on_subscribed=received.append, on_join=received.append
        )
        await scripted.subscribed()
        [connection] = scripted.connections
        join = {"info": {"user": "u", "client": "c"}}
        await scripted.send(connection, {"push": {"channel": "news", "join": join}})
        await scripted.publish(1, 2, 3)
        await finished.wait()
    assert [one for one in received if isinstance(one, int)] == [1, 2, 3]
    assert [type(one) for one in received if not isinstance(one, int)] == [
        StateChanged,
        StateChanged,
        Subscribed,
        Joined,
        StateChanged,
    ]
    assert scripted.received[1]["subscribe"]["join_leave"] is True


async def test_a_failing_callback_is_logged_and_the_next_one_is_called(
    scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    done = asyncio.Event()

    def on_publication(publication: Publication) -> None:
        if publication.data == 1:
            raise RuntimeError("a bug in the callback")
        done.set()

    async with Client(scripted.url) as client:
        client.subscribe("news", on_publication=on_publication)
        await scripted.subscribed()
        await scripted.publish(1, 2)
        await done.wait()
    assert "a bug in the callback" in caplog.text


async def test_a_callback_may_close_the_client(scripted: ScriptedServer) -> None:
    async with Client(scripted.url) as client:
        client.subscribe("news", on_publication=lambda _: client.close())
        await scripted.subscribed()
        await scripted.publish(1)
        await scripted.until(lambda server: not server.connections)


async def test_server_side_subscriptions_call_the_callbacks_of_the_client(
    scripted: ScriptedServer,
) -> None:
    scripted.connect_result["subs"] = {"#u": {"recoverable": True, "positioned": True, "epoch": "E"}}
    received: asyncio.Queue[Any] = asyncio.Queue()
    async with Client(scripted.url, on_publication=received.put, on_subscribed=received.put):
        assert (await received.get()).channel == "#u"
        [connection] = scripted.connections
        await scripted.send(connection, {"push": {"channel": "#u", "pub": {"data": "x", "offset": 1}}})
        assert (await received.get()).data == "x"


async def test_a_reader_that_is_too_far_behind_recovers_without_loss(
    scripted: ScriptedServer,
) -> None:
    """The inbox is bounded. Meanwhile another channel and commands continue."""
    async with Client(scripted.url, inbox_bytes=20_000) as client:
        slow = await client.subscribe("news").ready()
        other = await client.subscribe("other").ready()
        await scripted.publish(*range(100))
        await scripted.until(lambda server: not server.subscribers["news"])
        await scripted.publish(*range(100, 500))
        await scripted.publish("x", channel="other")
        assert (await anext(other)).data == "x"
        await client.publish("news", "y")
        assert [(await anext(slow)).data for _ in range(500)] == list(range(500))
        assert slow.recovered is True


async def test_callbacks_that_are_too_far_behind_get_a_new_connection_once_they_have_caught_up(
    scripted: ScriptedServer,
) -> None:
    scripted.connect_result["subs"] = {"#u": {"recoverable": True, "positioned": True, "epoch": "E"}}
    may_go_on, received = asyncio.Event(), []

    async def on_publication(publication: Publication) -> None:
        await may_go_on.wait()
        received.append(publication.offset)

    async with Client(scripted.url, inbox_bytes=2_000, on_publication=on_publication):
        await scripted.until(lambda server: server.received)
        [connection] = scripted.connections
        for offset in range(1, 20):
            await scripted.send(
                connection, {"push": {"channel": "#u", "pub": {"data": "x" * 100, "offset": offset}}}
            )
        await scripted.until(lambda server: not server.connections)
        may_go_on.set()
        await scripted.until(lambda server: server.connections)
    assert received == list(range(1, len(received) + 1))
    [_, connect] = [command["connect"] for command in scripted.received if "connect" in command]
    assert connect["subs"]["#u"]["offset"] == len(received)


async def test_tokens_come_from_the_provider_and_its_unauthorized_ends_the_client(
    scripted: ScriptedServer,
) -> None:
    tokens = iter(["A", "B"])

    async def get_token() -> str:
        try:
            return next(tokens)
        except StopIteration:
            raise Unauthorized("no session") from None

    async with Client(scripted.url, get_token=get_token) as client:
        await client.ready()
        assert scripted.received[0]["connect"]["token"] == "A"
        scripted.replies["connect"] = {"error": {"code": 109, "message": "token expired"}}
        subscription = await client.subscribe("news").ready()
        scripted.cut()
        with pytest.raises(Unauthorized, match="no session"):
            await anext(subscription)


async def test_cancelling_the_caller_leaves_no_task_behind(scripted: ScriptedServer) -> None:
    """The fixture checks that no task is left."""

    async def use_client() -> None:
        async with Client(scripted.url, on_publication=print) as client:
            client.subscribe("other", on_publication=print)
            async for _ in client.subscribe("news"):
                pass

    task = asyncio.create_task(use_client())
    await scripted.subscribed()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await scripted.until(lambda server: not server.connections)


async def test_an_unreachable_server_is_tried_again_until_the_client_is_closed() -> None:
    states: list[StateChanged] = []
    has_failed = asyncio.Event()

    def on_state(change: StateChanged) -> None:
        states.append(change)
        if len(states) == 2:
            has_failed.set()

    async with Client("ws://127.0.0.1:9", on_state=on_state):
        await has_failed.wait()
    assert states[1].state is State.CONNECTING
    assert "cannot connect" in states[1].reason


async def test_a_bug_in_the_client_is_raised_to_its_readers(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise it would look like a quiet channel."""
    async with Client(scripted.url) as client:
        subscription = await client.subscribe("news").ready()

        def fail(*_: Any) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr("tocsin.session.session.codec.decode_replies", fail)
        with caplog.at_level(logging.ERROR):
            await scripted.publish(1)
            with pytest.raises(Exception, match="a bug"):
                await anext(subscription)


async def test_ready_raises_if_the_subscription_ends_before_it_is_live(
    scripted: ScriptedServer,
) -> None:
    async with Client(scripted.url) as client:
        scripted.replies["subscribe"] = None
        subscription = client.subscribe("news")
        waiting = asyncio.create_task(subscription.ready())
        await scripted.until(lambda server: any("subscribe" in command for command in server.received))
        await subscription.unsubscribe()
        with pytest.raises(SubscriptionEnded, match="before the first subscribe reply"):
            await waiting
        other = client.subscribe("other")
    with pytest.raises(SubscriptionEnded):
        await other.ready()


async def test_a_wrong_position_is_refused_and_the_channel_stays_unsubscribed(
    scripted: ScriptedServer,
) -> None:
    async with Client(scripted.url) as client:
        with pytest.raises(ValueError, match="offset@epoch"):
            client.subscribe("news", since="5")
        await client.subscribe("news", since="0@").ready()


async def test_a_client_is_entered_before_use_and_only_once(scripted: ScriptedServer) -> None:
    client = Client(scripted.url)
    with pytest.raises(RuntimeError, match="enter the client"):
        client.subscribe("news")
    with pytest.raises(RuntimeError, match="enter the client"):
        await client.ready()
    async with client:
        with pytest.raises(TypeError, match="on_message"):
            client.subscribe("news", on_message=print)  # type: ignore[call-arg]
        with pytest.raises(RuntimeError, match="once"):
            await client.__aenter__()
    with pytest.raises(ValueError, match="is not an address"):
        Client("localhost:8000")


async def test_a_token_is_sent_without_the_line_end_of_its_file(scripted: ScriptedServer) -> None:
    async def get_token() -> str:
        return "other\n"

    for options in ({"token": "T\n"}, {"get_token": get_token}):
        async with Client(scripted.url, **options) as client:
            await client.ready()
    assert [one["connect"]["token"] for one in scripted.received if "connect" in one] == ["T", "other"]


async def test_a_token_provider_that_returns_no_text_is_reported(scripted: ScriptedServer) -> None:
    """As old versions of PyJWT, which return bytes."""
    reasons: asyncio.Queue[str] = asyncio.Queue()

    async def get_token() -> Any:
        return b"T"

    def on_state(event: StateChanged) -> None:
        reasons.put_nowait(event.reason)

    async with Client(scripted.url, get_token=get_token, on_state=on_state), asyncio.timeout(SOON):
        while "must return a string, and returned bytes" not in await reasons.get():
            pass
    assert not any("connect" in command for command in scripted.received)
