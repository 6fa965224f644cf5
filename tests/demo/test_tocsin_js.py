"""The browser client in a browser: the commands it sends, the events it emits, and how it reconnects."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.demo.conftest import new_page
from tests.demo.fake_server import Connection, Endpoint, FakeServer, Json, publication, subscribe_reply

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one browser for all of them

SETUP = """async ([socketUrl, eventsUrl]) => {
    const tocsin = await import("/tocsin.js");
    window.recorded = [];
    window.record = (target, ...types) => types.forEach(type =>
        target.addEventListener(type, ({detail}) => recorded.push({type, ...detail})));
    window.tokens = ["first", "second", "third"];
    window.getToken = () => tokens.shift();
    window.connect = options => {
        window.client = tocsin.connect(socketUrl, options);
        record(client, "state", "connected");
    };
    window.subscribe = (channel, options) => {
        const subscription = client.subscribe(channel, options);
        const types = ["subscribed", "unsubscribed", "publication", "duplicate", "gap", "join", "leave"];
        record(subscription, ...types);
        return subscription;
    };
    window.openStream = options => {
        window.stream = new tocsin.EventStream(eventsUrl, options);
        record(stream, "state", "connected", "publication", "duplicate", "gap", "disconnect");
    };
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_page(fake_server: FakeServer, browser: Browser) -> AsyncIterator[tuple[Page, list[str]]]:
    """The page of all these tests, and the errors on its console."""
    page, console_errors = await new_page(browser)
    await page.goto(f"{fake_server.url}/page")
    yield page, console_errors
    await page.close()


@pytest_asyncio.fixture(loop_scope="session")
async def client_page(endpoint: Endpoint, shared_page: tuple[Page, list[str]]) -> AsyncIterator[Page]:
    """The page with the module loaded. What a test opens is closed afterwards."""
    page, console_errors = shared_page
    console_errors.clear()
    await load_module(page, endpoint)
    yield page
    await page.evaluate("() => { window.client?.close(); window.stream?.close(); }")
    assert console_errors == []


async def load_module(page: Page, endpoint: Endpoint) -> None:
    await page.evaluate(SETUP, [endpoint.websocket_url, endpoint.events_url])


async def recorded(page: Page, *types: str, count: int) -> list[Json]:
    """The events of these types, once there are that many."""
    pick = "types => recorded.filter(one => types.includes(one.type))"
    await page.wait_for_function(f"([types, count]) => ({pick})(types).length >= count", arg=[types, count])
    events: list[Json] = await page.evaluate(pick, types)
    return events


async def subscribed(client_page: Page, endpoint: Endpoint, offset: int = 0, **result: Any) -> Connection:
    """A client that is subscribed to `news` from `offset` on."""
    await client_page.evaluate("() => { connect({token: 't'}); window.news = subscribe('news'); }")
    connection = await endpoint.connection()
    (subscribe,) = await connection.accept_connect(**result)
    await connection.send(subscribe_reply(subscribe, offset))
    await recorded(client_page, "subscribed", count=1)
    return connection


# --- connect ---


async def test_the_first_frame_has_the_connect_and_all_subscribe_commands(
    client_page: Page, endpoint: Endpoint
) -> None:
    await client_page.evaluate("() => { connect({token: 't'}); subscribe('a'); subscribe('b'); }")
    connection = await endpoint.connection()
    connect, one, two = await connection.receive()
    assert connect["connect"] == {"token": "t", "name": "tocsin.js"}
    assert one["subscribe"] == {"channel": "a", "positioned": True, "recoverable": True}
    assert two["subscribe"]["channel"] == "b"
    assert [connect["id"], one["id"], two["id"]] == [1, 2, 3]


async def test_a_subscribe_before_the_connect_reply_is_sent_at_once(
    client_page: Page, endpoint: Endpoint
) -> None:
    """Commands may follow the first frame before its replies arrive."""
    await client_page.evaluate("() => connect({token: 't'})")
    connection = await endpoint.connection()
    (connect,) = await connection.receive()
    await client_page.evaluate("() => { subscribe('late'); }")
    (late,) = await connection.receive()
    assert late["subscribe"]["channel"] == "late"
    await connection.send(
        {"id": connect["id"], "connect": {"client": "c", "node": "n1"}}, subscribe_reply(late, 3)
    )
    (connected,) = await recorded(client_page, "connected", count=1)
    assert connected["node"] == "n1"
    (answer,) = await recorded(client_page, "subscribed", count=1)
    assert answer["position"] == {"offset": 3, "epoch": "e"}


async def test_a_push_in_the_frame_of_the_subscribe_reply_is_received(
    client_page: Page, endpoint: Endpoint
) -> None:
    await client_page.evaluate("() => { connect({token: 't'}); subscribe('news'); }")
    connection = await endpoint.connection()
    connect, subscribe = await connection.receive()
    connect_reply = {"id": connect["id"], "connect": {"client": "c"}}
    await connection.send(connect_reply, subscribe_reply(subscribe, 4), publication(5))
    (received,) = await recorded(client_page, "publication", count=1)
    assert (received["offset"], received["epoch"], received["recovered"]) == (5, "e", False)


async def test_a_ping_is_answered(client_page: Page, endpoint: Endpoint) -> None:
    connection = await subscribed(client_page, endpoint, ping=25, pong=True)
    await connection.send({})
    assert await connection.receive() == [{}]


# --- duplicates and gaps ---


async def test_a_duplicate_is_dropped_and_reported(client_page: Page, endpoint: Endpoint) -> None:
    connection = await subscribed(client_page, endpoint)
    await connection.send(publication(1), publication(2), publication(1), publication(2), publication(3))
    received = await recorded(client_page, "publication", count=3)
    assert [one["offset"] for one in received] == [1, 2, 3]
    assert [one["offset"] for one in await recorded(client_page, "duplicate", count=2)] == [1, 2]


async def test_a_gap_is_reported_before_the_next_publication(client_page: Page, endpoint: Endpoint) -> None:
    connection = await subscribed(client_page, endpoint)
    await connection.send(publication(1), publication(4))
    events = await recorded(client_page, "publication", "gap", count=3)
    assert [event["type"] for event in events] == ["publication", "gap", "publication"]
    assert events[1]["from"] == {"offset": 1, "epoch": "e"}
    assert events[1]["to"] == {"offset": 3, "epoch": "e"}


# --- reconnecting ---


async def test_a_client_reconnects_and_recovers_from_its_position(
    client_page: Page, endpoint: Endpoint
) -> None:
    connection = await subscribed(client_page, endpoint, offset=7)
    await connection.send(publication(8))
    await recorded(client_page, "publication", count=1)
    await connection.close(3001, "shutdown")
    again = await endpoint.connection()
    (subscribe,) = await again.accept_connect()
    assert subscribe["subscribe"].items() >= {"recover": True, "offset": 8, "epoch": "e"}.items()
    missed = [{"data": {}, "offset": 9}, {"data": {}, "offset": 10}]
    await again.send(
        subscribe_reply(subscribe, 8, was_recovering=True, recovered=True, publications=missed),
        publication(11),
    )
    received = await recorded(client_page, "publication", count=4)
    assert [(one["offset"], one["recovered"]) for one in received] == [
        (8, False),
        (9, True),
        (10, True),
        (11, False),
    ]
    assert await client_page.evaluate("recorded.filter(({type}) => type === 'gap')") == []


async def test_a_failed_recovery_is_reported_as_a_gap(client_page: Page, endpoint: Endpoint) -> None:
    connection = await subscribed(client_page, endpoint, offset=7)
    await connection.close(3001, "shutdown")
    again = await endpoint.connection()
    (subscribe,) = await again.accept_connect()
    await again.send(subscribe_reply(subscribe, 2, epoch="new", was_recovering=True), publication(3))
    (gap,) = await recorded(client_page, "gap", count=1)
    assert (gap["from"], gap["to"]) == ({"offset": 7, "epoch": "e"}, {"offset": 2, "epoch": "new"})
    (received,) = await recorded(client_page, "publication", count=1)
    assert (received["offset"], received["epoch"]) == (3, "new")


async def test_a_cut_client_stays_disconnected_until_it_is_resumed(
    client_page: Page, endpoint: Endpoint
) -> None:
    connection = await subscribed(client_page, endpoint, offset=7)
    await client_page.evaluate("client.cut()")
    await connection.wait_until_closed()
    assert await client_page.evaluate("client.state") == "cut"
    refusal = await client_page.evaluate("client.publish('news', 1).catch(error => error.message)")
    assert refusal == "not connected"
    await client_page.evaluate("client.resume()")
    (subscribe,) = await (await endpoint.connection()).accept_connect()
    assert subscribe["subscribe"]["offset"] == 7


@pytest.mark.parametrize("code", [1001, 3000, 3499, 4000, 4499])
async def test_a_client_reconnects_after_a_temporary_close_code(
    client_page: Page, endpoint: Endpoint, code: int
) -> None:
    connection = await subscribed(client_page, endpoint)
    await connection.close(code, "temporary")
    await endpoint.connection()


@pytest.mark.parametrize("code", [1009, 3500, 3999, 4500, 4999])
async def test_a_client_stays_disconnected_after_a_final_close_code(
    client_page: Page, endpoint: Endpoint, code: int
) -> None:
    connection = await subscribed(client_page, endpoint)
    await connection.close(code, "final")
    (_, end) = await recorded(client_page, "state", count=2)
    assert (end["state"], end["code"], end["reason"]) == ("disconnected", code, "final")


async def test_an_invalidated_state_is_dropped(client_page: Page, endpoint: Endpoint) -> None:
    """After 3014, neither the token nor the position is used again."""
    await client_page.evaluate(
        "() => { connect({getToken}); subscribe('news', {since: {offset: 5, epoch: 'e'}}); }"
    )
    connection = await endpoint.connection()
    (subscribe,) = await connection.accept_connect()
    assert subscribe["subscribe"]["recover"] is True
    await connection.close(3014, "state invalidated")
    connect, subscribe = await (await endpoint.connection()).receive()
    assert connect["connect"]["token"] == "second"
    assert "recover" not in subscribe["subscribe"]


async def test_a_client_reconnects_if_pings_stop(page: Page, endpoint: Endpoint) -> None:
    """A ping is due every second, and may be ten seconds late. The test advances the page's clock."""
    client_page = page
    await client_page.clock.install()
    await client_page.goto(f"{endpoint.url}/page")
    await load_module(client_page, endpoint)
    await client_page.evaluate("() => { connect({token: 't'}); }")
    connection = await endpoint.connection()
    await connection.accept_connect(ping=1, pong=True)
    await recorded(client_page, "connected", count=1)
    await client_page.clock.run_for(9_000)
    assert await client_page.evaluate("client.state") == "connected"
    await client_page.clock.run_for(2_500)
    (_, lost) = await recorded(client_page, "state", count=2)
    assert (lost["state"], lost["reason"]) == ("connecting", "no ping")
    await client_page.clock.run_for(1_000)
    await endpoint.connection()


# --- tokens and errors ---


async def test_an_expired_token_is_replaced(client_page: Page, endpoint: Endpoint) -> None:
    await client_page.evaluate("() => connect({getToken})")
    connection = await endpoint.connection()
    (connect,) = await connection.receive()
    await connection.send({"id": connect["id"], "error": {"code": 109, "message": "token expired"}})
    (again,) = await (await endpoint.connection()).receive()
    assert [connect["connect"]["token"], again["connect"]["token"]] == ["first", "second"]


async def test_a_client_with_an_expired_token_and_no_token_function_is_disconnected(
    client_page: Page, endpoint: Endpoint
) -> None:
    await client_page.evaluate("() => connect({token: 't'})")
    connection = await endpoint.connection()
    (connect,) = await connection.receive()
    await connection.send({"id": connect["id"], "error": {"code": 109, "message": "token expired"}})
    (end,) = await recorded(client_page, "state", count=1)
    assert (end["state"], end["code"]) == ("disconnected", 109)


async def test_a_token_is_refreshed_after_its_ttl(client_page: Page, endpoint: Endpoint) -> None:
    await client_page.evaluate("() => connect({getToken})")
    connection = await endpoint.connection()
    await connection.accept_connect(expires=True, ttl=0.2)
    (refresh,) = await connection.receive()
    assert refresh["refresh"] == {"token": "second"}
    await connection.send({"id": refresh["id"], "refresh": {"expires": True, "ttl": 0.2}})
    (next_refresh,) = await connection.receive()
    assert next_refresh["refresh"] == {"token": "third"}


async def test_a_refused_subscription_ends_and_others_continue(client_page: Page, endpoint: Endpoint) -> None:
    await client_page.evaluate("() => { connect({token: 't'}); subscribe('secret'); subscribe('news'); }")
    connection = await endpoint.connection()
    secret, news = await connection.accept_connect()
    refusal = {"id": secret["id"], "error": {"code": 103, "message": "permission denied"}}
    await connection.send(refusal, subscribe_reply(news, 0), publication(1))
    (end,) = await recorded(client_page, "unsubscribed", count=1)
    assert (end["code"], end["reason"]) == (103, "permission denied")
    await recorded(client_page, "publication", count=1)


async def test_a_subscribe_is_repeated_after_a_temporary_error(client_page: Page, endpoint: Endpoint) -> None:
    await client_page.evaluate("() => { connect({token: 't'}); subscribe('news'); }")
    connection = await endpoint.connection()
    (subscribe,) = await connection.accept_connect()
    error = {"code": 100, "message": "internal server error", "temporary": True}
    await connection.send({"id": subscribe["id"], "error": error})
    (again,) = await connection.receive()
    assert again["subscribe"] == subscribe["subscribe"]


async def test_a_subscription_ended_with_a_temporary_code_is_renewed(
    client_page: Page, endpoint: Endpoint
) -> None:
    connection = await subscribed(client_page, endpoint, offset=7)
    unsubscribe = {"code": 2500, "reason": "insufficient state"}
    await connection.send({"push": {"channel": "news", "unsubscribe": unsubscribe}})
    (again,) = await connection.receive()
    assert again["subscribe"].items() >= {"recover": True, "offset": 7}.items()


async def test_a_subscription_ended_with_a_final_code_ends(client_page: Page, endpoint: Endpoint) -> None:
    connection = await subscribed(client_page, endpoint)
    unsubscribe = {"code": 2000, "reason": "server unsubscribe"}
    await connection.send({"push": {"channel": "news", "unsubscribe": unsubscribe}}, publication(1))
    (end,) = await recorded(client_page, "unsubscribed", count=1)
    assert end["code"] == 2000
    assert await client_page.evaluate("recorded.filter(({type}) => type === 'publication')") == []


# --- commands ---


async def test_commands_resolve_with_results_and_reject_with_codes(
    client_page: Page, endpoint: Endpoint
) -> None:
    connection = await subscribed(client_page, endpoint)
    await client_page.evaluate("""() => {
        window.results = Promise.allSettled([
            client.publish("news", {a: 1}),
            client.history("news", {limit: 2}),
            client.presence("news"), client.presenceStats("news")]);
    }""")
    commands = [(await connection.receive())[0] for _ in range(4)]
    assert [list(command)[1] for command in commands] == ["publish", "history", "presence", "presence_stats"]
    await connection.send(
        {"id": commands[0]["id"], "publish": {}},
        {"id": commands[1]["id"], "history": {"publications": [], "offset": 3, "epoch": "e"}},
        {"id": commands[2]["id"], "presence": {"presence": {}}},
        {"id": commands[3]["id"], "error": {"code": 108, "message": "not available"}},
    )
    results = await client_page.evaluate(
        "results.then(all => all.map(({value, reason}) => value ?? {code: reason.code, name: reason.name}))"
    )
    assert results[:3] == [{}, {"publications": [], "offset": 3, "epoch": "e"}, {"presence": {}}]
    assert results[3] == {"code": 108, "name": "TocsinError"}


async def test_joins_and_leaves_are_emitted(client_page: Page, endpoint: Endpoint) -> None:
    connection = await subscribed(client_page, endpoint)
    info = {"user": "u", "client": "c"}
    await connection.send(
        {"push": {"channel": "news", "join": {"info": info}}},
        {"push": {"channel": "news", "leave": {"info": info}}},
    )
    assert await recorded(client_page, "join", "leave", count=2) == [
        {"type": "join", **info},
        {"type": "leave", **info},
    ]


# --- the event stream ---


def message(offset: int, channel: str = "a") -> Json:
    return {"channel": channel, "pub": {"data": {"n": offset}, "offset": offset}}


async def test_a_stream_requests_its_channels_in_order(client_page: Page, endpoint: Endpoint) -> None:
    since = {"a": {"offset": 1, "epoch": "x"}}
    await client_page.evaluate("since => openStream({channels: ['a', 'b'], getToken, since})", since)
    stream = await endpoint.stream()
    assert stream.query == {"channel": "b", "token": "first", "last_event_id": "1@x,"}


async def test_a_cut_stream_resumes_from_all_its_positions(client_page: Page, endpoint: Endpoint) -> None:
    await client_page.evaluate("() => openStream({channels: ['a', 'b']})")
    stream = await endpoint.stream()
    stream.send(message(1, "a"), "1@x,")
    stream.send(message(8, "b"), "1@x,8@y")
    await recorded(client_page, "publication", count=2)
    await client_page.evaluate("() => stream.cut()")
    assert await client_page.evaluate("stream.state") == "cut"
    await client_page.evaluate("() => stream.resume()")
    again = await endpoint.stream()
    assert again.query["last_event_id"] == "1@x,8@y"
    again.send(message(1, "a"), "1@x,8@y")
    again.send(message(2, "a"), "2@x,8@y")
    received = await recorded(client_page, "publication", count=3)
    assert [(one["channel"], one["offset"]) for one in received] == [("a", 1), ("b", 8), ("a", 2)]
    assert len(await recorded(client_page, "duplicate", count=1)) == 1


async def test_a_stream_resumes_from_the_position_of_its_connect_event(
    client_page: Page, endpoint: Endpoint
) -> None:
    """Even if it was cut before the first publication."""
    await client_page.evaluate("() => openStream({channels: ['a']})")
    stream = await endpoint.stream()
    stream.send({"client": "c", "node": "n1"}, "5@x", event="connect")
    (connected,) = await recorded(client_page, "connected", count=1)
    assert connected["node"] == "n1"
    await client_page.evaluate("() => { stream.cut(); stream.resume(); }")
    assert (await endpoint.stream()).query["last_event_id"] == "5@x"


async def test_the_browser_resumes_a_stream_that_ended(client_page: Page, endpoint: Endpoint) -> None:
    await client_page.evaluate("() => openStream({channels: ['a']})")
    stream = await endpoint.stream()
    stream.send(message(1), "1@x")
    stream.end()
    assert (await endpoint.stream()).last_event_id == "1@x"


async def test_a_stream_reconnects_at_once_when_the_network_is_back(
    client_page: Page, endpoint: Endpoint
) -> None:
    """Even if the browser would wait longer."""
    await client_page.evaluate("() => openStream({channels: ['a']})")
    stream = await endpoint.stream()
    stream.send(message(1), "1@x")
    await recorded(client_page, "publication", count=1)
    stream.end(retry_milliseconds=600_000)
    await client_page.wait_for_function("stream.state === 'connecting'")
    await client_page.evaluate("() => { dispatchEvent(new Event('online')); }")
    assert (await endpoint.stream()).query["last_event_id"] == "1@x"


async def test_a_gap_event_is_emitted_and_skipped(client_page: Page, endpoint: Endpoint) -> None:
    await client_page.evaluate("() => openStream({channels: ['a']})")
    stream = await endpoint.stream()
    stream.send(message(1), "1@x")
    gap = {"channel": "a", "from": {"offset": 1, "epoch": "x"}, "to": {"offset": 4, "epoch": "y"}}
    stream.send(gap, "4@y", event="gap")
    stream.send(message(5), "5@y")
    events = await recorded(client_page, "publication", "gap", count=3)
    assert [event["type"] for event in events] == ["publication", "gap", "publication"]
    assert events[1] == {"type": "gap", **gap}


async def test_a_final_disconnect_event_ends_the_stream(client_page: Page, endpoint: Endpoint) -> None:
    await client_page.evaluate("() => openStream({channels: ['a']})")
    stream = await endpoint.stream()
    stream.send({"code": 3503, "reason": "force disconnect"}, event="disconnect")
    stream.end()
    await recorded(client_page, "disconnect", count=1)
    (*_, end) = await recorded(client_page, "state", count=2)
    assert (end["state"], end["code"]) == ("disconnected", 3503)


async def test_a_refused_stream_is_opened_again_with_a_new_token(
    endpoint: Endpoint, browser: Browser
) -> None:
    """EventSource alone would give up. The browser logs the refusal, so this page has its own console."""
    client_page = await browser.new_page()
    await client_page.goto(f"{endpoint.url}/page")
    await load_module(client_page, endpoint)
    endpoint.refuses_streams = True
    await client_page.evaluate("() => openStream({channels: ['a'], getToken})")
    first = await endpoint.stream()
    endpoint.refuses_streams = False
    second = await endpoint.stream()
    assert [first.query["token"], second.query["token"]] == ["first", "second"]
    await client_page.close()


# --- hostile servers ---


DELAYS = """async () => {
    const { Backoff } = await import("/tocsin/tracker.js");
    Math.random = () => 0.5;
    const backoff = new Backoff(), next = () => { backoff.succeed(); return backoff.next(); };
    const overloaded = new Backoff(), atOnce = new Backoff(), refresh = new Backoff();
    return {
        short: Array.from({length: 8}, next),
        overloaded: overloaded.next(3013),
        atOnce: [atOnce.nextOrAtOnce(), atOnce.nextOrAtOnce()],
        refresh: [0, -1, NaN, 0, 0, 0, 0, 600, 0, 1e300].map(ttl => refresh.refresh(ttl)),
    };
}"""


async def test_connections_that_do_not_last_do_not_shorten_the_delays(client_page: Page) -> None:
    """In milliseconds, with the mean of all random numbers. A token is renewed after a second at least."""
    delays = await client_page.evaluate(DELAYS)
    assert delays["short"] == [750, 1000, 1500, 2500, 4500, 8500, 10500, 10500]
    assert delays["overloaded"] == 2500
    assert delays["atOnce"] == [0, 1000]
    assert delays["refresh"][:2] == [1000, 2000]
    assert delays["refresh"][7:] == [600_000, 1000, 2**31 - 1]


async def test_a_refresh_that_is_due_at_once_waits_for_a_second(
    client_page: Page, endpoint: Endpoint
) -> None:
    await client_page.evaluate("() => connect({getToken})")
    connection = await endpoint.connection()
    began = await client_page.evaluate("() => performance.now()")
    await connection.accept_connect(expires=True, ttl=0)
    (refresh,) = await connection.receive()
    assert refresh["refresh"] == {"token": "second"}
    assert await client_page.evaluate("() => performance.now()") - began > 500


async def test_a_subscription_that_is_ended_at_once_is_subscribed_with_growing_delays(
    client_page: Page, endpoint: Endpoint
) -> None:
    """The first time at once, then after half a second at least."""
    connection = await subscribed(client_page, endpoint)
    end = {"push": {"channel": "news", "unsubscribe": {"code": 2500, "reason": "r"}}}
    await connection.send(end)
    (again,) = await connection.receive()
    began = await client_page.evaluate("() => performance.now()")
    await connection.send(subscribe_reply(again, 0), end)
    assert [list(one) for one in await connection.receive()] == [["id", "subscribe"]]
    assert await client_page.evaluate("() => performance.now()") - began > 400


async def test_many_pings_in_one_frame_are_answered_by_one_pong(
    client_page: Page, endpoint: Endpoint
) -> None:
    connection = await subscribed(client_page, endpoint, ping=25, pong=True)
    await connection.send({}, {}, {})
    assert await connection.receive() == [{}]
    await connection.send({})
    assert await connection.receive() == [{}]


@pytest.mark.parametrize("ping", [-5, 1e300, "soon"])
async def test_a_ping_interval_that_no_server_should_name_does_not_end_the_connection(
    client_page: Page, endpoint: Endpoint, ping: Any
) -> None:
    """A timer of more than 24 days would fire at once."""
    connection = await subscribed(client_page, endpoint, ping=ping, pong=True)
    await connection.send({}, publication(1))
    await recorded(client_page, "publication", count=1)
    assert [one["state"] for one in await recorded(client_page, "state", count=1)] == ["connected"]


@pytest.mark.parametrize(
    "frame", ["<html>", "null", '{"push":{"channel":"news","pub":{"data":1,"offset":"1"}}}', '{"push":7']
)
async def test_a_frame_of_another_protocol_ends_the_connection_with_its_reason(
    client_page: Page, endpoint: Endpoint, frame: str
) -> None:
    connection = await subscribed(client_page, endpoint)
    await connection.send_text(frame)
    states = await recorded(client_page, "state", count=2)
    assert (states[-1]["state"], states[-1]["code"]) == ("disconnected", 2)
    assert states[-1]["reason"].startswith("not of this protocol: ")


async def test_an_event_stream_whose_connections_do_not_last_waits_in_spite_of_the_retry(
    client_page: Page, endpoint: Endpoint
) -> None:
    """The browser itself would try hundreds of times a second after `retry: 0`. It does so once."""
    await client_page.evaluate("() => openStream({channels: ['news']})")
    (await endpoint.stream()).end(retry_milliseconds=0)
    second = await endpoint.stream()
    began = await client_page.evaluate("() => performance.now()")
    second.end(retry_milliseconds=0)
    await endpoint.stream()
    assert await client_page.evaluate("() => performance.now()") - began > 400


async def test_an_event_of_another_protocol_ends_the_stream_with_its_reason(
    client_page: Page, endpoint: Endpoint
) -> None:
    await client_page.evaluate("() => openStream({channels: ['news']})")
    (await endpoint.stream()).send({"channel": "news", "pub": {"data": 1, "offset": -1}}, "1@e")
    states = await recorded(client_page, "state", count=2)
    assert (states[-1]["state"], states[-1]["code"]) == ("disconnected", 2)
