"""The map of the cluster on the page, and what a visitor sees when a node goes that holds a connection."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from tests.demo.conftest import new_page, running_demo
from tests.demo.nodes import Nodes
from tests.demo.visit import LANES, contrasts, fact, live, opened, say, way
from tests.support.server import Server
from tests.support.timing import SOON

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one browser for all of them

NAMES = ["node-1", "node-2", "node-3"]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running_demo(tmp_path_factory.mktemp("several") / "demo.sqlite", nodes=3)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def visitor(several: Server, browser: Browser) -> AsyncIterator[Page]:
    """The browser complains when connections break with their node; that is no mistake of the page."""
    page, _ = await new_page(browser)
    yield await opened(page, several.url)
    await page.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visited(visitor: Page) -> Page:
    """The page with both connections live and all nodes ready."""
    await live(visitor)
    for name in NAMES:
        await expect(node(visitor, name)).to_have_attribute("data-state", "ready", timeout=3 * SOON * 1000)
    return visitor


def node(page: Page, name: str) -> Locator:
    return page.locator(f".node[data-node={name}]")


def line(page: Page, lane: str) -> Locator:
    """The line from a connection to the node that holds it."""
    return page.locator(".wires [data-kind=visitor]").nth(LANES.index(lane))


async def holder(page: Page, lane: str) -> str:
    return await fact(page, lane, "node").inner_text()


async def test_the_map_shows_every_node(visited: Page) -> None:
    await expect(visited.locator(".node h3")).to_have_text(NAMES)
    for name in NAMES:
        await expect(node(visited, name).locator("dd").nth(2)).to_have_text(re.compile(r"^\d+$"))


@pytest.mark.parametrize("lane", LANES)
async def test_a_line_leads_to_the_node_that_holds_the_connection(visited: Page, lane: str) -> None:
    held_by = await holder(visited, lane)
    assert held_by in NAMES
    await expect(line(visited, lane)).to_have_attribute("data-to", held_by)
    await expect(node(visited, held_by).locator("dd").first).not_to_have_text("0")
    await expect(visited.locator(".end").nth(LANES.index(lane))).to_contain_text(f"held by {held_by}")


@pytest.mark.parametrize("deed", ["Kill", "Drain"])
@pytest.mark.parametrize("lane", LANES)
async def test_a_node_that_goes_costs_its_connections_nothing(
    several: Server, visited: Page, lane: str, deed: str
) -> None:
    """Ten messages are said meanwhile, by somebody else, and every one is heard once on both connections."""
    gone = await holder(visited, lane)
    async with Nodes.of(several) as nodes:
        (alive, *_) = [address for name, address in (await nodes.addresses()).items() if name != gone]
        await visited.get_by_role("button", name=f"{deed} {gone}").click()
        await nodes.until(lambda node: node["condition"] == "ended", gone)
        for number in range(10):
            said = {"text": f"{deed} {lane}: {number} of ten", "sent": 0}
            answer = await nodes.http.post(f"http://{alive}/messages", json=said)
            assert answer.status_code == 201
    await expect(node(visited, gone)).to_have_attribute("data-state", "ended")
    await expect(fact(visited, lane, "node")).not_to_have_text(gone)
    await live(visited)
    await expect(line(visited, lane)).to_have_attribute("data-to", await holder(visited, lane))
    await expect(visited.locator("#story")).to_contain_text(re.compile(r"came back to node-\d in"))
    row = await say(visited, f"After all: {deed} {lane}")
    for each in LANES:
        await expect(way(row, each)).to_have_attribute("data-mark", "live")
        for number in range(10):
            heard = visited.locator(".message", has_text=f"{deed} {lane}: {number} of ten")
            await expect(way(heard, each)).to_have_attribute("data-mark", re.compile("live|recovered"))
        await expect(fact(visited, each, "missed")).to_have_text("0")
        await expect(fact(visited, each, "duplicated")).to_have_text("0")


async def test_a_cut_connection_is_held_by_no_node(visited: Page) -> None:
    await visited.get_by_role("button", name="Cut the EventSource").click()
    await expect(line(visited, "eventsource")).not_to_have_attribute("d", re.compile("."))
    await expect(visited.locator(".end").nth(1)).to_contain_text("held by no node")
    await visited.get_by_role("button", name="Resume the EventSource").click()
    await expect(line(visited, "eventsource")).to_have_attribute("d", re.compile("^M"))


async def test_the_keyboard_reaches_what_troubles_a_node(visited: Page) -> None:
    """And stays there while the map is drawn anew."""
    drain = visited.get_by_role("button", name="Drain node-1")
    await drain.focus()
    await visited.keyboard.press("Enter")
    await expect(node(visited, "node-1")).to_have_attribute("data-state", "ended")
    await expect(drain).to_be_focused()
    await visited.keyboard.press("Tab")
    await expect(visited.get_by_role("button", name="Kill node-1")).to_be_focused()
    await visited.keyboard.press("Enter")
    await expect(visited.locator("#nodes-problem")).to_have_text("Not done: node-1 is ended.")


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
