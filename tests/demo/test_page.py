"""The page in a browser, as a visitor uses it, against a running demo."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, Route, expect

from tests.demo.conftest import new_page, running_demo
from tests.demo.visit import (
    LANES,
    contrasts,
    fact,
    figure,
    holds,
    live,
    online,
    opened,
    resume,
    say,
    send_ten,
    toggle,
    way,
)
from tests.support.proxy import run_proxy
from tests.support.server import Server
from tests.support.timing import SOON

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one browser for all of them


@pytest.fixture(scope="module")
def asked() -> list[str]:
    """What the page of `visitor` has asked for, of whomever."""
    return []


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def visitor(demo: Server, browser: Browser, asked: list[str]) -> AsyncIterator[tuple[Page, list[str]]]:
    """Somebody who stays for all of these tests, and what their page complains about."""
    page, complaints = await new_page(browser)
    page.on("request", lambda request: asked.append(request.url))
    await opened(page, demo.url)
    await page.select_option("#interval", "1000")
    yield page, complaints
    await page.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visited(visitor: tuple[Page, list[str]]) -> AsyncIterator[Page]:
    """Their page, with both connections live and everything known."""
    page, complaints = visitor
    complaints.clear()
    await resume(page)
    await expect(page.locator("#polled-behind")).to_be_empty()
    yield page
    assert complaints == []


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def other(demo: Server, browser: Browser) -> AsyncIterator[Page]:
    """Somebody else, with cookies of their own."""
    page, complaints = await new_page(browser)
    yield await opened(page, demo.url)
    await page.close()
    assert complaints == []


@pytest_asyncio.fixture(loop_scope="session")
async def desk(demo: Server) -> AsyncIterator[httpx.AsyncClient]:
    """The application's REST face, for changes that are not made on the page."""
    async with httpx.AsyncClient(base_url=demo.url, timeout=SOON, trust_env=False) as client:
        yield client


# --- the connections ---


async def test_a_message_is_heard_on_both_connections(visited: Page) -> None:
    row = await say(visited, "Heard on both")
    for lane in LANES:
        await expect(way(row, lane)).to_have_attribute("data-mark", "live")
        await expect(way(row, lane)).to_contain_text("ms")


async def test_a_message_shows_its_offset_and_connections_stand_there(visited: Page) -> None:
    """One further than at the message before."""
    offsets = []
    for text in ("Here", "And one further"):
        row = await say(visited, text)
        offset = await row.locator(".offset").inner_text()
        for lane in LANES:
            await expect(fact(visited, lane, "position")).to_have_text(re.compile(rf"^{offset}@\w+$"))
        offsets.append(int(offset))
    assert offsets[1] == offsets[0] + 1


@pytest.mark.parametrize("lane", LANES)
async def test_each_connection_says_which_node_holds_it(visited: Page, lane: str) -> None:
    await expect(fact(visited, lane, "node")).to_be_visible()
    await expect(fact(visited, lane, "node")).to_have_text("node-1")


async def newest_marks(page: Page, lane: str) -> set[str]:
    """What the last ten messages are marked as."""
    marks = "marks => marks.slice(-10).map(mark => mark.className)"
    return set(await page.locator(f"#lane-{lane} .mark").evaluate_all(marks))


@pytest.mark.parametrize("lane", LANES)
async def test_a_cut_connection_comes_back_with_exactly_what_it_missed(visited: Page, lane: str) -> None:
    recovered = int(await fact(visited, lane, "recovered").inner_text())
    await toggle(visited, lane, "cut")
    await send_ten(visited)
    await expect(visited.locator(f"#lane-{lane} .lane-state")).to_have_text("cut · 10 waiting")
    assert await newest_marks(visited, lane) == {"mark is-waiting"}
    await toggle(visited, lane, "connected")
    await expect(fact(visited, lane, "recovered")).to_have_text(str(recovered + 10))
    await expect(visited.locator("#story")).to_contain_text("recovered 10 messages")
    assert await newest_marks(visited, lane) == {"mark is-recovered"}
    row = await say(visited, f"Live again on {lane}")
    for each in LANES:
        await expect(way(row, each)).to_have_attribute("data-mark", "live")
        await expect(fact(visited, each, "missed")).to_have_text("0")
        await expect(fact(visited, each, "duplicated")).to_have_text("0")


async def test_saying_something_needs_no_connection(visited: Page) -> None:
    for lane in LANES:
        await toggle(visited, lane, "cut")
    row = await say(visited, "Said into the dark")
    for lane in LANES:
        await expect(way(row, lane)).to_have_attribute("data-mark", "waiting")
    for lane in LANES:
        await toggle(visited, lane, "connected")
        await expect(way(row, lane)).to_have_attribute("data-mark", "recovered")


async def test_a_network_that_breaks_loses_nothing(demo: Server, browser: Browser, other: Page) -> None:
    """Nobody presses a button: the connections are torn, and both come back by themselves."""
    async with run_proxy(demo) as proxy:
        page = await opened(await browser.new_page(), proxy.url)
        row = await say(page, "Before the storm")
        for lane in LANES:
            await expect(way(row, lane)).to_have_attribute("data-mark", "live")
        proxy.cut()
        for lane in LANES:
            await expect(page.locator(f"#lane-{lane}")).to_have_attribute("data-state", "connecting")
        await send_ten(other)
        proxy.restore()
        await online(page)
        await live(page)
        for lane in LANES:
            await expect(fact(page, lane, "recovered")).to_have_text("10")
        await say(page, "After the storm")
        for lane in LANES:
            await expect(fact(page, lane, "missed")).to_have_text("0")
            await expect(fact(page, lane, "duplicated")).to_have_text("0")
        await page.close()


@pytest.fixture(scope="module")
def replacement(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Another demo. It is ended with the module: doing that inside a test would hold up the proxy's loop."""
    yield from running_demo(tmp_path_factory.mktemp("replacement") / "demo.sqlite")


async def test_a_log_that_is_gone_is_told(demo: Server, replacement: Server, browser: Browser) -> None:
    """Another server has neither the log nor the keys.

    One connection is closed for good; the other comes back with a fresh token and says that there is a gap.
    """
    async with run_proxy(demo) as proxy:
        page = await opened(await browser.new_page(), proxy.url)
        await say(page, "Kept by the first only")
        proxy.cut()
        for lane in LANES:
            await expect(page.locator(f"#lane-{lane}")).to_have_attribute("data-state", "connecting")
        await page.evaluate("""() => {
            window.stories = [];
            const story = document.querySelector("#story");
            new MutationObserver(() => stories.push(story.textContent)).observe(story, {childList: true});
        }""")
        proxy.forward_to(replacement)
        proxy.restore()
        await online(page)
        await expect(page.locator("#lane-websocket")).to_have_attribute("data-state", "disconnected")
        await expect(page.locator("#lane-eventsource")).to_have_attribute("data-state", "connected")
        await holds(page, "stories.some(story => story.includes('told of a gap'))")
        await page.get_by_role("button", name="Reload").click()
        await expect(page.locator("#lane-websocket")).to_have_attribute("data-state", "connected")
        await page.close()


async def test_what_a_connection_never_hears_is_counted_as_missed(demo: Server, page: Page) -> None:
    """The counter can count: a message taken from the stream before the page sees it is missing for good."""
    visited = await opened(page, demo.url)
    await visited.evaluate("""async () => {
        const {Track} = await import("/tocsin/track.js");
        const take = Track.prototype.take;
        let isTaken = false;
        Track.prototype.take = function (target, channel, next) {
            if (target.url !== undefined && channel === "chat:lobby" && !isTaken) return !(isTaken = true);
            return take.call(this, target, channel, next);
        };
    }""")
    row = await say(visited, "Taken from the stream")
    await expect(way(row, "eventsource")).to_have_attribute("data-mark", "missed")
    await expect(fact(visited, "eventsource", "missed")).to_have_text("1")
    await expect(fact(visited, "websocket", "missed")).to_have_text("0")


async def test_whoever_comes_later_sees_what_was_said_before(visited: Page, other: Page) -> None:
    await say(visited, "Said early")
    await other.reload()
    row = other.locator(".message", has_text="Said early")
    await expect(way(row, "websocket")).to_have_text("WS before you came")
    for lane in LANES:
        await expect(fact(other, lane, "missed")).to_have_text("0")


# --- who is here ---


async def test_others_appear_and_disappear(demo: Server, visited: Page, page: Page) -> None:
    await opened(page, demo.url)
    name = await page.locator("#whoami").text_content()
    person = visited.locator("#people li", has_text=str(name))
    await expect(person).to_have_count(1)
    await expect(visited.locator("#people li", has_text="you ·")).to_have_count(1)
    await page.goto("about:blank")
    await expect(person).to_have_count(0)


async def test_text_is_text_whatever_it_says(visited: Page, other: Page) -> None:
    """Nothing that a visitor types becomes part of another's page."""
    await say(other, "<img src=x onerror=alert(1)> & <b>bold</b>")
    await expect(visited.locator(".message img, .message b")).to_have_count(0)
    await expect(visited.locator(".message", has_text="<img src=x")).to_have_count(1)


# --- asking, and being told ---


async def milliseconds(figure: Locator) -> float:
    """What a person reads there, as a number."""
    number, unit = str(await figure.text_content()).removeprefix("< ").split()
    return float(number) * {"ms": 1, "s": 1000, "min": 60_000}[unit]


async def add(desk: httpx.AsyncClient, title: str) -> dict[str, Any]:
    url = f"http://127.0.0.1:9/{title.replace(' ', '-')}"
    response = await desk.post("/links", json={"title": title, "url": url})
    assert response.status_code == 201, response.text
    link: dict[str, Any] = response.json()
    return link


async def test_the_told_column_knows_before_the_asking_one(visited: Page, desk: httpx.AsyncClient) -> None:
    told_for = await figure(visited, "told", "requests").inner_text()
    may_ask = asyncio.Event()

    async def hold(route: Route) -> None:
        await may_ask.wait()
        await route.continue_()

    await visited.route("**/links?since=*", hold)
    async with visited.expect_request("**/links?since=*"):
        await visited.select_option("#interval", "1000")
    await add(desk, "Known by whom")
    told = visited.locator("#column-told .links li", has_text="Known by whom")
    polled = visited.locator("#column-polled .links li", has_text="Known by whom")
    await expect(told).to_have_count(1)
    assert await polled.count() == 0
    await expect(visited.locator("#polled-behind")).to_have_text("1 behind")
    may_ask.set()
    await expect(polled).to_have_count(1)
    await expect(visited.locator("#polled-behind")).to_be_empty()
    late = await milliseconds(figure(visited, "polled", "last"))
    assert await milliseconds(figure(visited, "told", "last")) < late
    assert await figure(visited, "told", "requests").inner_text() == told_for


async def test_links_are_added_edited_and_deleted_on_the_page(visited: Page) -> None:
    await visited.fill("#adder [name=title]", "From the page")
    await visited.fill("#adder [name=url]", "http://127.0.0.1:9/from-the-page")
    await visited.click("#adder button")
    row = visited.locator("#column-told .links li", has_text="From the page")
    await expect(row).to_have_count(1)
    await row.get_by_role("button", name="Edit").click()
    editor = visited.locator("#column-told .editor")
    await editor.get_by_label("Title").fill("By another name")
    await editor.get_by_role("button", name="Save").click()
    renamed = visited.locator("#column-told .links li", has_text="By another name")
    await expect(renamed).to_have_count(1)
    await renamed.get_by_role("button", name="Delete").click()
    await expect(renamed).to_have_count(0)
    await expect(visited.locator("#column-polled .links li", has_text="By another name")).to_have_count(0)


async def test_an_edit_of_what_somebody_else_has_changed_is_refused(
    visitor: tuple[Page, list[str]], desk: httpx.AsyncClient
) -> None:
    """The browser writes the 412 to the console, which is no mistake of the page."""
    page, _ = visitor
    link = await add(desk, "Two hands")
    row = page.locator(f"#column-told .links li[data-id='{link['id']}']")
    await row.get_by_role("button", name="Edit").click()
    await desk.patch(f"/links/{link['id']}", json={"title": "The other was faster"})
    await row.get_by_role("button", name="Save").click()
    await expect(row.locator(".problem")).to_contain_text("has changed since")
    await row.get_by_role("button", name="Cancel").click()
    await expect(row).to_contain_text("The other was faster")


async def test_a_check_is_followed_in_both_columns(visited: Page) -> None:
    rows = [visited.locator(f"#column-{name} .links li[data-id='1']") for name in ("told", "polled")]
    await rows[0].get_by_role("button", name="Check").click()
    await expect(rows[0].locator("progress")).to_be_visible()
    for row in rows:
        await expect(row.locator(".verdict")).to_contain_text("answered 5 of 5 times")
        await expect(row.locator("progress")).to_be_hidden()


async def test_what_happened_while_the_socket_was_away_is_told_on_return(
    visited: Page, desk: httpx.AsyncClient
) -> None:
    """Recovered from the log, without another request."""
    told_for = await figure(visited, "told", "requests").inner_text()
    await toggle(visited, "websocket", "cut")
    await add(desk, "While away")
    await expect(visited.locator("#column-polled .links li", has_text="While away")).to_have_count(1)
    told = visited.locator("#column-told .links li", has_text="While away")
    assert await told.count() == 0
    await toggle(visited, "websocket", "connected")
    await expect(told).to_have_count(1)
    assert await figure(visited, "told", "requests").inner_text() == told_for


# --- for everybody, everywhere ---


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
async def test_no_width_needs_scrolling_sideways(visited: Page, width: int) -> None:
    await visited.set_viewport_size({"width": width, "height": 780})
    await toggle(visited, "eventsource", "cut")
    await say(visited, f"Averylongwordwithoutanyspace{width}" * 8)
    row = visited.locator("#column-told .links li[data-id='2']")
    await row.get_by_role("button", name="Edit").click()
    await visited.locator("#column-polled .links li[data-id='3']").get_by_role("button", name="Check").click()
    assert await visited.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    await row.get_by_role("button", name="Cancel").click()


async def test_the_keyboard_is_enough(demo: Server, page: Page) -> None:
    """Skip to the connections, cut the first with Enter, and stay on the button that resumes it."""
    visited = await opened(page, demo.url)
    await visited.keyboard.press("Tab")
    await expect(visited.locator(".skip")).to_be_focused()
    await visited.keyboard.press("Enter")
    await visited.keyboard.press("Tab")
    await expect(visited.get_by_role("button", name="Cut the WebSocket")).to_be_focused()
    await visited.keyboard.press("Enter")
    await expect(visited.get_by_role("button", name="Resume the WebSocket")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_can_be_read_in_light_and_dark(visited: Page, scheme: Any) -> None:
    """Contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3) for every colour that text has."""
    await visited.emulate_media(color_scheme=scheme)
    await toggle(visited, "eventsource", "cut")
    ratios = await contrasts(visited)
    assert len(ratios) > 20
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


async def test_who_wants_no_motion_gets_none(visited: Page) -> None:
    """As the visitor's browser says; where it says otherwise, a new message moves."""
    await say(visited, "Sitting still")
    assert await visited.evaluate("document.getAnimations().length") == 0
    await visited.emulate_media(reduced_motion="no-preference")
    await visited.evaluate("""() => {
        window.moved = [];
        document.addEventListener("animationstart", (event) => moved.push(event.animationName));
    }""")
    await say(visited, "Arriving with a flourish")
    await holds(visited, "moved.includes('fresh')")
    await visited.emulate_media(reduced_motion="reduce")


async def test_nothing_is_fetched_from_anywhere_else(demo: Server, visited: Page, asked: list[str]) -> None:
    """Neither when it is opened nor while it is used."""
    await say(visited, "Nobody else need know")
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((demo.url, demo.url.replace("http", "ws")))] == []
