"""The asyncio client over real sockets."""

import asyncio
import gc
import logging
from typing import Any

import pytest
from websockets.asyncio.server import serve

from tests.client.scripted_server import ScriptedServer
from tocsin import (
    BadProtocol,
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


async def test_one_line_is_enough_to_hear_a_channel(scripted: ScriptedServer) -> None:
    heard = []
    async with Client(scripted.url) as client:
        waiting = asyncio.create_task(scripted.subscribed())
        waiting.add_done_callback(lambda _: asyncio.create_task(scripted.publish("a", "b", "c")))
        async for publication in client.subscribe("news"):
            heard.append((publication.data, publication.offset, str(publication.position)))
            if len(heard) == 3:
                break
    assert heard == [("a", 1, "1@E"), ("b", 2, "2@E"), ("c", 3, "3@E")]


async def test_entering_waits_for_nothing_and_ready_for_the_connection(scripted: ScriptedServer) -> None:
    states = []
    async with Client(scripted.url) as client:
        states.append(client.state)
        await client.ready()
        states.append(client.state)
    assert [*states, client.state] == [State.CONNECTING, State.CONNECTED, State.DISCONNECTED]


async def test_a_cut_connection_is_resumed_and_nothing_is_missed(scripted: ScriptedServer) -> None:
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


async def test_a_loss_is_visible_in_the_order_of_what_is_heard(scripted: ScriptedServer) -> None:
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


async def test_a_hole_is_filled_before_what_follows_it(scripted: ScriptedServer) -> None:
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


async def test_unsubscribing_ends_the_iteration_quietly(scripted: ScriptedServer) -> None:
    async with Client(scripted.url) as client:
        subscription = await client.subscribe("news").ready()
        with pytest.raises(ValueError, match="already has a subscription"):
            client.subscribe("news")
        await scripted.publish(1)
        await anext(subscription)
        await subscription.unsubscribe()
        assert [one async for one in subscription] == []
        await scripted.until(lambda server: not server.subscribers["news"])


async def test_closing_ends_every_iteration_quietly(scripted: ScriptedServer) -> None:
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
async def test_an_end_that_the_server_means_is_raised_to_every_reader(
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
        told = {"code": 2000, "reason": "server unsubscribe"}
        await scripted.send(connection, {"push": {"channel": "news", "unsubscribe": told}})
        with pytest.raises(SubscriptionEnded, match="server unsubscribe"):
            await anext(news)


async def test_calls_give_results_or_raise(scripted: ScriptedServer) -> None:
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


async def test_a_call_whose_connection_breaks_says_that_it_may_have_been_done(
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
    """No deadlock: a callback that waits for a reply does not stand in the way of that reply."""
    heard: list[Any] = []
    finished = asyncio.Event()

    async def on_publication(publication: Publication) -> None:
        await client.publish("echo", publication.data)
        heard.append(publication.data)
        if publication.data == 3:
            finished.set()

    async with Client(scripted.url, on_state=heard.append) as client:
        client.subscribe(
            "news", on_publication=on_publication, on_subscribed=heard.append, on_join=heard.append
        )
        await scripted.subscribed()
        [connection] = scripted.connections
        join = {"info": {"user": "u", "client": "c"}}
        await scripted.send(connection, {"push": {"channel": "news", "join": join}})
        await scripted.publish(1, 2, 3)
        await finished.wait()
    assert [one for one in heard if isinstance(one, int)] == [1, 2, 3]
    assert [type(one) for one in heard if not isinstance(one, int)] == [
        StateChanged,
        StateChanged,
        Subscribed,
        Joined,
        StateChanged,
    ]
    assert scripted.received[1]["subscribe"]["join_leave"] is True


async def test_a_failing_callback_is_logged_and_the_next_message_comes(
    scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    done = asyncio.Event()

    def on_publication(publication: Publication) -> None:
        if publication.data == 1:
            raise RuntimeError("callback's own fault")
        done.set()

    async with Client(scripted.url) as client:
        client.subscribe("news", on_publication=on_publication)
        await scripted.subscribed()
        await scripted.publish(1, 2)
        await done.wait()
    assert "callback's own fault" in caplog.text


async def test_a_callback_may_close_the_client(scripted: ScriptedServer) -> None:
    async with Client(scripted.url) as client:
        client.subscribe("news", on_publication=lambda _: client.close())
        await scripted.subscribed()
        await scripted.publish(1)
        await scripted.until(lambda server: not server.connections)


async def test_channels_given_by_the_server_are_heard_through_the_client(
    scripted: ScriptedServer,
) -> None:
    scripted.connect_result["subs"] = {"#u": {"recoverable": True, "positioned": True, "epoch": "E"}}
    heard: asyncio.Queue[Any] = asyncio.Queue()
    async with Client(scripted.url, on_publication=heard.put, on_subscribed=heard.put):
        assert (await heard.get()).channel == "#u"
        [connection] = scripted.connections
        await scripted.send(connection, {"push": {"channel": "#u", "pub": {"data": "x", "offset": 1}}})
        assert (await heard.get()).data == "x"


async def test_a_reader_too_far_behind_is_recovered_from_the_log_without_loss(
    scripted: ScriptedServer,
) -> None:
    """What waits is bounded; the other channel goes on meanwhile, and so do calls."""
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


async def test_callbacks_too_far_behind_get_a_new_connection_when_they_have_caught_up(
    scripted: ScriptedServer,
) -> None:
    scripted.connect_result["subs"] = {"#u": {"recoverable": True, "positioned": True, "epoch": "E"}}
    may_go_on, heard = asyncio.Event(), []

    async def on_publication(publication: Publication) -> None:
        await may_go_on.wait()
        heard.append(publication.offset)

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
    assert heard == list(range(1, len(heard) + 1))
    [_, greeting] = [command["connect"] for command in scripted.received if "connect" in command]
    assert greeting["subs"]["#u"]["offset"] == len(heard)


async def test_tokens_come_from_the_provider_and_its_refusal_ends_the_client(
    scripted: ScriptedServer,
) -> None:
    tokens = iter(["A", "B"])

    async def get_token() -> str:
        try:
            return next(tokens)
        except StopIteration:
            raise Unauthorized("no session any more") from None

    async with Client(scripted.url, get_token=get_token) as client:
        await client.ready()
        assert scripted.received[0]["connect"]["token"] == "A"
        scripted.replies["connect"] = {"error": {"code": 109, "message": "token expired"}}
        subscription = await client.subscribe("news").ready()
        scripted.cut()
        with pytest.raises(Unauthorized, match="no session any more"):
            await anext(subscription)


async def test_cancelling_the_owner_leaves_nothing_behind(scripted: ScriptedServer) -> None:
    """The fixture looks for tasks that are left."""

    async def own() -> None:
        async with Client(scripted.url, on_publication=print) as client:
            client.subscribe("other", on_publication=print)
            async for _ in client.subscribe("news"):
                pass

    task = asyncio.create_task(own())
    await scripted.subscribed()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await scripted.until(lambda server: not server.connections)


async def test_a_server_that_is_not_there_is_tried_again_until_the_owner_leaves() -> None:
    states: list[StateChanged] = []
    tried = asyncio.Event()

    def on_state(change: StateChanged) -> None:
        states.append(change)
        if len(states) == 2:
            tried.set()

    async with Client("ws://127.0.0.1:9", on_state=on_state):
        await tried.wait()
    assert states[1].state is State.CONNECTING
    assert "cannot connect" in states[1].reason


async def test_what_is_no_websocket_endpoint_is_told_at_once(scripted: ScriptedServer) -> None:
    async def nobody(_: Any) -> None: ...

    def refuse(connection: Any, _: Any) -> Any:
        return connection.respond(404, "not here\n")

    async with serve(nobody, "127.0.0.1", 0, process_request=refuse) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        async with Client(url) as client:
            with pytest.raises(BadProtocol, match="HTTP 404"):
                await client.ready()


async def test_a_bug_in_the_client_is_told_to_its_readers(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that died of its own fault must not look like a quiet channel."""
    async with Client(scripted.url) as client:
        subscription = await client.subscribe("news").ready()

        def fail(*_: Any) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr("tocsin.session.session.codec.decode_replies", fail)
        with caplog.at_level(logging.ERROR):
            await scripted.publish(1)
            with pytest.raises(Exception, match="a bug"):
                await anext(subscription)


async def test_waiting_for_what_ends_before_it_began_is_an_error_not_a_cancellation(
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


async def test_a_wrong_position_is_refused_and_leaves_the_channel_free(scripted: ScriptedServer) -> None:
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
