"""Chromium's own WebSocket and EventSource, from pages of allowed and of other origins."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from tests.server.served_node import serve_node
from tests.support.api import Api
from tests.support.browser import chromium
from tests.support.proxy import Proxy, run_proxy
from tests.support.server import Server
from tests.support.tcp import tcp_server
from tests.support.timing import STARTED
from tests.support.tokens import connection_token
from tocsin_server.transports.websocket import raw

pytestmark = pytest.mark.asyncio(loop_scope="module")

Name = Callable[[str], str]

PAGE = b"<!doctype html><title>A page</title>"

OPEN_SOCKET = """url => new Promise(resolve => {
    window.received = [];
    window.socket = new WebSocket(url);
    const isPing = message => !message.id && !message.push;
    const messages = data => data.split("\\n").map(line => JSON.parse(line));
    socket.onmessage = ({data}) => received.push(...messages(data).filter(message => !isPing(message)));
    socket.onopen = () => resolve("open");
    socket.onclose = ({code, reason}) => { window.ending = {code, reason}; resolve("closed"); };
})"""
OPEN_STREAM = """([url, options]) => new Promise(resolve => {
    window.received = [];
    window.source = new EventSource(url, options);
    const record = ({data, lastEventId, type}) => received.push({type, id: lastEventId, ...JSON.parse(data)});
    for (const type of ["message", "gap", "disconnect"]) source.addEventListener(type, record);
    source.addEventListener("connect", () => resolve("open"));
    source.onerror = () => { window.lost = true; resolve("error"); };
})"""
CLOSED_SOCKET = """([url, subprotocols, size]) => new Promise(resolve => {
    const socket = new WebSocket(url, subprotocols);
    socket.onopen = () => { if (size) socket.send("x".repeat(size)); };
    socket.onclose = ({code}) => resolve(code);
})"""
SEND = "commands => socket.send(commands.map(c => JSON.stringify(c)).join('\\n'))"
RECEIVED = "count => window.received.length >= count"


async def serve_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer any request with an empty page."""
    request = await reader.read(65536)  # empty if the browser opened the connection in advance
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(PAGE)}\r\nConnection: close\r\n"
    )
    writer.write(head.encode() + b"\r\n" + PAGE if request else b"")
    await writer.drain()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pages() -> AsyncIterator[int]:
    """The port of a small web server with one page."""
    async with tcp_server(serve_page) as port:
        yield port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests, because it starts slowly."""
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield running
        await running.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, pages: int) -> AsyncIterator[Page]:
    """A page of an allowed origin, in a new browser context."""
    async with await browser.new_context() as visit:
        visit.set_default_timeout(STARTED * 1000)
        opened = await visit.new_page()
        await opened.goto(f"http://127.0.0.1:{pages}/")
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def api(server: Server) -> AsyncIterator[Api]:
    """The HTTP API, in the event loop of the browser."""
    async with Api(server) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    """The proxy, in the event loop of the browser."""
    async with run_proxy(server) as link:
        yield link


async def received(page: Page, count: int) -> list[dict[str, Any]]:
    """The messages that the page received, once there are `count` of them."""
    await page.wait_for_function(RECEIVED, arg=count)
    messages: list[dict[str, Any]] = await page.evaluate("window.received")
    return messages


async def test_a_page_uses_the_protocol_over_its_websocket(
    server: Server, api: Api, page: Page, channel: Name
) -> None:
    """Connect, subscribe and publish in one frame. The replies come in order, then others' publications."""
    news = channel("open")
    assert await page.evaluate(OPEN_SOCKET, server.websocket_url) == "open"
    commands = [
        {"id": 1, "connect": {"token": connection_token("ann")}},
        {"id": 2, "subscribe": {"channel": news}},
        {"id": 3, "publish": {"channel": news, "data": "mine"}},
    ]
    await page.evaluate(SEND, commands)
    first = await received(page, 5)
    assert [message["id"] for message in first if "id" in message] == [1, 2, 3]
    assert first[0]["connect"]["client"]
    await api.publish(news, "theirs")
    pushes = [message["push"] for message in await received(page, 6) if "push" in message]
    publications = [push["pub"] for push in pushes if "pub" in push]
    assert [(pub["offset"], pub["data"]) for pub in publications] == [(1, "mine"), (2, "theirs")]


async def test_a_page_gets_the_code_and_reason_of_a_close(server: Server, page: Page) -> None:
    await page.evaluate(OPEN_SOCKET, server.websocket_url)
    await page.evaluate(SEND, [{"id": 1, "connect": {"token": "garbage"}}])
    await page.wait_for_function("window.ending")
    assert await page.evaluate("window.ending") == {"code": 3500, "reason": "invalid token"}


async def test_a_page_receives_an_event_stream(server: Server, api: Api, page: Page, channel: Name) -> None:
    """Two channels on one EventSource. Each message carries the position of both."""
    one, two = channel("open"), channel("plain")
    assert await page.evaluate(OPEN_STREAM, [server.events_url(one, two), {}]) == "open"
    epoch = (await api.publish(one, {"n": 1}))["epoch"]
    await api.publish(two, {"n": 2})
    assert await received(page, 2) == [
        {"type": "message", "id": f"1@{epoch},", "channel": one, "pub": {"data": {"n": 1}, "offset": 1}},
        {"type": "message", "id": f"1@{epoch},", "channel": two, "pub": {"data": {"n": 2}}},
    ]


async def test_a_page_resumes_before_its_first_message(
    proxy: Proxy, api: Api, page: Page, channel: Name
) -> None:
    """The stream's first event gives the browser a position before any message."""
    news = channel("open")
    assert await page.evaluate(OPEN_STREAM, [proxy.events_url(news), {}]) == "open"
    proxy.cut()
    await page.wait_for_function("window.lost")
    await api.publish_numbers(news, range(1, 4))
    proxy.restore()
    assert [message["pub"]["offset"] for message in await received(page, 3)] == [1, 2, 3]


async def test_a_page_that_lost_its_stream_recovers(
    proxy: Proxy, api: Api, page: Page, channel: Name
) -> None:
    """Chromium reconnects by itself with the last id. The page receives what it missed, and a gap event."""
    news, short = channel("open"), channel("short")
    await page.evaluate(OPEN_STREAM, [proxy.events_url(news, short), {}])
    await api.publish(news, {"n": 1})
    await received(page, 1)
    proxy.cut()
    await page.wait_for_function("window.lost")
    await api.publish_numbers(news, range(2, 5))
    await api.publish_numbers(short, range(1, 9))
    proxy.restore()
    events = await received(page, 5)
    assert [event["pub"]["offset"] for event in events if event["channel"] == news] == [1, 2, 3, 4]
    (gap,) = [event for event in events if event["channel"] == short]
    assert (gap["type"], gap["from"]["offset"], gap["to"]["offset"]) == ("gap", 0, 8)


async def test_a_cookie_authenticates_a_stream(server: Server, api: Api, page: Page, channel: Name) -> None:
    """With credentials, the cookie `tocsin_token` carries the token."""
    members = channel("known")
    token = connection_token("ann")
    await page.evaluate("token => { document.cookie = `tocsin_token=${token}` }", token)
    opened = await page.evaluate(OPEN_STREAM, [server.events_url(members), {"withCredentials": True}])
    assert opened == "open"
    await api.publish(members, 1)
    assert (await received(page, 1))[0]["channel"] == members


@pytest.mark.parametrize(
    ("query", "subprotocols", "sent", "code"),
    [("?format=avro", ["centrifuge-protobuf"], 0, 3506), ("", [], 600_000, 1009)],
    ids=["a format that is not available", "a message too large"],
)
async def test_a_page_reads_why_its_socket_was_closed(
    page: Page, query: str, subprotocols: list[str], sent: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and with the code instead of 1006, after which its SDK would come back for ever."""
    for limit in ("CLOSE_REPLY_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(raw, limit, 100 * STARTED)
    async with (
        serve_node(server={"allowed_origins": ["http://127.0.0.1:*"]}) as served_node,
        asyncio.timeout(STARTED),
    ):
        url = served_node.websocket_url + query
        assert await page.evaluate(CLOSED_SOCKET, [url, subprotocols, sent]) == code


async def test_a_page_of_another_origin_is_refused(server: Server, page: Page, pages: int) -> None:
    """It can neither open a WebSocket nor read a stream."""
    await page.goto(f"http://localhost:{pages}/")
    assert await page.evaluate(OPEN_SOCKET, server.websocket_url) == "closed"
    assert await page.evaluate(OPEN_STREAM, [server.events_url("open:1"), {}]) == "error"
