"""The map of the cluster on the page, and what a visitor sees when a node goes that holds a connection."""

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from tests.demo.conftest import new_page
from tests.demo.nodes import Nodes
from tests.demo.visit import LANES, contrasts, fact, holds, live, opened, say, way
from tests.support.server import Server
from tests.support.timing import QUIET, SOON

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one browser for all of them

NAMES = ["node-1", "node-2", "node-3"]
AGAIN = 3 * SOON * 1000
"""Milliseconds for a node to be back, or to hear again."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def visitor(several: Server, browser: Browser) -> AsyncIterator[Page]:
    """The browser complains when connections break with their node; that is no mistake of the page."""
    page, _ = await new_page(browser)
    yield await opened(page, several.url)
    await page.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visited(several: Server, visitor: Page) -> Page:
    """The page with both connections live, at nodes that are ready, and a third that may still be away."""
    await live(visitor)
    for lane in LANES:
        await ready(visitor, await holder(visitor, lane))
    await expect(visitor.locator(".node[data-state=ready]").nth(1)).to_be_attached(timeout=AGAIN)
    return visitor


async def ready(page: Page, *names: str) -> None:
    for name in names:
        await expect(node(page, name)).to_have_attribute("data-state", "ready", timeout=AGAIN)


def node(page: Page, name: str) -> Locator:
    return page.locator(f".node[data-node={name}]")


def line(page: Page, lane: str) -> Locator:
    """The line from a connection to the node that holds it."""
    return page.locator(".wires [data-kind=visitor]").nth(LANES.index(lane))


async def holder(page: Page, lane: str) -> str:
    return await fact(page, lane, "node").inner_text()


def figure(page: Page, name: str, what: str) -> Locator:
    return node(page, name).locator(f"[data-fact={what}]")


def incident(page: Page, name: str) -> Locator:
    """What is told last of a node."""
    return page.locator(".incident", has_text=name).first


async def test_the_map_shows_every_node(visited: Page) -> None:
    """What it says of itself, its process, and how long announcements are under way to it."""
    await expect(visited.locator(".node h3")).to_have_text(NAMES)
    await ready(visited, *NAMES)
    for name in NAMES:
        await expect(figure(visited, name, "lag")).to_have_text(re.compile(r"^(< 1|\d+(\.\d)?) ms$"))
        await expect(node(visited, name)).to_contain_text(re.compile(r"ready, up \d+ (s|min)"))
        await expect(node(visited, name)).to_contain_text(re.compile(r"Process \d+, \d+ MB"))


@pytest.mark.parametrize("lane", LANES)
async def test_a_line_leads_to_the_node_that_holds_the_connection(visited: Page, lane: str) -> None:
    held_by = await holder(visited, lane)
    assert held_by in NAMES
    await expect(line(visited, lane)).to_have_attribute("data-to", held_by)
    await expect(figure(visited, held_by, "connections")).not_to_have_text("0")
    await expect(visited.locator(".end").nth(LANES.index(lane))).to_contain_text(f"held by {held_by}")


async def say_elsewhere(several: Server, avoided: str, text: str, count: int = 10) -> None:
    """Somebody else says something, through a node that is not this one."""
    async with Nodes.of(several) as nodes:
        (alive, *_) = [
            node["address"]
            for name, node in (await nodes.all()).items()
            if name != avoided and node["report"]
        ]
        for number in range(count):
            said = {"text": f"{text}: {number} of ten", "sent": time.time() * 1000}
            answer = await nodes.http.post(f"http://{alive}/messages", json=said)
            assert answer.status_code == 201


async def heard_all(page: Page, text: str, count: int = 10) -> None:
    """Once on each connection, and nothing is counted as missed or duplicated."""
    for each in LANES:
        for number in range(count):
            row = page.locator(".message", has_text=f"{text}: {number} of ten")
            await expect(way(row, each)).to_have_attribute("data-mark", re.compile("live|recovered"))
        await expect(fact(page, each, "missed")).to_have_text("0")
        await expect(fact(page, each, "duplicated")).to_have_text("0")


@pytest.mark.parametrize(
    ("deed", "lane", "told"),
    [
        ("Kill", "websocket", r"was killed.*WebSocket moved to node-\d in .*recovered, 0 missed"),
        ("Drain", "eventsource", r"told to leave.*EventSource moved to node-\d in .*recovered, 0 missed"),
    ],
)
async def test_a_node_that_goes_costs_its_connections_nothing(
    several: Server, visited: Page, lane: str, deed: str, told: str
) -> None:
    """Ten messages are said meanwhile, by somebody else, and every one is heard once on both connections."""
    gone = await holder(visited, lane)
    await visited.get_by_role("button", name=f"{deed} {gone}").click()
    await expect(node(visited, gone)).to_have_attribute("data-state", "ended")
    await say_elsewhere(several, gone, f"{deed} {lane}")
    await expect(fact(visited, lane, "node")).not_to_have_text(gone)
    await live(visited)
    await expect(line(visited, lane)).to_have_attribute("data-to", await holder(visited, lane))
    await expect(visited.locator("#story")).to_contain_text(re.compile(r"came back to node-\d in"))
    row = await say(visited, f"After all: {deed} {lane}")
    for each in LANES:
        await expect(way(row, each)).to_have_attribute("data-mark", "live")
    await heard_all(visited, f"{deed} {lane}")
    await expect(incident(visited, gone)).to_contain_text(re.compile(told))


async def test_a_lease_is_seen_to_lapse(visited: Page) -> None:
    """Counted down on the map, and told with its time; then another process has the name."""
    await ready(visited, "node-2")
    await visited.evaluate("""() => {
        window.stories = [];
        const story = () => stories.push(document.querySelector('[data-node="node-2"]')?.innerText ?? "");
        new MutationObserver(story).observe(
            document.querySelector("#map"), {childList: true, subtree: true, characterData: true}
        );
    }""")
    await visited.get_by_role("button", name="Kill node-2").click()
    for told in (r"lease lapses within [0-4]\.\d\ss", r"No lease is left of it\."):
        await holds(visited, f"stories.some(story => /{told}/.test(story))")
    await expect(incident(visited, "node-2")).to_contain_text(re.compile(r"lease lapsed after [1-9]\.\d\ss"))


async def test_a_deaf_node_keeps_its_connections_and_they_miss_nothing(
    several: Server, visited: Page
) -> None:
    """What is said meanwhile is not counted as missed, however long it waits for the log to bring it."""
    deaf = await holder(visited, "websocket")
    await visited.get_by_role("button", name=f"Deafen {deaf}").click()
    await expect(node(visited, deaf)).to_have_attribute("data-state", "silent")
    await say_elsewhere(several, deaf, "Deaf")
    await expect(node(visited, deaf)).to_have_attribute("data-state", "deaf")
    await expect(node(visited, deaf)).to_contain_text("its pub/sub connection is open but silent")
    await expect(node(visited, deaf)).to_contain_text(re.compile(r"hears again in [0-3]\."))
    assert await fact(visited, "websocket", "missed").inner_text() == "0"
    await visited.get_by_role("button", name=f"Heal {deaf}").click()
    await ready(visited, deaf)
    await heard_all(visited, "Deaf")
    assert await holder(visited, "websocket") == deaf
    for told in (
        r"noticed after .*link healed after",
        r"WebSocket stayed connected: 1\d messages brought .*, 0 missed",
    ):
        await expect(incident(visited, deaf)).to_contain_text(re.compile(told))


async def test_a_cut_connection_is_held_by_no_node(visited: Page) -> None:
    await visited.get_by_role("button", name="Cut the EventSource").click()
    await expect(line(visited, "eventsource")).not_to_have_attribute("d", re.compile("."))
    await expect(visited.locator(".end").nth(1)).to_contain_text("held by no node")
    await visited.get_by_role("button", name="Resume the EventSource").click()
    await expect(line(visited, "eventsource")).to_have_attribute("d", re.compile("^M"))


async def test_what_travels_is_true(several: Server, visited: Page) -> None:
    """Told in words too: the node that took it, and those whose subscribers it is for.

    Which these are the page asks once a second, so that it may be late for connections that have just moved.
    """
    await ready(visited, *NAMES)
    note = visited.locator("#travel-note")
    said, delivering, number = [""], list[str](), itertools.count(1)
    async with asyncio.timeout(SOON), Nodes.of(several) as nodes:
        while said != delivering:
            row = await say(visited, f"On its way, the {next(number)}th")
            await expect(way(row, "websocket")).to_have_attribute("data-mark", "live")
            offset = await row.locator(".offset").inner_text()
            await expect(note).to_contain_text(f"chat:lobby {offset}: taken by node-")
            said = re.findall(r"node-\d", (await note.inner_text()).partition("through Redis to")[2])
            reports = {name: node["report"]["channels"] for name, node in (await nodes.all()).items()}
            delivering = [name for name, channels in reports.items() if channels.get("chat:lobby")]


def points(way: str | None) -> tuple[int, ...]:
    """The numbers in a path, to a pixel."""
    return tuple(round(float(number)) for number in re.findall(r"[\d.]+", way or ""))


async def test_dots_travel_for_those_who_like_it_and_leave_nothing(several: Server, browser: Browser) -> None:
    """From the taker, to each node that delivers, to each connection, all on lines of the map."""
    page, complaints = await new_page(browser)
    await page.emulate_media(reduced_motion="no-preference")
    await opened(page, several.url)
    await ready(page, *NAMES)
    await page.evaluate("""() => {
        window.ways = [];
        new MutationObserver(records => records.forEach(({addedNodes}) => addedNodes.forEach(dot => {
            if (dot.className?.startsWith?.("dot")) ways.push(dot.style.offsetPath);
        }))).observe(document.querySelector("#map"), {childList: true});
    }""")
    row = await say(page, "Seen on its way")
    for lane in LANES:
        await expect(way(row, lane)).to_have_attribute("data-mark", "live")
    offset = await row.locator(".offset").inner_text()
    await expect(page.locator("#travel-note")).to_contain_text(f"chat:lobby {offset}: taken by node-")
    delivering = re.findall(r"node-\d", (await page.inner_text("#travel-note")).partition("through")[2])
    await holds(page, f"ways.length === {1 + len(delivering) + 2}")
    lines = await page.evaluate(
        "[...document.querySelectorAll('.wires path')].map(path => path.getAttribute('d'))"
    )
    assert {points(way) for way in await page.evaluate("ways")} <= {points(line) for line in lines}
    await expect(page.locator(".dot")).to_have_count(0)
    await page.close()
    assert complaints == []


async def test_a_page_that_nobody_looks_at_asks_nothing(visited: Page) -> None:
    """And asks at once when somebody does again."""
    asked: list[str] = []
    visited.on("request", lambda request: asked.append(request.url) if "/demo/nodes" in request.url else None)
    await show(visited, is_hidden=True)
    await visited.wait_for_timeout(QUIET * 1000)  # for a question that was under way
    asked.clear()
    await visited.wait_for_timeout(1_200)  # longer than a page that is looked at waits between questions
    assert asked == []
    async with visited.expect_request("**/demo/nodes"):
        await show(visited, is_hidden=False)


async def show(page: Page, *, is_hidden: bool) -> None:
    """What a browser tells a page whose tab is left, or comes to the front."""
    await page.evaluate(
        """isHidden => {
            Object.defineProperty(document, "hidden", {configurable: true, value: isHidden});
            dispatchEvent(new Event("visibilitychange"));
        }""",
        is_hidden,
    )


async def test_the_keyboard_reaches_what_troubles_a_node(visited: Page) -> None:
    """And stays there while the map is drawn anew."""
    await ready(visited, "node-1")
    drain = visited.get_by_role("button", name="Drain node-1")
    await drain.focus()
    await visited.keyboard.press("Enter")
    await expect(node(visited, "node-1")).to_have_attribute("data-state", "ended")
    await expect(drain).to_be_focused()
    await visited.keyboard.press("Tab")
    await expect(visited.get_by_role("button", name="Kill node-1")).to_be_focused()
    problem = {"error": {"message": "node-1 is ended"}}  # which it is for a moment only
    await visited.route("**/demo/nodes/node-1/kill", lambda route: route.fulfill(status=409, json=problem))
    await visited.keyboard.press("Enter")
    await expect(visited.locator("#nodes-problem")).to_have_text("Not done: node-1 is ended.")
    await visited.keyboard.press("Tab")
    await expect(visited.get_by_role("button", name="Deafen node-1")).to_be_focused()


@pytest.mark.parametrize("width", [320, 768, 1280])
async def test_the_map_needs_no_scrolling_sideways(visited: Page, width: int) -> None:
    await visited.set_viewport_size({"width": width, "height": 780})
    assert await visited.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_map_can_be_read_in_light_and_dark(visited: Page, scheme: Any) -> None:
    await visited.emulate_media(color_scheme=scheme)
    ratios = await contrasts(visited)
    assert any("node-2" in name for name in ratios)
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


async def test_the_map_moves_only_for_those_who_like_it(visited: Page) -> None:
    assert await visited.evaluate("document.getAnimations().length") == 0
