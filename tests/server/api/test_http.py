"""The ways of a response of the API: written whole by the server, or as ASGI messages that may be changed."""

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.server.served_node import settings_of
from tests.support.api import NO_TLS
from tests.support.timing import SOON
from tocsin_server.app import create_app
from tocsin_server.config.options import ServerOptions
from tocsin_server.serving.server import serving


class AddHeader:
    """ASGI middleware of an embedding application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_header(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-added", b"yes")]
            await send(message)

        await self._app(scope, receive, send_with_header)


async def _info(app: Starlette, **headers: str) -> httpx.Response:
    async with (
        serving(app, ServerOptions(port=0)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=SOON, trust_env=False, verify=NO_TLS) as http,
    ):
        response = await http.post("/api/info", json={}, headers=headers)
        assert (response.status_code, list(response.json())) == (200, ["result"])
        return response


@pytest.mark.parametrize("has_middleware", [False, True])
async def test_a_middleware_of_an_embedding_application_sees_every_response(*, has_middleware: bool) -> None:
    app = create_app(settings_of({}))
    if has_middleware:
        app.add_middleware(AddHeader)
    assert (await _info(app)).headers.get("X-Added") == ("yes" if has_middleware else None)


@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}, {"Origin": "https://page.example"}])
async def test_a_response_has_the_same_headers_on_every_way(headers: dict[str, Any]) -> None:
    admin = {"allowed_origins": ["https://page.example"]}
    response = await _info(create_app(settings_of({"admin": admin})), **headers)
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Date" in response.headers
    assert response.headers.get("Connection") == headers.get("Connection")
    assert response.headers.get("Access-Control-Allow-Origin") == headers.get("Origin")
