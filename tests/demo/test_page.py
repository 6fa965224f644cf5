"""The page with the demo's application in a browser, as visitors use it."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, Route, expect

from tests.demo.conftest import new_page, running_demo
from tests.demo.page_actions import (
    CONNECTIONS,
    contrasts,
    delivery,
    fact,
    figure,
    holds,
    live,
    online,
    open_page,
    poll_links,
    resume,
    send_message,
    send_ten,
    toggle,
)
from tests.support.api import NO_TLS
from tests.support.proxy import run_proxy
from tests.support.server import Server
from tests.support.timing import SOON

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one browser for all of them


@pytest.fixture(scope="module")
def requests() -> list[str]:
    """The URLs that the page of `visitor` has requested."""
    return []


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def visitor(
    demo: Server, browser: Browser, requests: list[str]
) -> AsyncIterator[tuple[Page, list[str]]]:
    """A visitor whose page stays open for the tests of this module, and the errors on its console."""
    page, console_errors = await new_page(browser)
    page.on("request", lambda request: requests.append(request.url))
    await open_page(page, demo.url)
    await page.select_option("#interval", "1000")
    yield page, console_errors
    await page.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visited(visitor: tuple[Page, list[str]]) -> AsyncIterator[Page]:
    """The page of that visitor, with both connections live and both columns up to date."""
    page, console_errors = visitor
    console_errors.clear()
    await resume(page)
    await poll_links(page)
    await expect(page.locator("#polled-lag")).to_be_empty()
    yield page
    assert console_errors == []


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def other(demo: Server, browser: Browser) -> AsyncIterator[Page]:
    """The page of another visitor."""
    page, console_errors = await new_page(browser)
    yield await open_page(page, demo.url)
    await page.close()
    assert console_errors == []


@pytest_asyncio.fixture(loop_scope="session")
async def api(demo: Server) -> AsyncIterator[httpx.AsyncClient]:
    """The application's HTTP API, for changes from outside the page."""
    async with httpx.AsyncClient(base_url=demo.url, timeout=SOON, trust_env=False, verify=NO_TLS) as client:
        yield client


# --- the connections ---


async def test_a_message_is_received_over_both_connections(visited: Page) -> None:
    row = await send_message(visited, "Over both")
    for connection in CONNECTIONS:
        await expect(delivery(row, connection)).to_have_attribute("data-mark", "live")
        await expect(delivery(row, connection)).to_contain_text("ms")


async def test_a_message_shows_its_offset_which_both_connections_reach(visited: Page) -> None:
    """The next message has the next offset."""
    offsets = []
    for text in ("Here", "And one further"):
        row = await send_message(visited, text)
        offset = await row.locator(".offset").inner_text()
        for connection in CONNECTIONS:
            await expect(fact(visited, connection, "position")).to_have_text(re.compile(rf"^{offset}@\w+$"))
        offsets.append(int(offset))
    assert offsets[1] == offsets[0] + 1


@pytest.mark.parametrize("connection", CONNECTIONS)
async def test_each_connection_shows_the_node_that_holds_it(visited: Page, connection: str) -> None:
    await expect(fact(visited, connection, "node")).to_be_visible()
    await expect(fact(visited, connection, "node")).to_have_text("node-1")


async def newest_marks(page: Page, connection: str) -> set[str]:
    """The marks of the last ten messages."""
    marks = "marks => marks.slice(-10).map(mark => mark.className)"
    return set(await page.locator(f"#connection-{connection} .mark").evaluate_all(marks))


@pytest.mark.parametrize("connection", CONNECTIONS)
async def test_a_cut_connection_recovers_exactly_the_messages_it_missed(
    visited: Page, connection: str
) -> None:
    recovered = int(await fact(visited, connection, "recovered").inner_text())
    await toggle(visited, connection, "cut")
    await send_ten(visited)
    await expect(visited.locator(f"#connection-{connection} .connection-state")).to_have_text(
        "cut · 10 waiting"
    )
    assert await newest_marks(visited, connection) == {"mark is-waiting"}
    await toggle(visited, connection, "connected")
    await expect(fact(visited, connection, "recovered")).to_have_text(str(recovered + 10))
    await expect(visited.locator("#status")).to_contain_text("recovered 10 messages")
    assert await newest_marks(visited, connection) == {"mark is-recovered"}
    row = await send_message(visited, f"Live again on {connection}")
    for each in CONNECTIONS:
        await expect(delivery(row, each)).to_have_attribute("data-mark", "live")
        await expect(fact(visited, each, "missed")).to_have_text("0")
        await expect(fact(visited, each, "duplicated")).to_have_text("0")


async def test_sending_works_without_any_connection(visited: Page) -> None:
    for connection in CONNECTIONS:
        await toggle(visited, connection, "cut")
    row = await send_message(visited, "Sent while both are cut")
    for connection in CONNECTIONS:
        await expect(delivery(row, connection)).to_have_attribute("data-mark", "waiting")
    for connection in CONNECTIONS:
        await toggle(visited, connection, "connected")
        await expect(delivery(row, connection)).to_have_attribute("data-mark", "recovered")


async def test_a_broken_network_loses_no_message(demo: Server, browser: Browser, other: Page) -> None:
    """Both connections reconnect without an action of the visitor."""
    async with run_proxy(demo) as proxy:
        page = await open_page(await browser.new_page(), proxy.url)
        row = await send_message(page, "Before the network breaks")
        for connection in CONNECTIONS:
            await expect(delivery(row, connection)).to_have_attribute("data-mark", "live")
        proxy.cut()
        for connection in CONNECTIONS:
            await expect(page.locator(f"#connection-{connection}")).to_have_attribute(
                "data-state", "connecting"
            )
        await send_ten(other)
        proxy.restore()
        await online(page)
        await live(page)
        for connection in CONNECTIONS:
            await expect(fact(page, connection, "recovered")).to_have_text("10")
        await send_message(page, "After the network is back")
        for connection in CONNECTIONS:
            await expect(fact(page, connection, "missed")).to_have_text("0")
            await expect(fact(page, connection, "duplicated")).to_have_text("0")
        await page.close()


@pytest.fixture(scope="module")
def replacement(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Another demo. Module-scoped, because stopping it inside a test would block the proxy's event loop."""
    yield from running_demo(tmp_path_factory.mktemp("replacement") / "demo.sqlite")


async def test_a_replaced_history_is_shown_as_a_gap(
    demo: Server, replacement: Server, browser: Browser
) -> None:
    """Another server has neither the history nor the keys.

    The WebSocket is closed for good. The EventSource reconnects with a new token and reports a gap.
    """
    async with run_proxy(demo) as proxy:
        page = await open_page(await browser.new_page(), proxy.url)
        await send_message(page, "Stored by the first demo only")
        proxy.cut()
        for connection in CONNECTIONS:
            await expect(page.locator(f"#connection-{connection}")).to_have_attribute(
                "data-state", "connecting"
            )
        await page.evaluate("""() => {
            window.texts = [];
            const status = document.querySelector("#status");
            new MutationObserver(() => texts.push(status.textContent)).observe(status, {childList: true});
        }""")
        proxy.forward_to(replacement)
        proxy.restore()
        await online(page)
        await expect(page.locator("#connection-websocket")).to_have_attribute("data-state", "disconnected")
        await expect(page.locator("#connection-eventsource")).to_have_attribute("data-state", "connected")
        await holds(page, "texts.some(text => text.includes('has a gap'))")
        await page.get_by_role("button", name="Reload").click()
        await expect(page.locator("#connection-websocket")).to_have_attribute("data-state", "connected")
        await page.close()


async def test_a_message_that_does_not_arrive_is_counted_as_missed(demo: Server, page: Page) -> None:
    """A message is removed from the event stream before the page counts it."""
    await page.clock.install()
    visited = await open_page(page, demo.url)
    await visited.evaluate("""async () => {
        const {PositionTracker} = await import("/tocsin/tracker.js");
        const accept = PositionTracker.prototype.accept;
        let isRemoved = false;
        PositionTracker.prototype.accept = function (target, channel, next) {
            const isFromStream = target.url !== undefined && channel === "chat:lobby";
            if (isFromStream && !isRemoved) return !(isRemoved = true);
            return accept.call(this, target, channel, next);
        };
    }""")
    row = await send_message(visited, "Removed from the stream")
    await expect(delivery(row, "websocket")).to_have_attribute("data-mark", "live")
    for _ in range(2):  # one check may have begun before the message was sent
        await visited.clock.fast_forward(2_100)
    await expect(delivery(row, "eventsource")).to_have_attribute("data-mark", "missed")
    await expect(fact(visited, "eventsource", "missed")).to_have_text("1")
    await expect(fact(visited, "websocket", "missed")).to_have_text("0")


async def test_a_page_shows_messages_from_before_it_was_opened(visited: Page, other: Page) -> None:
    await send_message(visited, "Sent early")
    await other.reload()
    row = other.locator(".message", has_text="Sent early")
    await expect(delivery(row, "websocket")).to_have_text("WS earlier")
    for connection in CONNECTIONS:
        await expect(fact(other, connection, "missed")).to_have_text("0")


# --- presence ---


async def test_other_visitors_appear_and_disappear(demo: Server, visited: Page, page: Page) -> None:
    await open_page(page, demo.url)
    name = await page.locator("#visitor-name").text_content()
    person = visited.locator("#presence-list li", has_text=str(name))
    await expect(person).to_have_count(1)
    await expect(visited.locator("#presence-list li", has_text="you ·")).to_have_count(1)
    await page.goto("about:blank")
    await expect(person).to_have_count(0)


async def test_markup_in_a_message_is_shown_as_text(visited: Page, other: Page) -> None:
    """It does not become part of another visitor's page."""
    await send_message(other, "<img src=x onerror=alert(1)> & <b>bold</b>")
    await expect(visited.locator(".message img, .message b")).to_have_count(0)
    await expect(visited.locator(".message", has_text="<img src=x")).to_have_count(1)


# --- polling and push ---


async def milliseconds(figure: Locator) -> float:
    """The displayed duration as a number."""
    number, unit = str(await figure.text_content()).removeprefix("< ").split()
    return float(number) * {"ms": 1, "s": 1000, "min": 60_000}[unit]


async def add(api: httpx.AsyncClient, title: str) -> dict[str, Any]:
    url = f"http://127.0.0.1:9/{title.replace(' ', '-')}"
    response = await api.post("/links", json={"title": title, "url": url})
    assert response.status_code == 201, response.text
    link: dict[str, Any] = response.json()
    return link


async def test_the_push_column_shows_a_change_before_the_polling_one(
    visited: Page, api: httpx.AsyncClient
) -> None:
    requests_before = await figure(visited, "pushed", "requests").inner_text()
    may_poll = asyncio.Event()

    async def hold(route: Route) -> None:
        await may_poll.wait()
        await route.continue_()

    await visited.route("**/links?since=*", hold)
    async with visited.expect_request("**/links?since=*"):
        await visited.select_option("#interval", "1000")
    await add(api, "First in which column")
    pushed = visited.locator("#column-pushed .links li", has_text="First in which column")
    polled = visited.locator("#column-polled .links li", has_text="First in which column")
    await expect(pushed).to_have_count(1)
    assert await polled.count() == 0
    await expect(visited.locator("#polled-lag")).to_have_text("1 behind")
    may_poll.set()
    await expect(polled).to_have_count(1)
    await expect(visited.locator("#polled-lag")).to_be_empty()
    late = await milliseconds(figure(visited, "polled", "last"))
    assert await milliseconds(figure(visited, "pushed", "last")) < late
    assert await figure(visited, "pushed", "requests").inner_text() == requests_before


async def test_links_are_added_edited_and_deleted_on_the_page(visited: Page) -> None:
    await visited.fill("#link-form [name=title]", "From the page")
    await visited.fill("#link-form [name=url]", "http://127.0.0.1:9/from-the-page")
    await visited.click("#link-form button")
    row = visited.locator("#column-pushed .links li", has_text="From the page")
    await expect(row).to_have_count(1)
    await row.get_by_role("button", name="Edit").click()
    editor = visited.locator("#column-pushed .editor")
    await editor.get_by_label("Title").fill("Under another name")
    await editor.get_by_role("button", name="Save").click()
    renamed = visited.locator("#column-pushed .links li", has_text="Under another name")
    await expect(renamed).to_have_count(1)
    await renamed.get_by_role("button", name="Delete").click()
    await expect(renamed).to_have_count(0)
    await expect(visited.locator("#column-polled .links li", has_text="Under another name")).to_have_count(0)


async def test_an_edit_of_a_link_that_another_visitor_has_changed_is_refused(
    visitor: tuple[Page, list[str]], api: httpx.AsyncClient
) -> None:
    """The browser logs the 412, which is not an error of the page."""
    page, _ = visitor
    link = await add(api, "Shared by two visitors")
    row = page.locator(f"#column-pushed .links li[data-id='{link['id']}']")
    await row.get_by_role("button", name="Edit").click()
    await api.patch(f"/links/{link['id']}", json={"title": "Changed by another visitor"})
    await row.get_by_role("button", name="Save").click()
    await expect(row.locator(".problem")).to_contain_text("has changed since")
    await row.get_by_role("button", name="Cancel").click()
    await expect(row).to_contain_text("Changed by another visitor")


async def test_both_columns_show_the_progress_of_a_check(visited: Page) -> None:
    rows = [visited.locator(f"#column-{name} .links li[data-id='1']") for name in ("pushed", "polled")]
    await rows[0].get_by_role("button", name="Check").click()
    await expect(rows[0].locator("progress")).to_be_visible()
    for row in rows:
        await expect(row.locator(".verdict")).to_contain_text("answered 5 of 5 times")
        await expect(row.locator("progress")).to_be_hidden()
        await poll_links(visited)


async def test_the_push_column_recovers_changes_made_while_the_websocket_is_cut(
    visited: Page, api: httpx.AsyncClient
) -> None:
    """From the history, without another request."""
    requests_before = await figure(visited, "pushed", "requests").inner_text()
    await toggle(visited, "websocket", "cut")
    await add(api, "While cut")
    await poll_links(visited)
    await expect(visited.locator("#column-polled .links li", has_text="While cut")).to_have_count(1)
    pushed = visited.locator("#column-pushed .links li", has_text="While cut")
    assert await pushed.count() == 0
    await toggle(visited, "websocket", "connected")
    await expect(pushed).to_have_count(1)
    assert await figure(visited, "pushed", "requests").inner_text() == requests_before


# --- accessibility and privacy ---


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
async def test_the_page_does_not_scroll_sideways_at_any_width(visited: Page, width: int) -> None:
    await visited.set_viewport_size({"width": width, "height": 780})
    await toggle(visited, "eventsource", "cut")
    await send_message(visited, f"Averylongwordwithoutanyspace{width}" * 8)
    row = visited.locator("#column-pushed .links li[data-id='2']")
    await row.get_by_role("button", name="Edit").click()
    await visited.locator("#column-polled .links li[data-id='3']").get_by_role("button", name="Check").click()
    assert await visited.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    await row.get_by_role("button", name="Cancel").click()


async def test_the_keyboard_reaches_the_buttons_of_the_connections(demo: Server, page: Page) -> None:
    """Skip to the connections, cut the first with Enter, and stay on the button that resumes it."""
    visited = await open_page(page, demo.url)
    await visited.keyboard.press("Tab")
    await expect(visited.locator(".skip")).to_be_focused()
    await visited.keyboard.press("Enter")
    await visited.keyboard.press("Tab")
    await expect(visited.get_by_role("button", name="Cut the WebSocket")).to_be_focused()
    await visited.keyboard.press("Enter")
    await expect(visited.get_by_role("button", name="Resume the WebSocket")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_has_enough_contrast_in_light_and_dark(visited: Page, scheme: Any) -> None:
    """Contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3) for every colour that text has."""
    await visited.emulate_media(color_scheme=scheme)
    await toggle(visited, "eventsource", "cut")
    ratios = await contrasts(visited)
    assert len(ratios) > 20
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


async def test_the_page_is_not_animated_if_the_visitor_prefers_reduced_motion(visited: Page) -> None:
    """Otherwise a new message is animated."""
    await send_message(visited, "Without motion")
    assert await visited.evaluate("document.getAnimations().length") == 0
    await visited.emulate_media(reduced_motion="no-preference")
    await visited.evaluate("""() => {
        window.animations = [];
        document.addEventListener("animationstart", (event) => animations.push(event.animationName));
    }""")
    await send_message(visited, "With motion")
    await holds(visited, "animations.includes('fresh')")
    await visited.emulate_media(reduced_motion="reduce")


async def test_the_page_sends_requests_to_its_own_server_only(
    demo: Server, visited: Page, requests: list[str]
) -> None:
    """When it is opened, and while it is used."""
    await send_message(visited, "To this server only")
    assert len(requests) > 10
    assert [url for url in requests if not url.startswith((demo.url, demo.url.replace("http", "ws")))] == []
