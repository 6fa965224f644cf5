"""The map of the nodes on the page, and what it shows while nodes end, restart and are deaf."""

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
from tests.demo.nodes_client import NodesClient
from tests.demo.page_actions import (
    CONNECTIONS,
    contrasts,
    delivery,
    fact,
    holds,
    live,
    online,
    open_page,
    send_message,
)
from tests.support.server import Server
from tests.support.timing import QUIET, SOON

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one browser for all of them

NAMES = ["node-1", "node-2", "node-3"]
RESTARTED = 3 * SOON * 1000
"""Milliseconds; the longest wait for a node to restart, or to receive again."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def visitor(three_nodes: Server, browser: Browser) -> AsyncIterator[Page]:
    """A page whose console is not checked: the browser reports connections that break with their node."""
    page, _ = await new_page(browser)
    yield await open_page(page, three_nodes.url)
    await page.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visited(three_nodes: Server, visitor: Page) -> Page:
    """The page with both connections live on ready nodes. A third node may still be restarting."""
    await live(visitor)
    for connection in CONNECTIONS:
        await ready(visitor, await holding_node(visitor, connection))
    await expect(visitor.locator(".node[data-state=ready]").nth(1)).to_be_attached(timeout=RESTARTED)
    return visitor


async def ready(page: Page, *names: str) -> None:
    for name in names:
        await expect(node(page, name)).to_have_attribute("data-state", "ready", timeout=RESTARTED)


async def poll_nodes(page: Page) -> None:
    """Let the page poll the nodes now, as when its tab comes to the front."""
    await show(page, is_hidden=False)


def node(page: Page, name: str) -> Locator:
    return page.locator(f".node[data-node={name}]")


def line(page: Page, connection: str) -> Locator:
    """The line from a connection to the node that holds it."""
    return page.locator(".lines [data-kind=visitor]").nth(CONNECTIONS.index(connection))


async def holding_node(page: Page, connection: str) -> str:
    return await fact(page, connection, "node").inner_text()


def figure(page: Page, name: str, what: str) -> Locator:
    return node(page, name).locator(f"[data-fact={what}]")


def incident(page: Page, name: str) -> Locator:
    """The latest incident of a node."""
    return page.locator(".incident", has_text=name).first


async def test_the_map_shows_every_node(visited: Page) -> None:
    """With its state, its process and its lag."""
    await expect(visited.locator(".node h3")).to_have_text(NAMES)
    await ready(visited, *NAMES)
    for name in NAMES:
        await expect(figure(visited, name, "lag")).to_have_text(re.compile(r"^(< 1|\d+(\.\d)?) ms$"))
        await expect(node(visited, name)).to_contain_text(re.compile(r"ready, up \d+ (s|min)"))
        await expect(node(visited, name)).to_contain_text(re.compile(r"Process \d+, \d+ MB"))


@pytest.mark.parametrize("connection", CONNECTIONS)
async def test_a_line_leads_to_the_node_that_holds_the_connection(visited: Page, connection: str) -> None:
    held_by = await holding_node(visited, connection)
    assert held_by in NAMES
    await expect(line(visited, connection)).to_have_attribute("data-to", held_by)
    await poll_nodes(visited)
    await expect(figure(visited, held_by, "connections")).not_to_have_text("0")
    await expect(visited.locator(".endpoint").nth(CONNECTIONS.index(connection))).to_contain_text(
        f"held by {held_by}"
    )


async def send_through_another_node(three_nodes: Server, avoided: str, text: str, count: int = 10) -> None:
    """Another visitor sends messages through a node that is not this one."""
    async with NodesClient.of(three_nodes) as nodes:
        (address, *_) = [
            node["address"]
            for name, node in (await nodes.all()).items()
            if name != avoided and node["report"]
        ]
        for number in range(count):
            await nodes.send_message(address, f"{text}: {number} of ten", time.time() * 1000)


async def all_received(page: Page, text: str, count: int = 10) -> None:
    """Each connection has received every message, and counts none as missed or duplicated."""
    for connection in CONNECTIONS:
        for number in range(count):
            row = page.locator(".message", has_text=f"{text}: {number} of ten")
            await expect(delivery(row, connection)).to_have_attribute(
                "data-mark", re.compile("live|recovered")
            )
        await expect(fact(page, connection, "missed")).to_have_text("0")
        await expect(fact(page, connection, "duplicated")).to_have_text("0")


async def test_a_deaf_node_keeps_its_connections_and_they_miss_no_message(
    three_nodes: Server, visited: Page
) -> None:
    """Messages sent meanwhile are not counted as missed, however long the backfill takes."""
    deaf = await holding_node(visited, "websocket")
    await visited.get_by_role("button", name=f"Deafen {deaf}").click()
    await expect(node(visited, deaf)).to_have_attribute("data-state", "deafened")
    await send_through_another_node(three_nodes, deaf, "Deaf")
    await expect(node(visited, deaf)).to_have_attribute("data-state", "deaf")
    async with NodesClient.of(three_nodes) as nodes:
        unready_reason = (await nodes.all())[deaf]["report"]["unready_reason"]
    assert unready_reason
    await expect(node(visited, deaf)).to_contain_text(unready_reason)
    await expect(node(visited, deaf)).to_contain_text(re.compile(r"receives again in [0-3]\."))
    assert await fact(visited, "websocket", "missed").inner_text() == "0"
    await visited.get_by_role("button", name=f"Restore {deaf}").click()
    await ready(visited, deaf)
    await all_received(visited, "Deaf")
    assert await holding_node(visited, "websocket") == deaf
    for text in (
        r"noticed after .*receives again after",
        r"WebSocket stayed connected: 1\d messages backfilled .*, 0 missed",
    ):
        await expect(incident(visited, deaf)).to_contain_text(re.compile(text))


async def record_texts_of_nodes(page: Page) -> None:
    """Keep every text that the map shows of a node, in `nodeTexts`."""
    await page.evaluate("""() => {
        window.nodeTexts = [];
        const record = () =>
            document.querySelectorAll(".node").forEach(node => nodeTexts.push(node.innerText));
        new MutationObserver(record).observe(
            document.querySelector("#map"), {childList: true, subtree: true, characterData: true}
        );
    }""")


@pytest.mark.parametrize(
    ("action", "connection", "text"),
    [
        ("Drain", "eventsource", r"drains.*EventSource moved to node-\d in .*recovered, 0 missed"),
        ("Kill", "websocket", r"was killed.*WebSocket moved to node-\d in .*recovered, 0 missed"),
    ],
)
async def test_connections_of_a_node_that_ends_miss_no_message(
    three_nodes: Server, visited: Page, connection: str, action: str, text: str
) -> None:
    """Another visitor sends ten messages meanwhile, and both connections receive each of them once.

    The map counts down the lease of a node that was killed.
    """
    ended = await holding_node(visited, connection)
    await record_texts_of_nodes(visited)
    await visited.get_by_role("button", name=f"{action} {ended}").click()
    await expect(node(visited, ended)).to_have_attribute("data-state", "ended")
    await send_through_another_node(three_nodes, ended, f"{action} {connection}")
    await expect(fact(visited, connection, "node")).not_to_have_text(ended)
    await online(visited)  # if the node held both connections, the other one skips the rest of its delay
    await live(visited)
    await expect(line(visited, connection)).to_have_attribute(
        "data-to", await holding_node(visited, connection)
    )
    await expect(visited.locator("#status")).to_contain_text(re.compile(r"reconnected to node-\d in"))
    row = await send_message(visited, f"Afterwards: {action} {connection}")
    for each in CONNECTIONS:
        await expect(delivery(row, each)).to_have_attribute("data-mark", "live")
    await all_received(visited, f"{action} {connection}")
    await expect(incident(visited, ended)).to_contain_text(re.compile(text))
    if action == "Kill":
        await has_counted_down_the_lease(visited)


async def has_counted_down_the_lease(visited: Page) -> None:
    """Wait until the map has shown it. The incident has the duration of the lease."""
    for text in (r"lease expires within [0-4]\.\d\ss", r"Its lease has ended\."):
        await holds(visited, f"nodeTexts.some(text => /{text}/.test(text))")
    killed = visited.locator(".incident", has_text="was killed").first
    await expect(killed).to_contain_text(re.compile(r"lease expired after [1-9]\.\d\ss"))


async def test_a_cut_connection_is_held_by_no_node(visited: Page) -> None:
    await visited.get_by_role("button", name="Cut the EventSource").click()
    await expect(line(visited, "eventsource")).not_to_have_attribute("d", re.compile("."))
    await expect(visited.locator(".endpoint").nth(1)).to_contain_text("held by no node")
    await visited.get_by_role("button", name="Resume the EventSource").click()
    await expect(line(visited, "eventsource")).to_have_attribute("d", re.compile("^M"))


async def test_a_hidden_page_does_not_poll_the_nodes(visited: Page) -> None:
    """Once it is visible again, it polls at once."""
    requests: list[str] = []
    visited.on(
        "request", lambda request: requests.append(request.url) if "/demo/nodes" in request.url else None
    )
    await show(visited, is_hidden=True)
    await visited.wait_for_timeout(QUIET * 1000)  # for a request that was in flight
    requests.clear()
    await visited.wait_for_timeout(1_200)  # longer than the polling interval of a visible page
    assert requests == []
    async with visited.expect_request("**/demo/nodes"):
        await show(visited, is_hidden=False)


async def show(page: Page, *, is_hidden: bool) -> None:
    """Hide or show the page, as a browser does when tabs are switched."""
    await page.evaluate(
        """isHidden => {
            Object.defineProperty(document, "hidden", {configurable: true, value: isHidden});
            dispatchEvent(new Event("visibilitychange"));
        }""",
        is_hidden,
    )


@pytest.mark.parametrize("width", [320, 768, 1280])
async def test_the_map_needs_no_scrolling_sideways(visited: Page, width: int) -> None:
    await visited.set_viewport_size({"width": width, "height": 780})
    assert await visited.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_map_has_enough_contrast_in_light_and_dark(visited: Page, scheme: Any) -> None:
    await visited.emulate_media(color_scheme=scheme)
    ratios = await contrasts(visited)
    assert any("node-2" in name for name in ratios)
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


async def test_the_map_is_not_animated_if_the_visitor_prefers_reduced_motion(visited: Page) -> None:
    assert await visited.evaluate("document.getAnimations().length") == 0


async def test_the_way_of_a_publication_is_described_correctly(three_nodes: Server, visited: Page) -> None:
    """The note names the node that accepted it, and the nodes that have subscribers.

    The page polls the latter once a second, so it is late for connections that have just moved.
    """
    await ready(visited, *NAMES)
    note = visited.locator("#animation-note")
    shown, delivering, number = [""], list[str](), itertools.count(1)
    async with asyncio.timeout(SOON), NodesClient.of(three_nodes) as nodes:
        while shown != delivering:
            await poll_nodes(visited)
            row = await send_message(visited, f"On its way, the {next(number)}th")
            await expect(delivery(row, "websocket")).to_have_attribute("data-mark", "live")
            offset = await row.locator(".offset").inner_text()
            await expect(note).to_contain_text(f"chat:lobby {offset}: accepted by node-")
            shown = re.findall(r"node-\d", (await note.inner_text()).partition("through Redis to")[2])
            reports = {name: node["report"]["channels"] for name, node in (await nodes.all()).items()}
            delivering = [name for name, channels in reports.items() if channels.get("chat:lobby")]


def points(path: str | None) -> tuple[int, ...]:
    """The numbers in a path, to a pixel."""
    return tuple(round(float(number)) for number in re.findall(r"[\d.]+", path or ""))


async def test_dots_move_along_the_lines_and_are_removed(three_nodes: Server, browser: Browser) -> None:
    """From the node that accepted it, to each node that delivers it, to each connection of the page."""
    page, console_errors = await new_page(browser)
    await page.emulate_media(reduced_motion="no-preference")
    await open_page(page, three_nodes.url)
    await ready(page, *NAMES)
    await page.evaluate("""() => {
        window.paths = [];
        new MutationObserver(records => records.forEach(({addedNodes}) => addedNodes.forEach(dot => {
            if (dot.className?.startsWith?.("dot")) paths.push(dot.style.offsetPath);
        }))).observe(document.querySelector("#map"), {childList: true});
    }""")
    row = await send_message(page, "Seen on its way")
    for connection in CONNECTIONS:
        await expect(delivery(row, connection)).to_have_attribute("data-mark", "live")
    offset = await row.locator(".offset").inner_text()
    await expect(page.locator("#animation-note")).to_contain_text(f"chat:lobby {offset}: accepted by node-")
    delivering = re.findall(r"node-\d", (await page.inner_text("#animation-note")).partition("through")[2])
    await holds(page, f"paths.length === {1 + len(delivering) + 2}")
    lines = await page.evaluate(
        "[...document.querySelectorAll('.lines path')].map(path => path.getAttribute('d'))"
    )
    assert {points(path) for path in await page.evaluate("paths")} <= {points(line) for line in lines}
    await expect(page.locator(".dot")).to_have_count(0)
    await page.close()
    assert console_errors == []


async def test_the_keyboard_reaches_the_buttons_of_a_node(visited: Page) -> None:
    """The focus stays while the map is drawn again."""
    await ready(visited, "node-1")
    drain = visited.get_by_role("button", name="Drain node-1")
    await drain.focus()
    await visited.keyboard.press("Enter")
    await expect(node(visited, "node-1")).to_have_attribute("data-state", "ended")
    await expect(drain).to_be_focused()
    await visited.keyboard.press("Tab")
    await expect(visited.get_by_role("button", name="Kill node-1")).to_be_focused()
    problem = {"error": {"message": "node-1 is ended"}}  # this state is too short to test
    await visited.route("**/demo/nodes/node-1/kill", lambda route: route.fulfill(status=409, json=problem))
    await visited.keyboard.press("Enter")
    await expect(visited.locator("#nodes-problem")).to_have_text("Not done: node-1 is ended.")
    await visited.keyboard.press("Tab")
    await expect(visited.get_by_role("button", name="Deafen node-1")).to_be_focused()
