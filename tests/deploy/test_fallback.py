"""Chromium with the SDK behind nginx, on a network without WebSockets: the SDK falls back, and loses nothing.

nginx has the repository's configuration, but drops the header Upgrade, as some proxies do. There is no
stickiness, so that about half of the commands reach the node that does not have the connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.deploy.nginx import HOST, run_nginx
from tests.faults.cluster import Cluster, NodeProcess, run_cluster
from tests.server.engine.redis.redis_server import free_ports, redis_running
from tests.support.api import NO_TLS, Api
from tests.support.browser import chromium
from tests.support.configs import API_KEY, PERMIT_ALL
from tests.support.timing import STARTED, TICK

SDK = Path(__file__).parents[1] / "conformance/js/node_modules/centrifuge/dist/centrifuge.js"
MILLISECONDS = STARTED * 1000

CONFIG: Mapping[str, Any] = {
    "server": {"allowed_origins": ["self"], "trusted_proxies": ["127.0.0.1"]},
    "client": {"insecure": True},
    "api": {"keys": [API_KEY]},
    "channels": {
        **PERMIT_ALL,
        "history_size": 1000,
        "history_ttl": "1h",
        "force_recovery": True,
        "presence": True,
    },
}

FORWARDED = re.compile(r'(?m)^tocsin_engine_call_seconds_count\{.*call="forward".*\} (.+)$')

CONNECT = """() => {
    const endpoint = path => `${location.origin}/connection/${path}`;
    window.connections = [];
    window.received = [];
    window.lost = [];
    window.centrifuge = new Centrifuge([
        {transport: "websocket", endpoint: endpoint("websocket").replace("http", "ws")},
        {transport: "http_stream", endpoint: endpoint("http_stream")},
        {transport: "sse", endpoint: endpoint("sse")},
    ], {emulationEndpoint: `${location.origin}/emulation`, minReconnectDelay: 50, maxReconnectDelay: 500});
    centrifuge.on("connected", ({client, transport}) => connections.push({client, transport}));
    window.subscription = centrifuge.newSubscription("news");
    subscription.on("publication", ({data}) => received.push(data));
    subscription.on("subscribed", event => event.wasRecovering && !event.recovered && lost.push(1));
    centrifuge.connect();
    subscription.subscribe();
    return subscription.ready();
}"""


class Site:
    """Two nodes behind nginx."""

    def __init__(self, url: str, nodes: Sequence[NodeProcess]) -> None:
        self.url = url
        self.nodes = nodes

    async def node_with_connection(self) -> NodeProcess:
        """The node that has the only connection."""
        for node in self.nodes:
            assert node.server is not None
            async with Api(node.server) as api:
                infos = (await api.call("info"))["nodes"]
                (own,) = (info for info in infos if info["name"] == f"node-{node.server.port}")
                if own["num_clients"]:
                    return node
        raise AssertionError("no node has a connection")

    async def forwarded(self) -> int:
        """How many requests reached another node than the one with the connection."""
        async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as http:
            pages = [(await http.get(f"{node.url}/metrics")).text for node in self.nodes]
        return sum(int(float(count)) for page in pages for count in FORWARDED.findall(page))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    front, *ports = free_ports(3)
    (tmp_path / "redis").mkdir()
    with redis_running(tmp_path / "redis") as redis:
        nodes = []
        for port in ports:
            server = {**CONFIG["server"], "name": f"node-{port}"}
            config = {**CONFIG, "server": server, "engine": {"url": redis.url}}
            nodes.append(NodeProcess(tmp_path / f"node-{port}", config, port=port))
        async with run_cluster(Cluster(nodes)):
            with run_nginx(ports, front, tmp_path, without="proxy_set_header Upgrade"):
                yield Site(f"http://{HOST}:{front}", nodes)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        await browser.close()


async def open_page(browser: Browser, site: Site, blocked: str) -> Page:
    """A page of the site's origin with the SDK. Requests that match `blocked` fail."""
    page = await browser.new_page()
    page.set_default_timeout(MILLISECONDS)
    await page.goto(site.url)  # nginx answers 404, which is a page of this origin too
    await page.add_script_tag(path=SDK)
    if blocked:
        await page.route(blocked, lambda route: route.abort())
    async with asyncio.timeout(STARTED):
        await page.evaluate(CONNECT)
    return page


TOGETHER = """async count => {
    await Promise.all([...Array(count).keys()].map(number => subscription.publish(number)));
}"""
CHANGE_OFTEN = """async count => {
    window.other = centrifuge.newSubscription("other");
    other.on("publication", ({data}) => received.push(data));
    for (let number = 0; number < count; number++) {
        other.subscribe();
        if (number % 3) await other.ready();
        other.unsubscribe();
    }
    other.subscribe();
    await other.ready();
    const own = new Promise(resolve => other.once("publication", resolve));
    await other.publish("subscribed");
    await own;  // before or after the reply
    other.unsubscribe();
    await centrifuge.presence("other");
    await centrifuge.publish("other", "unsubscribed");
    await subscription.publish("last");
}"""


async def has_received(page: Page, *received: Any) -> None:
    """Wait for so many publications, and check them all."""
    await page.wait_for_function("count => window.received.length >= count", arg=len(received))
    assert await page.evaluate("window.received.splice(0)") == list(received)


@pytest.mark.parametrize(
    ("blocked", "transport"), [("", "http_stream"), ("**/connection/http_stream", "sse")]
)
async def test_the_sdk_falls_back_and_recovers_when_its_node_is_killed(
    browser: Browser, site: Site, blocked: str, transport: str
) -> None:
    """It sends commands through both nodes, and misses and repeats nothing."""
    page = await open_page(browser, site, blocked)
    assert [each["transport"] for each in await page.evaluate("window.connections")] == [transport]
    await commands_run_once_and_in_the_order_that_the_sdk_needs(page)
    assert await site.forwarded(), "a part of the requests reached the other node"
    killed = await site.node_with_connection()
    (other,) = (node for node in site.nodes if node is not killed)
    assert other.server is not None
    await killed.kill()
    async with Api(other.server) as api:
        for number in range(20):
            await api.call("publish", channel="news", data=number)
            await asyncio.sleep(TICK / 10)
    await has_received(page, *range(20))
    async with asyncio.timeout(STARTED):
        await page.evaluate("subscription.publish('back')")
    await has_received(page, "back")
    assert await page.evaluate("window.lost") == []
    assert (await page.evaluate("window.connections"))[-1]["transport"] == transport


async def commands_run_once_and_in_the_order_that_the_sdk_needs(page: Page) -> None:
    """Publishes that are sent together may change their order. A subscribe and its unsubscribe do not."""
    async with asyncio.timeout(STARTED):
        await page.evaluate(TOGETHER, 50)
        await page.wait_for_function("window.received.length >= 50")
        assert sorted(await page.evaluate("window.received.splice(0)")) == list(range(50))
        await page.evaluate(CHANGE_OFTEN, 20)
    await has_received(page, "subscribed", "last")
    assert len(await page.evaluate("window.connections")) == 1
