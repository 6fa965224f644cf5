"""A node in this process, served with the API alone, and clients of it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest_asyncio
from starlette.applications import Starlette

from tests.server.api.websocket_client import WebSocketClient, connected_client
from tests.support.api import NO_TLS
from tests.support.timing import SOON
from tests.support.tokens import SECRET
from tocsin_server.api.application import Api, api_routes
from tocsin_server.api.auth import ApiKeys
from tocsin_server.config.loading import Settings
from tocsin_server.config.options import ServerOptions
from tocsin_server.engine.factory import create_engine
from tocsin_server.node.node import Node
from tocsin_server.serving.server import serving

KEY = "the key"
Json = dict[str, Any]

SETTINGS: Json = {
    "client": {"allow_anonymous": True, "token_hmac_secret": SECRET},
    "api": {"keys": [KEY, "another key"]},
    "channels": {"allow_subscribe_for_client": True, "allow_publish_for_client": True},
    "namespaces": {
        "open": {
            "history_size": 10,
            "history_ttl": "300s",
            "presence": True,
            "force_recovery": True,
            "allow_subscribe_for_client": True,
            "allow_subscribe_for_anonymous": True,
            "allow_publish_for_client": True,
        },
        "objects": {"publication_data_format": "json_object"},
        "values": {"publication_data_format": "json"},
    },
}


async def _double(user: str, params: Any) -> Any:
    return {"user": user, "twice": params * 2}


@dataclass(frozen=True)
class Served:
    """A node, its URL, and an HTTP client that sends its key."""

    node: Node
    url: str
    http: httpx.AsyncClient
    headers: Mapping[str, str] = field(default_factory=dict)

    def with_headers(self, **headers: str) -> "Served":
        """The same, with headers that every call sends."""
        return replace(self, headers=headers)

    async def post(self, path: str, body: Any) -> httpx.Response:
        """POST JSON, or bytes unchanged."""
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return await self.http.post(path, headers=self.headers, **content)

    async def call(self, method: str, /, **params: Any) -> Json:
        """The body of the response, which must be a 200."""
        response = await self.post(f"/api/{method}", params)
        assert response.status_code == 200, response.text
        answer: Json = response.json()
        return answer

    async def result(self, method: str, /, **params: Any) -> Json:
        """The result of a method."""
        answer = await self.call(method, **params)
        result: Json = answer["result"]
        return result

    async def error(self, method: str, /, **params: Any) -> tuple[int, str]:
        """Code and message of a refusal."""
        answer = await self.call(method, **params)
        return answer["error"]["code"], answer["error"]["message"]

    async def raw(self, sent: bytes) -> bytes:
        """Send bytes on a new connection, and return the head of the response."""
        url = httpx.URL(self.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(sent)
        async with asyncio.timeout(SOON):
            head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return head

    async def hang_up(self, sent: bytes) -> None:
        """Send bytes on a new connection, then close it."""
        url = httpx.URL(self.url)
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(sent)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    @asynccontextmanager
    async def client(self, **connect: Any) -> AsyncIterator[WebSocketClient]:
        """A connected WebSocket client."""
        async with connected_client(self.url, **connect) as client:
            yield client


@asynccontextmanager
async def served(**sections: Json) -> AsyncIterator[Served]:
    """Serve a node with the usual settings, in which `sections` replace whole sections."""
    settings = Settings.model_validate({**SETTINGS, "server": {"name": "here"}, **sections})
    node = Node(settings, create_engine(settings.engine), rpc_methods={"double": _double})

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[Json]:
        async with node.running():
            yield {"node": node}

    app = Starlette(routes=api_routes(Api(node, ApiKeys(settings))), lifespan=lifespan)
    app.state.node = node
    async with (
        serving(app, ServerOptions(port=0)) as server,
        httpx.AsyncClient(
            base_url=server.url, headers={"X-API-Key": KEY}, timeout=SOON, trust_env=False, verify=NO_TLS
        ) as http,
    ):
        yield Served(node, server.url, http)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api() -> AsyncIterator[Served]:
    """The API of a node with the usual settings. A file's tests share it, with channels of their own."""
    async with served() as running:
        yield running
