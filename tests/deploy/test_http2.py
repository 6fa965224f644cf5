"""Chromium through nginx over TLS: HTTP/2 gives a page more than six event streams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import async_playwright

from tests.deploy.nginx import HOST, run_nginx
from tests.server.engine.redis.certificates import write_certificate
from tests.server.engine.redis.redis_server import free_ports
from tests.support.api import Api
from tests.support.browser import chromium
from tests.support.configs import API_KEY, PERMIT_ALL
from tests.support.server import Server, run_server
from tests.support.timing import STARTED

STREAMS = 20
"""More than the six connections that a browser opens to one host over HTTP/1.1."""

CONFIG: dict[str, Any] = {
    "server": {"allowed_origins": ["self"]},
    "client": {"insecure": True},
    "api": {"keys": [API_KEY]},
    "channels": PERMIT_ALL,
}

OPEN_STREAMS = """async count => {
    window.received = [];
    const opened = [...Array(count).keys()].map(number => new Promise(resolve => {
        const source = new EventSource(`/events?channel=news&channel=${number}`);
        source.onmessage = ({data}) => received.push([number, JSON.parse(data).pub.data]);
        source.onopen = resolve;
    }));
    await Promise.all(opened);
}"""
FETCH = """async () => {
    const response = await fetch("/emulation", {method: "POST", body: "{}"});
    return [response.status, performance.getEntriesByType("navigation")[0].nextHopProtocol];
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Server]]:
    """The URL of nginx over TLS, and the node behind it."""
    folder: Path = tmp_path_factory.mktemp("http2")
    (port,) = free_ports(1)
    with (
        run_server(CONFIG, folder) as server,
        run_nginx([server.port], port, folder, tls=write_certificate(folder)),
    ):
        yield f"https://{HOST}:{port}", server


async def test_a_page_has_more_event_streams_than_http_1_1_allows(site: tuple[str, Server]) -> None:
    """All of them receive, and the page can still send requests."""
    url, server = site
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = await (await browser.new_context(ignore_https_errors=True)).new_page()
        page.set_default_timeout(STARTED * 1000)
        await page.goto(url)  # nginx answers 404, which is a page of this origin too
        async with asyncio.timeout(STARTED):
            await page.evaluate(OPEN_STREAMS, STREAMS)
        async with Api(server) as api:
            await api.call("publish", channel="news", data="hello")
        await page.wait_for_function("count => window.received.length === count", arg=STREAMS)
        received = sorted(await page.evaluate("window.received"))
        assert received == [[number, "hello"] for number in range(STREAMS)]
        assert await page.evaluate(FETCH) == [400, "h2"]
        await browser.close()
