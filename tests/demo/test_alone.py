"""The page of `tocsin serve --ui`: a node without the application that the page was made for."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.demo.conftest import new_page
from tests.demo.visit import LANES, fact, live, opened, resume, say, send_ten, toggle, way
from tests.support.configs import PERMIT, SEEN, Table
from tests.support.server import Server, serving
from tests.support.timing import SOON

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one browser for all of them

LOBBY: Table = {**PERMIT, **SEEN, "force_push_join_leave": True}
LOG: Table = {"history_size": 100, "history_ttl": "300s", "force_recovery": True}
ANONYMOUS: Table = {"client": {"allow_anonymous": True}, "server": {"drain_seconds": 0}}

NO_APPLICATION = "404 (Not Found)"  # what a browser says of the one question that finds it out


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    """What the servers of this module are ended by."""
    with ExitStack() as servers:
        yield servers


def served(stack: ExitStack, folder: Path, config: Table, *flags: str) -> Server:
    return stack.enter_context(serving(config, folder, "--ui", *flags))


@pytest.fixture(scope="module")
def insecure(stack: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """As somebody starts it who tries it for the first time: no channel is configured."""
    return served(stack, tmp_path_factory.mktemp("insecure"), {"server": {"drain_seconds": 0}}, "--insecure")


@pytest.fixture(scope="module")
def configured(stack: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """The demo's channel exists, for anybody, and keeps a log."""
    config = {**ANONYMOUS, "namespaces": {"chat": {**LOBBY, **LOG}}}
    return served(stack, tmp_path_factory.mktemp("configured"), config)


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """Somebody's page, which complains about nothing but that there is no application."""
    page, complaints = await new_page(browser)
    yield page
    await page.close()
    assert [complaint for complaint in complaints if NO_APPLICATION not in complaint] == []
    assert len(complaints) <= 1


# --- without a log ---


async def test_a_channel_without_a_namespace_does_where_the_demos_is_unknown(
    insecure: Server, page: Page
) -> None:
    await opened(page, insecure.url)
    row = await say(page, "Nobody else is here")
    for lane in LANES:
        await expect(way(row, lane)).to_have_attribute("data-mark", "live")
        await expect(fact(page, lane, "heard")).to_have_text("1")
    await expect(page.locator(".no-log")).to_contain_text("Both follow lobby. This channel keeps no log")
    await expect(page.locator("#whoami")).to_contain_text("anonymous ")


async def test_where_nothing_is_counted_no_counter_is_shown(insecure: Server, page: Page) -> None:
    """Nor is anything promised that only a log can keep."""
    await opened(page, insecure.url)
    await expect(page.locator(".no-log")).to_be_visible()
    for lane in LANES:
        for name in ("position", "recovered", "missed", "duplicated"):
            await expect(fact(page, lane, name)).to_be_hidden()
    await expect(page.locator(".tape").first).to_be_hidden()
    await expect(page.get_by_text("Nothing is lost")).to_be_hidden()
    await toggle(page, "eventsource", "cut")
    await expect(page.locator("#story")).to_have_text("EventSource is cut. What is sent now is lost to it.")
    row = await say(page, "Lost to the stream")
    await expect(way(row, "websocket")).to_have_attribute("data-mark", "live")
    await expect(way(row, "eventsource")).to_have_attribute("data-mark", "unheard")
    await toggle(page, "eventsource", "connected")
    await expect(page.locator("#story")).to_contain_text("without what was said meanwhile")


async def test_the_section_about_links_is_left_out(insecure: Server, page: Page) -> None:
    """One question finds out that there is no application; nothing is asked of it afterwards."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.removeprefix(insecure.url)))
    await opened(page, insecure.url)
    await expect(page.locator(".knowing")).to_be_hidden()
    await expect(page.get_by_text("tocsin demo has the application")).to_be_visible()
    await say(page, "Still nobody asks")
    assert asked.count("/demo/token") == 1
    assert [path for path in asked if path.startswith(("/links", "/messages"))] == []


async def test_whatever_is_published_is_shown(insecure: Server, page: Page) -> None:
    """By other programs too, which know nothing of how this page writes its messages; each counts once."""
    everything: list[object] = ["just a text", 7, None, ["a", {"b": 1}], {"text": 5, "sent": "today"}]
    count = 2 * len(everything)
    await opened(page, insecure.url)
    async with httpx.AsyncClient(base_url=insecure.url, timeout=SOON, trust_env=False) as publisher:
        for data in everything * 2:
            response = await publisher.post("/api/publish", json={"channel": "lobby", "data": data})
            assert "error" not in response.json(), response.text
    for lane in LANES:
        await expect(fact(page, lane, "heard")).to_have_text(str(count))
    await expect(page.locator(".message")).to_have_count(count)
    await expect(page.locator(".way[data-mark=live]")).to_have_count(2 * count)
    await expect(page.locator(".said", has_text="just a text")).to_have_count(2)
    await expect(page.locator(".said", has_text='{"text":5,"sent":"today"}')).to_have_count(2)


# --- with a log ---


async def test_the_demos_channel_is_followed_where_it_exists(configured: Server, page: Page) -> None:
    """With a log everything is as in the demo, except that the page publishes for itself."""
    await opened(page, configured.url)
    await expect(page.locator(".is-log .channel-name")).to_have_text("chat:lobby")
    await toggle(page, "eventsource", "cut")
    await send_ten(page)
    await expect(page.locator("#lane-eventsource .lane-state")).to_have_text("cut · 10 waiting")
    await toggle(page, "eventsource", "connected")
    await expect(fact(page, "eventsource", "recovered")).to_have_text("10")
    for lane in LANES:
        await expect(fact(page, lane, "missed")).to_have_text("0")
        await expect(fact(page, lane, "duplicated")).to_have_text("0")


async def test_without_its_socket_the_page_says_that_it_cannot_send(configured: Server, page: Page) -> None:
    await opened(page, configured.url)
    await toggle(page, "websocket", "cut")
    await page.fill("#text", "Into the dark")
    await page.press("#text", "Enter")
    await expect(page.locator("#composer-note")).to_contain_text("Not sent: the WebSocket is away")
    await resume(page)
    await say(page, "Said again")


async def test_whoever_is_here_is_seen(configured: Server, page: Page, browser: Browser) -> None:
    """Without users, our own connections are known to be ours, and every other is somebody."""
    await opened(page, configured.url)
    people = page.locator("#people li")
    await expect(people).to_have_count(1)
    await expect(people).to_contain_text("you · 2 connections")
    other, _ = await new_page(browser)
    await opened(other, configured.url)
    await expect(people).to_have_count(3)
    await other.close()
    await expect(people).to_have_count(1)


# --- refusals ---


async def test_a_server_that_wants_tokens_is_believed(stack: ExitStack, tmp_path: Path, page: Page) -> None:
    """One sentence says what to set; nothing is tried again and again."""
    closed = served(stack, tmp_path, {"server": {"drain_seconds": 0}})
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    await page.goto(closed.url)
    await expect(page.locator("#story")).to_have_text(
        "This server lets nobody in without a token: set client.allow_anonymous = true, or use --insecure."
    )
    for place in ("#composer", "#lane-websocket", "#feed", "#whoami"):
        await expect(page.locator(place)).to_be_hidden()
    assert len(sockets) == 1


async def test_a_channel_that_lets_nobody_in_is_named_with_the_option_that_would(
    stack: ExitStack, tmp_path: Path, page: Page
) -> None:
    shut = served(stack, tmp_path, ANONYMOUS)
    await page.goto(shut.url)
    await expect(page.locator("#story")).to_have_text(
        "The server does not let us into lobby: permission denied, "
        "unless allow_subscribe_for_anonymous = true is set in [channels]."
    )
    await expect(page.locator("#composer")).to_be_hidden()


async def test_a_channel_that_may_only_be_heard_is_heard(
    stack: ExitStack, tmp_path: Path, page: Page
) -> None:
    listening = {"allow_subscribe_for_anonymous": True}
    quiet = served(stack, tmp_path, {**ANONYMOUS, "namespaces": {"chat": listening}})
    await page.goto(quiet.url)
    await live(page)
    await page.fill("#text", "May I?")
    await page.press("#text", "Enter")
    await expect(page.locator("#composer-note")).to_have_text(
        "Not sent: permission denied, unless allow_publish_for_anonymous = true is set in [namespaces.chat]."
    )
