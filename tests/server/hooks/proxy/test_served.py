"""Clients of a node whose back end was written for Centrifugo's HTTP proxy, and runs unmodified."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.server.hooks.proxy.application import COOKIE, Application, application
from tests.server.served_node import ServedNode, new_channel, serve_node, until
from tests.support.back_end import SeenRequest, admits, back_end_running, http
from tests.support.protobuf_client import protobuf_client
from tests.support.refusal import Refused
from tests.support.tokens import connection_token
from tests.support.wire_client import Close, WireClient
from tocsin_server.config.proxy_use import CHANNEL_EVENTS, CLIENT_EVENTS
from tocsin_server.core import renewals
from tocsin_server.hooks.proxy.proxy import GRACE_SECONDS

WITH_COOKIE: dict[str, Any] = {"additional_headers": {"Cookie": COOKIE}}
ROOM = {f"{event}_proxy": "app" for event in CHANNEL_EVENTS}


@asynccontextmanager
async def served(url: str, options: dict[str, Any] | None = None, **client: Any) -> AsyncIterator[ServedNode]:
    """A node that asks a back end about everything."""
    proxy = {"url": url, "timeout": 30, "http_headers": ["Cookie"], **(options or {})}
    own = {"allow_anonymous": False, **{f"{event}_proxy": "app" for event in CLIENT_EVENTS}, **client}
    room = {**ROOM, "presence": True, "allow_presence_for_subscriber": True}
    room["publication_data_format"] = "binary" if (options or {}).get("binary_encoding") else ""
    async with serve_node(client=own, namespaces={"room": room}, proxies={"app": proxy}) as node:
        yield node


@pytest.fixture
def app() -> Iterator[Application]:
    with application() as app:
        yield app


@asynccontextmanager
async def user_of(node: ServedNode) -> AsyncIterator[WireClient]:
    """A client that the application knows by its cookie."""
    async with node.wire(**WITH_COOKIE) as wire:
        await wire.connect(data={"build": 7}, name="js")
        yield wire


async def test_a_session_cookie_connects_a_client_that_has_no_token(app: Application) -> None:
    async with served(app.url) as node, node.wire(**WITH_COOKIE) as wire:
        result = await wire.connect(data={"build": 7}, name="js")
        assert result["data"] == {"you sent": {"build": 7}}
        assert result["subs"]["room:inbox-56"]["data"] == {"unread": 3}
        presence = await wire.call("presence", channel="room:inbox-56")
        assert presence["presence"][wire.client] == {
            "user": "56",
            "client": wire.client,
            "conn_info": {"name": "user 56"},
        }
        assert app.asked == [
            (
                "connect",
                {
                    "client": wire.client,
                    "transport": "websocket",
                    "protocol": "json",
                    "encoding": "json",
                    "name": "js",
                    "data": {"build": 7},
                },
            )
        ]


async def test_a_client_without_a_session_is_disconnected_as_the_application_says(app: Application) -> None:
    async with served(app.url) as node, node.wire() as wire:
        await wire.send({"id": 1, "connect": {}})
        assert await wire.closed() == Close(4501, "unauthorized")


async def test_a_client_with_a_token_is_not_asked_about(app: Application) -> None:
    """As in Centrifugo. Its expiry is that of its token."""
    async with served(app.url) as node, node.connected(token=connection_token("ann")) as wire:
        assert wire.client
        assert app.asked == []


async def test_the_application_decides_about_subscriptions(app: Application) -> None:
    async with served(app.url) as node, user_of(node) as wire:
        result = await wire.call("subscribe", channel="room:1", data={"page": 1})
        assert result["data"] == {"topic": "news"}
        with pytest.raises(Refused) as refused:
            await wire.call("subscribe", channel="room:secret")
        assert refused.value.code == 403
        known = {"transport": "websocket", "protocol": "json", "encoding": "json", "user": "56"}
        assert app.asked_about("subscribe") == [
            {"client": wire.client, **known, "channel": "room:1", "data": {"page": 1}},
            {"client": wire.client, **known, "channel": "room:secret"},
        ]


async def test_the_application_decides_about_publications_and_may_change_them(app: Application) -> None:
    async with served(app.url) as node, user_of(node) as wire:
        await wire.call("subscribe", channel="room:1")
        await wire.call("publish", channel="room:1", data={"input": "hello"})
        publication = await wire.push("pub", "room:1")
        assert publication["data"] == {"input": "hello", "author": "56"}
        assert publication["info"]["conn_info"] == {"name": "user 56"}
        assert publication["info"]["chan_info"] == {"role": "member"}
        with pytest.raises(Refused) as refused:
            await wire.call("publish", channel="room:1", data={"x": 1})
        assert (refused.value.code, str(refused.value.message)) == (1000, "custom error")
        await wire.send({"id": 99, "publish": {"channel": "room:1", "data": "spam"}})
        assert await wire.closed() == Close(4500, "spam")


async def test_the_application_answers_rpc(app: Application) -> None:
    async with served(app.url) as node, user_of(node) as wire:
        result = await wire.call("rpc", method="getCurrentPrice", data={"object_id": 12})
        assert result["data"] == {"answer": "2019", "for": {"object_id": 12}}
        with pytest.raises(Refused) as refused:
            await wire.call("rpc", method="other", data={})
        assert refused.value.code == 1001


async def test_a_session_goes_on_as_long_as_the_application_says(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is told of no expiry, and sends no command for it."""
    monkeypatch.setattr(renewals, "RETRY_SECONDS", 0.1)
    app.expires_in = 1
    async with served(app.url) as node, user_of(node) as wire:
        await wire.call("subscribe", channel="room:1")
        await until(lambda: app.asked_about("refresh") and app.asked_about("sub_refresh"))
        known = {"transport": "websocket", "protocol": "json", "encoding": "json", "user": "56"}
        assert app.asked_about("refresh")[0] == {"client": wire.client, **known}
        assert app.asked_about("sub_refresh")[0] == {"client": wire.client, **known, "channel": "room:1"}
        app.is_over = True
        assert (await wire.closed()).code in (3005, 3006)


async def test_a_refresh_without_an_answer_changes_nothing(app: Application) -> None:
    """A back end that restarts must not disconnect every client."""
    app.expires_in = 1
    async with served(app.url) as node, user_of(node) as wire:
        app.is_broken = True
        await until(lambda: app.asked_about("refresh"))
        assert (await wire.call("presence", channel="room:inbox-56"))["presence"]
        await until(lambda: (node.connection.session._expires_at or 0) > time.monotonic() + GRACE_SECONDS / 2)


async def test_protobuf_clients_send_and_get_any_bytes(app: Application) -> None:
    options = {"binary_encoding": True}
    headers = {"Cookie": COOKIE}
    async with (
        served(app.url, options) as node,
        protobuf_client(node.websocket_url, headers=headers) as client,
    ):
        await client.call("connect")
        await client.call("subscribe", channel="room:1")
        await client.call("publish", channel="room:1", data=b"\x00")
        assert (await client.push("pub")).data == b"\x00\xff"
        assert app.asked_about("publish")[0]["protocol"] == "protobuf"
        assert app.asked_about("publish")[0]["encoding"] == "binary"


# --------------------------------------------------------------------------------------------------- faults


async def test_a_client_that_the_back_end_cannot_be_asked_about_gets_a_temporary_error() -> None:
    """Error 100 for a client that can get one, so that it tries again; 3004 for any other."""
    async with (
        back_end_running(lambda _request: http({}, "500 Internal Server Error")) as back_end,
        served(back_end.url) as node,
        node.wire() as wire,
    ):
        await wire.send({"id": 1, "connect": {}})
        error = {"code": 100, "message": "internal server error", "temporary": True}
        assert (await wire.reply(1))["error"] == error
        back_end.answer = admits
        async with node.connected():
            pass


async def test_an_open_breaker_is_a_warning_of_a_node_that_is_ready() -> None:
    """Clients that the back end is not asked about are served."""
    async with back_end_running(lambda _request: http({}, "503 Service Unavailable")) as back_end:
        options = {"breaker_faults": 1, "breaker_pause": "1h"}
        async with served(back_end.url, options) as node, node.wire() as wire:
            with pytest.raises(Refused):
                await wire.connect()
            async with node.http() as client:
                response = await client.get("/health/ready")
                info = (await client.post("/api/info", json={})).json()["result"]["nodes"][0]
            assert response.status_code == 200
            (warning,) = response.json()["warnings"]
            assert warning.startswith("The circuit breaker of [proxies.app] is open for connect")
            assert warning in info["warnings"]
            async with node.connected(token=connection_token("ann")):
                pass


async def test_an_answer_for_a_client_that_has_left_leaves_nothing() -> None:
    gate, asked = asyncio.Event(), asyncio.Event()

    async def wait(request: SeenRequest) -> bytes:
        asked.set()
        await gate.wait()
        return admits(request)

    async with back_end_running(wait) as back_end, served(back_end.url) as node:
        async with node.wire() as wire:
            await wire.send({"id": 1, "connect": {}})
            await asked.wait()
            wire.connection.transport.abort()
        gate.set()
        await node.until_empty()


@pytest.mark.parametrize("path", ["/events?channel=", "/connection/uni_sse?cf_connect={}"])
async def test_streams_are_decided_about_with_their_cookies(app: Application, path: str) -> None:
    channel = new_channel("room")
    async with served(app.url, unidirectional=True) as node:
        url = f"{path}{channel}" if path.endswith("=") else path
        async with node.http(headers={"Cookie": COOKIE}) as client, client.stream("GET", url) as response:
            assert response.status_code == 200
            async for line in response.aiter_lines():
                if line.startswith("data"):
                    break
        assert app.asked_about("connect")[0]["transport"] in ("sse", "uni_sse")
        await node.until_empty()
