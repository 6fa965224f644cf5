"""The browser client in a browser: what it says, what it tells, and how it comes back."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.demo.conftest import new_page
from tests.demo.stage import Connection, Json, Stage, Theatre, granted, publication

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one browser for all of them

SETTING = """async ([socketUrl, eventsUrl]) => {
    const tocsin = await import("/tocsin.js");
    window.told = [];
    window.tell = (target, ...types) => types.forEach(type =>
        target.addEventListener(type, ({detail}) => told.push({type, ...detail})));
    window.tokens = ["first", "second", "third"];
    window.getToken = () => tokens.shift();
    window.connect = options => {
        window.client = tocsin.connect(socketUrl, options);
        tell(client, "state", "connected");
    };
    window.follow = (channel, options) => {
        const subscription = client.subscribe(channel, options);
        tell(subscription, "subscribed", "publication", "duplicate", "gap", "unsubscribed", "join", "leave");
        return subscription;
    };
    window.listen = options => {
        window.stream = new tocsin.EventStream(eventsUrl, options);
        tell(stream, "state", "connected", "publication", "duplicate", "gap", "disconnect");
    };
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def actor(theatre: Theatre, browser: Browser) -> AsyncIterator[tuple[Page, list[str]]]:
    """The page that plays in all of them, and what it complains about."""
    page, complaints = await new_page(browser)
    await page.goto(f"{theatre.url}/page")
    yield page, complaints
    await page.close()


@pytest_asyncio.fixture(loop_scope="session")
async def script(stage: Stage, actor: tuple[Page, list[str]]) -> AsyncIterator[Page]:
    """A page with the module loaded and nothing else; what it opens is closed afterwards."""
    page, complaints = actor
    complaints.clear()
    await set_the_scene(page, stage)
    yield page
    await page.evaluate("() => { window.client?.close(); window.stream?.close(); }")
    assert complaints == []


async def set_the_scene(page: Page, stage: Stage) -> None:
    await page.evaluate(SETTING, [stage.websocket_url, stage.events_url])


async def told(page: Page, *types: str, count: int) -> list[Json]:
    """What the page was told of these types, once it is that much."""
    pick = "types => told.filter(one => types.includes(one.type))"
    await page.wait_for_function(f"([types, count]) => ({pick})(types).length >= count", arg=[types, count])
    events: list[Json] = await page.evaluate(pick, types)
    return events


async def subscribed(script: Page, stage: Stage, offset: int = 0, **result: Any) -> Connection:
    """A client that follows `news` from `offset` on."""
    await script.evaluate("() => { connect({token: 't'}); window.news = follow('news'); }")
    connection = await stage.connection()
    (subscribe,) = await connection.welcomes(**result)
    await connection.says(granted(subscribe, offset))
    await told(script, "subscribed", count=1)
    return connection


# --- the first words ---


async def test_it_says_who_it_is_and_all_it_wants_in_one_frame(script: Page, stage: Stage) -> None:
    await script.evaluate("() => { connect({token: 't'}); follow('a'); follow('b'); }")
    connection = await stage.connection()
    connect, one, two = await connection.hears()
    assert connect["connect"] == {"token": "t", "name": "tocsin.js"}
    assert one["subscribe"] == {"channel": "a", "positioned": True, "recoverable": True}
    assert two["subscribe"]["channel"] == "b"
    assert [connect["id"], one["id"], two["id"]] == [1, 2, 3]


async def test_a_channel_wanted_before_the_welcome_is_asked_for(script: Page, stage: Stage) -> None:
    """Between the first frame and its answer, commands may follow, but nothing may be forgotten."""
    await script.evaluate("() => connect({token: 't'})")
    connection = await stage.connection()
    (connect,) = await connection.hears()
    await script.evaluate("() => { follow('late'); }")
    (late,) = await connection.hears()
    assert late["subscribe"]["channel"] == "late"
    await connection.says({"id": connect["id"], "connect": {"client": "c", "node": "n1"}}, granted(late, 3))
    (connected,) = await told(script, "connected", count=1)
    assert connected["node"] == "n1"
    (answer,) = await told(script, "subscribed", count=1)
    assert answer["position"] == {"offset": 3, "epoch": "e"}


async def test_a_push_on_the_line_after_the_grant_is_heard(script: Page, stage: Stage) -> None:
    await script.evaluate("() => { connect({token: 't'}); follow('news'); }")
    connection = await stage.connection()
    connect, subscribe = await connection.hears()
    welcome = {"id": connect["id"], "connect": {"client": "c"}}
    await connection.says(welcome, granted(subscribe, 4), publication(5))
    (heard,) = await told(script, "publication", count=1)
    assert (heard["offset"], heard["epoch"], heard["recovered"]) == (5, "e", False)


async def test_it_answers_a_ping(script: Page, stage: Stage) -> None:
    connection = await subscribed(script, stage, ping=25, pong=True)
    await connection.says({})
    assert await connection.hears() == [{}]


# --- repetitions and gaps ---


async def test_what_comes_twice_is_dropped_and_told(script: Page, stage: Stage) -> None:
    connection = await subscribed(script, stage)
    await connection.says(publication(1), publication(2), publication(1), publication(2), publication(3))
    heard = await told(script, "publication", count=3)
    assert [one["offset"] for one in heard] == [1, 2, 3]
    assert [one["offset"] for one in await told(script, "duplicate", count=2)] == [1, 2]


async def test_a_hole_is_told_before_what_comes_after_it(script: Page, stage: Stage) -> None:
    connection = await subscribed(script, stage)
    await connection.says(publication(1), publication(4))
    events = await told(script, "publication", "gap", count=3)
    assert [event["type"] for event in events] == ["publication", "gap", "publication"]
    assert events[1]["from"] == {"offset": 1, "epoch": "e"}
    assert events[1]["to"] == {"offset": 3, "epoch": "e"}


# --- coming back ---


async def test_it_comes_back_where_it_was_and_recovers(script: Page, stage: Stage) -> None:
    connection = await subscribed(script, stage, offset=7)
    await connection.says(publication(8))
    await told(script, "publication", count=1)
    await connection.closes(3001, "shutdown")
    again = await stage.connection()
    (subscribe,) = await again.welcomes()
    assert subscribe["subscribe"].items() >= {"recover": True, "offset": 8, "epoch": "e"}.items()
    missed = [{"data": {}, "offset": 9}, {"data": {}, "offset": 10}]
    await again.says(
        granted(subscribe, 8, was_recovering=True, recovered=True, publications=missed), publication(11)
    )
    heard = await told(script, "publication", count=4)
    assert [(one["offset"], one["recovered"]) for one in heard] == [
        (8, False),
        (9, True),
        (10, True),
        (11, False),
    ]
    assert await script.evaluate("told.filter(({type}) => type === 'gap')") == []


async def test_what_cannot_be_recovered_is_told(script: Page, stage: Stage) -> None:
    connection = await subscribed(script, stage, offset=7)
    await connection.closes(3001, "shutdown")
    again = await stage.connection()
    (subscribe,) = await again.welcomes()
    await again.says(granted(subscribe, 2, epoch="new", was_recovering=True), publication(3))
    (gap,) = await told(script, "gap", count=1)
    assert (gap["from"], gap["to"]) == ({"offset": 7, "epoch": "e"}, {"offset": 2, "epoch": "new"})
    (heard,) = await told(script, "publication", count=1)
    assert (heard["offset"], heard["epoch"]) == (3, "new")


async def test_cut_means_away_until_resumed(script: Page, stage: Stage) -> None:
    connection = await subscribed(script, stage, offset=7)
    await script.evaluate("client.cut()")
    await connection.is_left()
    assert await script.evaluate("client.state") == "cut"
    refusal = await script.evaluate("client.publish('news', 1).catch(error => error.message)")
    assert refusal == "not connected"
    await script.evaluate("client.resume()")
    (subscribe,) = await (await stage.connection()).welcomes()
    assert subscribe["subscribe"]["offset"] == 7


@pytest.mark.parametrize("code", [1001, 3000, 3499, 4000, 4499])
async def test_a_code_that_says_come_back_is_obeyed(script: Page, stage: Stage, code: int) -> None:
    connection = await subscribed(script, stage)
    await connection.closes(code, "come back")
    await stage.connection()


@pytest.mark.parametrize("code", [1009, 3500, 3999, 4500, 4999])
async def test_a_code_that_says_do_not_is_obeyed(script: Page, stage: Stage, code: int) -> None:
    connection = await subscribed(script, stage)
    await connection.closes(code, "enough")
    (_, end) = await told(script, "state", count=2)
    assert (end["state"], end["code"], end["reason"]) == ("disconnected", code, "enough")


async def test_a_voided_state_is_forgotten(script: Page, stage: Stage) -> None:
    """3014: neither the token nor a position is worth anything any more."""
    await script.evaluate("() => { connect({getToken}); follow('news', {since: {offset: 5, epoch: 'e'}}); }")
    connection = await stage.connection()
    (subscribe,) = await connection.welcomes()
    assert subscribe["subscribe"]["recover"] is True
    await connection.closes(3014, "state invalidated")
    connect, subscribe = await (await stage.connection()).hears()
    assert connect["connect"]["token"] == "second"
    assert "recover" not in subscribe["subscribe"]


async def test_a_silent_server_is_left_and_found_again(page: Page, stage: Stage) -> None:
    """It promised a ping every second; ten more are its grace. The page's clock is moved on."""
    script = page
    await script.clock.install()
    await script.goto(f"{stage.url}/page")
    await set_the_scene(script, stage)
    await script.evaluate("() => { connect({token: 't'}); }")
    connection = await stage.connection()
    await connection.welcomes(ping=1, pong=True)
    await told(script, "connected", count=1)
    await script.clock.run_for(9_000)
    assert await script.evaluate("client.state") == "connected"
    await script.clock.run_for(2_500)
    (_, lost) = await told(script, "state", count=2)
    assert (lost["state"], lost["reason"]) == ("connecting", "no ping")
    await script.clock.run_for(1_000)
    await stage.connection()


# --- tokens and refusals ---


async def test_an_expired_token_is_replaced(script: Page, stage: Stage) -> None:
    await script.evaluate("() => connect({getToken})")
    connection = await stage.connection()
    (connect,) = await connection.hears()
    await connection.says({"id": connect["id"], "error": {"code": 109, "message": "token expired"}})
    (again,) = await (await stage.connection()).hears()
    assert [connect["connect"]["token"], again["connect"]["token"]] == ["first", "second"]


async def test_an_expired_token_that_cannot_be_replaced_is_the_end(script: Page, stage: Stage) -> None:
    await script.evaluate("() => connect({token: 't'})")
    connection = await stage.connection()
    (connect,) = await connection.hears()
    await connection.says({"id": connect["id"], "error": {"code": 109, "message": "token expired"}})
    (end,) = await told(script, "state", count=1)
    assert (end["state"], end["code"]) == ("disconnected", 109)


async def test_it_refreshes_before_its_time_is_up(script: Page, stage: Stage) -> None:
    await script.evaluate("() => connect({getToken})")
    connection = await stage.connection()
    await connection.welcomes(expires=True, ttl=1)
    (refresh,) = await connection.hears()
    assert refresh["refresh"] == {"token": "second"}
    await connection.says({"id": refresh["id"], "refresh": {"expires": True, "ttl": 1}})
    (once_more,) = await connection.hears()
    assert once_more["refresh"] == {"token": "third"}


async def test_a_channel_that_is_refused_ends_and_others_live_on(script: Page, stage: Stage) -> None:
    await script.evaluate("() => { connect({token: 't'}); follow('secret'); follow('news'); }")
    connection = await stage.connection()
    secret, news = await connection.welcomes()
    refusal = {"id": secret["id"], "error": {"code": 103, "message": "permission denied"}}
    await connection.says(refusal, granted(news, 0), publication(1))
    (end,) = await told(script, "unsubscribed", count=1)
    assert (end["code"], end["reason"]) == (103, "permission denied")
    await told(script, "publication", count=1)


async def test_a_passing_refusal_is_asked_again(script: Page, stage: Stage) -> None:
    await script.evaluate("() => { connect({token: 't'}); follow('news'); }")
    connection = await stage.connection()
    (subscribe,) = await connection.welcomes()
    error = {"code": 100, "message": "internal server error", "temporary": True}
    await connection.says({"id": subscribe["id"], "error": error})
    (again,) = await connection.hears()
    assert again["subscribe"] == subscribe["subscribe"]


async def test_a_channel_taken_away_for_now_is_asked_for_again(script: Page, stage: Stage) -> None:
    connection = await subscribed(script, stage, offset=7)
    taken = {"code": 2500, "reason": "insufficient state"}
    await connection.says({"push": {"channel": "news", "unsubscribe": taken}})
    (again,) = await connection.hears()
    assert again["subscribe"].items() >= {"recover": True, "offset": 7}.items()


async def test_a_channel_taken_away_for_good_ends(script: Page, stage: Stage) -> None:
    connection = await subscribed(script, stage)
    taken = {"code": 2000, "reason": "server unsubscribe"}
    await connection.says({"push": {"channel": "news", "unsubscribe": taken}}, publication(1))
    (end,) = await told(script, "unsubscribed", count=1)
    assert end["code"] == 2000
    assert await script.evaluate("told.filter(({type}) => type === 'publication')") == []


# --- calls ---


async def test_calls_resolve_with_results_and_reject_with_codes(script: Page, stage: Stage) -> None:
    connection = await subscribed(script, stage)
    await script.evaluate("""() => {
        window.results = Promise.allSettled([
            client.publish("news", {a: 1}),
            client.history("news", {limit: 2}),
            client.presence("news"), client.presenceStats("news")]);
    }""")
    commands = [(await connection.hears())[0] for _ in range(4)]
    assert [list(command)[1] for command in commands] == ["publish", "history", "presence", "presence_stats"]
    await connection.says(
        {"id": commands[0]["id"], "publish": {}},
        {"id": commands[1]["id"], "history": {"publications": [], "offset": 3, "epoch": "e"}},
        {"id": commands[2]["id"], "presence": {"presence": {}}},
        {"id": commands[3]["id"], "error": {"code": 108, "message": "not available"}},
    )
    results = await script.evaluate(
        "results.then(all => all.map(({value, reason}) => value ?? {code: reason.code, name: reason.name}))"
    )
    assert results[:3] == [{}, {"publications": [], "offset": 3, "epoch": "e"}, {"presence": {}}]
    assert results[3] == {"code": 108, "name": "TocsinError"}


async def test_joins_and_leaves_are_told(script: Page, stage: Stage) -> None:
    connection = await subscribed(script, stage)
    info = {"user": "u", "client": "c"}
    await connection.says(
        {"push": {"channel": "news", "join": {"info": info}}},
        {"push": {"channel": "news", "leave": {"info": info}}},
    )
    assert await told(script, "join", "leave", count=2) == [
        {"type": "join", **info},
        {"type": "leave", **info},
    ]


# --- the event stream ---


def sent(offset: int, channel: str = "a") -> Json:
    return {"channel": channel, "pub": {"data": {"n": offset}, "offset": offset}}


async def test_a_stream_asks_for_its_channels_in_order(script: Page, stage: Stage) -> None:
    since = {"a": {"offset": 1, "epoch": "x"}}
    await script.evaluate("since => listen({channels: ['a', 'b'], getToken, since})", since)
    stream = await stage.stream()
    assert stream.query == {"channel": "b", "token": "first", "last_event_id": "1@x,"}


async def test_a_cut_stream_resumes_from_all_its_positions(script: Page, stage: Stage) -> None:
    await script.evaluate("() => listen({channels: ['a', 'b']})")
    stream = await stage.stream()
    stream.says(sent(1, "a"), "1@x,")
    stream.says(sent(8, "b"), "1@x,8@y")
    await told(script, "publication", count=2)
    await script.evaluate("() => stream.cut()")
    assert await script.evaluate("stream.state") == "cut"
    await script.evaluate("() => stream.resume()")
    again = await stage.stream()
    assert again.query["last_event_id"] == "1@x,8@y"
    again.says(sent(1, "a"), "1@x,8@y")
    again.says(sent(2, "a"), "2@x,8@y")
    heard = await told(script, "publication", count=3)
    assert [(one["channel"], one["offset"]) for one in heard] == [("a", 1), ("b", 8), ("a", 2)]
    assert len(await told(script, "duplicate", count=1)) == 1


async def test_a_stream_introduced_with_a_position_resumes_from_it(script: Page, stage: Stage) -> None:
    """Even if it was cut before the first message."""
    await script.evaluate("() => listen({channels: ['a']})")
    stream = await stage.stream()
    stream.says({"client": "c", "node": "n1"}, "5@x", event="connect")
    (connected,) = await told(script, "connected", count=1)
    assert connected["node"] == "n1"
    await script.evaluate("() => { stream.cut(); stream.resume(); }")
    assert (await stage.stream()).query["last_event_id"] == "5@x"


async def test_a_stream_that_ends_is_resumed_by_the_browser(script: Page, stage: Stage) -> None:
    await script.evaluate("() => listen({channels: ['a']})")
    stream = await stage.stream()
    stream.says(sent(1), "1@x")
    stream.ends()
    assert (await stage.stream()).last_event_id == "1@x"


async def test_a_stream_comes_back_at_once_when_the_network_does(script: Page, stage: Stage) -> None:
    """However long the browser would have waited."""
    await script.evaluate("() => listen({channels: ['a']})")
    stream = await stage.stream()
    stream.says(sent(1), "1@x")
    await told(script, "publication", count=1)
    stream.ends(retry_milliseconds=600_000)
    await script.wait_for_function("stream.state === 'connecting'")
    await script.evaluate("() => { dispatchEvent(new Event('online')); }")
    assert (await stage.stream()).query["last_event_id"] == "1@x"


async def test_a_gap_is_told_and_passed(script: Page, stage: Stage) -> None:
    await script.evaluate("() => listen({channels: ['a']})")
    stream = await stage.stream()
    stream.says(sent(1), "1@x")
    gap = {"channel": "a", "from": {"offset": 1, "epoch": "x"}, "to": {"offset": 4, "epoch": "y"}}
    stream.says(gap, "4@y", event="gap")
    stream.says(sent(5), "5@y")
    events = await told(script, "publication", "gap", count=3)
    assert [event["type"] for event in events] == ["publication", "gap", "publication"]
    assert events[1] == {"type": "gap", **gap}


async def test_a_farewell_for_good_ends_the_stream(script: Page, stage: Stage) -> None:
    await script.evaluate("() => listen({channels: ['a']})")
    stream = await stage.stream()
    stream.says({"code": 3503, "reason": "force disconnect"}, event="disconnect")
    stream.ends()
    await told(script, "disconnect", count=1)
    (*_, end) = await told(script, "state", count=2)
    assert (end["state"], end["code"]) == ("disconnected", 3503)


async def test_a_refused_stream_tries_again_with_a_fresh_token(stage: Stage, browser: Browser) -> None:
    """EventSource itself would give up. The browser writes the refusal to the console: no mistake here."""
    script = await browser.new_page()
    await script.goto(f"{stage.url}/page")
    await set_the_scene(script, stage)
    stage.refuses_streams = True
    await script.evaluate("() => listen({channels: ['a'], getToken})")
    first = await stage.stream()
    stage.refuses_streams = False
    second = await stage.stream()
    assert [first.query["token"], second.query["token"]] == ["first", "second"]
    await script.close()
