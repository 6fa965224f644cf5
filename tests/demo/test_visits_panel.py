"""Who came and went, on the page: what the application was told, beside what the page sees."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from tests.demo.conftest import new_page
from tests.demo.page_actions import fact, live, open_page
from tests.support.api import NO_TLS
from tests.support.server import Server
from tests.support.timing import SOON

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one browser for all of them

REAPED = 3 * SOON * 1000
"""Milliseconds; the longest wait until a killed node is reaped and its name runs again."""


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(three_nodes: Server, browser: Browser) -> AsyncIterator[Page]:
    """A page whose console is not checked: the browser reports connections that break with their node."""
    page, _ = await new_page(browser)
    yield await open_page(page, three_nodes.url)
    await page.close()


async def agree(page: Page) -> None:
    """Wait until the application and the page know the same connections."""
    agreement = page.locator("#visits-agreement")
    await expect(agreement).to_have_attribute("data-agree", "true", timeout=REAPED)
    await expect(agreement).to_contain_text("they agree")


def rows(page: Page, name: str) -> Locator:
    """The connections of a visitor."""
    return page.locator("#visits tr", has=page.locator(".name", has_text=name))


def told(row: Locator) -> Locator:
    return row.locator("[data-by=application]")


def seen(row: Locator) -> Locator:
    return row.locator("[data-by=page]")


async def test_both_say_who_came_and_who_went(three_nodes: Server, visitor: Page, browser: Browser) -> None:
    """A second visitor has two connections. The page saw them come, and both are told that they went."""
    await agree(visitor)
    other, _ = await new_page(browser)
    await open_page(other, three_nodes.url)
    name = await other.inner_text("#visitor-name")
    await expect(rows(visitor, name)).to_have_count(2)
    await agree(visitor)
    for row in await rows(visitor, name).all():
        await expect(told(row)).to_contain_text("came")
        await expect(seen(row)).to_contain_text("came")
        await expect(told(row)).not_to_contain_text("went")
    await other.close()
    for row in await rows(visitor, name).all():
        await expect(told(row)).to_contain_text("went")
        await expect(seen(row)).to_contain_text("went")
    await agree(visitor)


async def test_a_new_page_shows_what_was_told_before_it(
    three_nodes: Server, visitor: Page, browser: Browser
) -> None:
    name = await visitor.inner_text("#visitor-name")
    later, _ = await new_page(browser)
    await open_page(later, three_nodes.url)
    await agree(later)
    assert await rows(later, name).count() == 2
    for row in await rows(later, name).all():
        await expect(told(row)).to_contain_text("came")
        await expect(seen(row)).to_contain_text("came earlier")
    await later.close()
    await agree(visitor)


async def test_a_kill_is_told_by_another_node_and_both_agree_again(
    three_nodes: Server, visitor: Page, browser: Browser
) -> None:
    """The killed node could not say that its connections ended."""
    await agree(visitor)
    killed = await fact(visitor, "websocket", "node").inner_text()
    async with httpx.AsyncClient(
        base_url=three_nodes.url, timeout=SOON, trust_env=False, verify=NO_TLS
    ) as http:
        ended = {
            visit["client"]
            for visit in (await http.get("/demo/visits")).json()["visits"]
            if visit["node"] == killed and visit["went_at"] is None
        }
        assert ended
        await visitor.click(f".node[data-node={killed}] .button:has-text('Kill')")
        for client in ended:
            row = visitor.locator(f"#visits tr[data-client='{client}']")
            await expect(told(row)).to_contain_text("went", timeout=REAPED)
            await expect(seen(row)).to_contain_text("went", timeout=REAPED)
        await live(visitor)
        await agree(visitor)
        present = (await http.get("/demo/visits")).json()["present"]
    assert not ended.intersection(present)
    assert present


async def test_the_page_says_that_it_sees_nothing_while_it_is_cut(visitor: Page) -> None:
    await agree(visitor)
    await visitor.click("#connection-websocket .button")
    await expect(visitor.locator("#visits-agreement")).to_have_attribute("data-agree", "unknown")
    await visitor.click("#connection-websocket .button")
    await agree(visitor)
