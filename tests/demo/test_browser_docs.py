"""The examples of docs/browser.md, run as one module in a browser."""

import json
import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.support.api import NO_TLS
from tests.support.timing import SOON
from tests.support.tokens import SECRET, connection_token
from tocsin_server.app import create_app
from tocsin_server.config.loading import Settings
from tocsin_server.serving.server import serving

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one browser for all of them

DOCS = (Path(__file__).parents[2] / "docs" / "browser.md").read_text()
CONFIGURATION = "\n".join(re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL))
EXAMPLES = "\n".join(re.findall(r"```js\n(.*?)```", DOCS, re.DOTALL))
API_KEY = "key"

PAGE = '<!doctype html><link rel="icon" href="data:,"><script type="module" src="examples.js"></script>'
PRELUDE = """
window.shown = [];
const show = (...values) => shown.push(values);
"""
EXPORTS = """
Object.assign(window, { client, news, scores, chat, stream });
"""


class Application:
    """A node with the configuration of the document, and the back end of its page."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.url = str(http.base_url)
        self._http = http

    async def publish(self, channel: str, data: Any) -> None:
        response = await self._http.post("/api/publish", json={"channel": channel, "data": data})
        assert "error" not in response.json(), response.text

    async def position(self, channel: str) -> dict[str, Any]:
        response = await self._http.post("/api/history", json={"channel": channel})
        result = response.json()["result"]
        return {"offset": result["offset"], "epoch": result["epoch"]}


async def serve_page(_request: Request) -> Response:
    return HTMLResponse(PAGE)


async def serve_examples(request: Request) -> Response:
    """The examples with the address of this node."""
    host = request.url.netloc
    examples = EXAMPLES.replace("wss://push.example", f"ws://{host}")
    examples = examples.replace("https://push.example", f"http://{host}")
    return Response(PRELUDE + examples + EXPORTS, media_type="text/javascript")


async def serve_token(_request: Request) -> Response:
    return PlainTextResponse(connection_token("ann"))


ROUTES = [
    Route("/examples", serve_page),
    Route("/examples.js", serve_examples),
    Route("/token", serve_token),
]


@pytest_asyncio.fixture(loop_scope="session")
async def application() -> AsyncIterator[Application]:
    more = {
        "server": {"port": 0, "drain_seconds": 0, "allowed_origins": ["self"]},
        "client": {"token_hmac_secret": SECRET},
        "api": {"keys": [API_KEY]},
    }
    settings = Settings.model_validate({**tomllib.loads(CONFIGURATION), **more})
    app = create_app(settings, routes=ROUTES, has_page=True)
    headers = {"X-API-Key": API_KEY}
    async with (
        serving(app, settings.server) as server,
        httpx.AsyncClient(
            base_url=server.url, headers=headers, timeout=SOON, trust_env=False, verify=NO_TLS
        ) as http,
    ):
        yield Application(http)


async def shown(page: Page, *values: Any) -> None:
    """Wait until the page has shown these values."""
    is_shown = "values => shown.some(each => JSON.stringify(each) === JSON.stringify(values))"
    await page.wait_for_function(is_shown, arg=[*values])


async def test_every_example_works(page: Page, application: Application) -> None:
    """A position is stored before the page is opened. A message is published while the connection is cut."""
    await application.publish("scores", "0:0")
    position = await application.position("scores")
    await application.publish("scores", "1:0")
    await page.add_init_script(f"localStorage.setItem('scores', '{json.dumps(position)}')")
    await page.goto(f"{application.url}/examples")

    await shown(page, "state", "connected", 0, "")
    await shown(page, "score", "1:0", True)
    await shown(page, "chat", "Hello", "ann")
    await shown(page, "present", ["ann"])
    await shown(page, "users", 1)
    await shown(page, "history", ["1:0", "0:0"])
    await shown(page, "error", 103, "permission denied", False)
    assert await page.evaluate("JSON.parse(localStorage.getItem('scores')).offset") == 2

    await page.wait_for_function("window.stream?.state === 'connected'")
    await application.publish("news", "first")
    await shown(page, "news", "first", 1)
    await shown(page, "stream", "news", "first")

    await page.evaluate("client.cut()")
    await application.publish("news", "second")
    await page.evaluate("client.resume()")
    await shown(page, "news", "second", 2)
    assert await page.evaluate("shown.filter(([name]) => name === 'reload')") == []
    await page.evaluate("() => { client.close(); stream.close(); }")
    await shown(page, "state", "disconnected", 0, "close called")
