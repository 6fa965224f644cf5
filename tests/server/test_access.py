"""Which requests reach the routes: by listening address, origin, Host, and the address of the client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.server.served_node import ServedNode, serve_node, settings_of
from tests.support.api import NO_TLS
from tests.support.timing import SOON
from tocsin_server.app import create_app

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "a key for the tests"
PATHS = {"api": "/api/info", "docs": "/api/openapi.json", "health": "/health/live", "metrics": "/metrics"}
FOREIGN = {"Origin": "https://evil.example"}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
PUBLIC_ADDRESS = "203.0.113.7"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def insecure() -> AsyncIterator[ServedNode]:
    """A node without keys and tokens."""
    async with serve_node(client={"insecure": True}, server={"allowed_origins": ["*"]}) as served_node:
        yield served_node


async def call(client: httpx.AsyncClient, part: str, **options: Any) -> int:
    method = "POST" if part == "api" else "GET"
    content = b"{}" if part == "api" else None
    response = await client.request(method, PATHS[part], content=content, **options)
    return response.status_code


def asked_from(address: str, **sections: Any) -> httpx.AsyncClient:
    """A client of a node that is not served, whose requests come from this address."""
    app = create_app(settings_of({"api": {"insecure": False, "keys": [KEY]}, **sections}))
    transport = httpx.ASGITransport(app, client=(address, 4711))
    return httpx.AsyncClient(transport=transport, base_url="http://push.test")


# ------------------------------------------------------------------------------------------- foreign pages


@pytest.mark.parametrize("part", ["api", "metrics", "docs", "health"])
async def test_a_page_of_another_origin_may_not_call(insecure: ServedNode, part: str) -> None:
    """A POST of text/plain needs no preflight, so that only the server can refuse it."""
    async with insecure.http() as http:
        assert await call(http, part, headers=FOREIGN) == 403
        assert await call(http, part, headers={"Origin": "null"}) == 403
        assert await call(http, part, headers={"Origin": insecure.url}) == 200
        assert await call(http, part) == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
    ],
)
async def test_a_page_that_sends_no_origin_is_known_by_fetch_metadata(
    insecure: ServedNode, headers: dict[str, str], status: int
) -> None:
    """As with an image of another site. A link that a user follows works, a form that is sent does not."""
    async with insecure.http() as http:
        assert await call(http, "metrics", headers=headers) == status
        posted = await http.post("/api/info", content=b"{}", headers=headers)
        assert posted.status_code == (403 if headers["Sec-Fetch-Site"] == "cross-site" else status)


@pytest.mark.parametrize("path", ["/api/info", "/metrics", "/events?channel=a", "/connection/websocket"])
async def test_an_insecure_node_refuses_the_host_of_another_site(insecure: ServedNode, path: str) -> None:
    """Such as one whose name resolves to 127.0.0.1. The page's origin is then that of the request itself."""
    for host, is_refused in (("evil.example:8000", True), (f"localhost:{insecure.port}", False)):
        headers = {"Host": host, "Origin": f"http://{host}"}
        if path.startswith("/connection"):
            async with insecure.tcp() as (connection, _):
                lines = [f"{name}: {value}\r\n" for name, value in {**headers, **UPGRADE}.items()]
                await connection.send(f"GET {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode())
                assert await connection.response() == (403 if is_refused else 101)
        else:
            async with insecure.http() as http:
                method = "POST" if path.startswith("/api") else "HEAD" if "events" in path else "GET"
                response = await http.request(method, path, headers=headers, content=b"{}")
                assert response.status_code == (403 if is_refused else 200)


async def test_a_node_with_keys_accepts_any_host() -> None:
    """The key protects it, and its names are not known."""
    async with asked_from("127.0.0.1") as http:
        headers = {"Host": "push.example.com", "X-API-Key": KEY}
        assert await call(http, "api", headers=headers) != 403


async def test_a_page_that_is_allowed_may_call_and_read() -> None:
    """With the headers that it asks for, and without cookies."""
    async with asked_from("127.0.0.1", admin={"allowed_origins": ["https://panel.example"]}) as http:
        page = {"Origin": "https://panel.example"}
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
        preflight = await http.options("/api/info", headers=page | asked)
        assert preflight.status_code == 204
        assert "X-API-Key" in preflight.headers["access-control-allow-headers"]
        answer = await http.post("/api/info", headers=page, content=b"{}")
        assert answer.status_code == 401
        assert answer.headers["access-control-allow-origin"] == page["Origin"]
        assert "access-control-allow-credentials" not in answer.headers
        assert (await http.options("/api/info", headers=FOREIGN | asked)).status_code == 403


async def test_answers_are_not_stored_and_not_guessed(insecure: ServedNode) -> None:
    async with insecure.http() as http:
        for part, path in PATHS.items():
            response = await http.request("POST" if part == "api" else "GET", path, content=b"{}")
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["x-content-type-options"] == "nosniff"
        stream = await http.head("/events?channel=a")
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-content-type-options"] == "nosniff"


async def test_why_a_request_is_refused_is_logged(
    insecure: ServedNode, capsys: pytest.CaptureFixture[str]
) -> None:
    async with insecure.http() as http:
        await call(http, "api", headers=FOREIGN, params={"api_key": "hush"})
    printed = capsys.readouterr().out
    assert "admin.allowed_origins" in printed
    assert "address=127.0.0.1" in printed
    assert "hush" not in printed


# ------------------------------------------------------------------------------------------------- metrics


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("127.0.0.1", 200),
        ("::1", 200),
        ("::ffff:10.1.2.3", 200),
        ("172.16.0.1", 200),
        ("192.168.1.1", 200),
        ("fd00::1", 200),
        (PUBLIC_ADDRESS, 401),
        ("172.32.0.1", 401),
        ("2001:db8::1", 401),
    ],
)
async def test_metrics_are_for_private_networks_and_for_callers_with_a_key(address: str, status: int) -> None:
    async with asked_from(address) as http:
        assert await call(http, "metrics") == status
        assert await call(http, "metrics", headers={"X-API-Key": KEY}) == 200
        assert await call(http, "metrics", headers={"X-API-Key": KEY[1:]}) == status
        assert await call(http, "health") == 200


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"], ids=lambda name: name.lower()
)
async def test_a_request_through_an_unknown_proxy_is_not_from_a_private_network(header: str) -> None:
    """The proxy's own address says nothing about the client."""
    async with asked_from("127.0.0.1") as http:
        assert await call(http, "metrics", headers={header: "10.0.0.1"}) == 401


async def test_a_proxy_that_is_not_trusted_is_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Only if it may be one's own: any client may send the header."""
    headers = {"X-Forwarded-For": PUBLIC_ADDRESS}
    for address, count in ((PUBLIC_ADDRESS, 0), ("10.1.2.3", 1)):
        async with asked_from(address) as http:
            for _ in range(3):
                await call(http, "health", headers=headers)
        assert capsys.readouterr().out.count("proxy_not_trusted") == count


@pytest.mark.parametrize(
    ("forwarded_for", "status"),
    [("10.0.0.9", 200), (PUBLIC_ADDRESS, 401), (f"10.0.0.9, {PUBLIC_ADDRESS}", 401), ("junk", 401)],
)
async def test_a_request_through_a_trusted_proxy_is_that_of_its_client(
    forwarded_for: str, status: int
) -> None:
    async with asked_from("127.0.0.1", server={"trusted_proxies": ["127.0.0.1"]}) as http:
        assert await call(http, "metrics", headers={"X-Forwarded-For": forwarded_for}) == status


async def test_the_host_that_a_trusted_proxy_names_counts_for_origins() -> None:
    """Then "self" works behind a proxy that replaces the Host."""
    headers = {
        "X-Forwarded-For": PUBLIC_ADDRESS,
        "X-Forwarded-Host": "push.example",
        "Origin": "https://push.example",
        "X-API-Key": KEY,
    }
    for proxies, status in ((["127.0.0.1"], True), ([], False)):
        async with asked_from("127.0.0.1", server={"trusted_proxies": proxies}) as http:
            assert (await call(http, "health", headers=headers) == 200) is status


# ------------------------------------------------------------------------------------- a separate address


@pytest.mark.parametrize(
    ("options", "public"),
    [
        ({}, []),
        ({"public": ["health"]}, ["health"]),
        ({"serve": ["api", "health"], "public": ["api", "docs"]}, ["api"]),
    ],
)
async def test_a_separate_address_serves_what_the_public_one_does_not(
    options: dict[str, Any], public: list[str]
) -> None:
    """It serves no clients. Metrics need no key there."""
    served = options.get("serve", list(PATHS))
    async with (
        serve_node(admin={"host": "127.0.0.1", "port": 0, **options}) as served_node,
        served_node.http() as http,
        httpx.AsyncClient(
            base_url=served_node.server.admin_url, timeout=SOON, trust_env=False, verify=NO_TLS
        ) as admin,
        served_node.connected(),
    ):
        assert [part for part in PATHS if await call(http, part) == 200] == public
        assert {part for part in PATHS if await call(admin, part) == 200} == set(served)
        assert {await call(admin, part) for part in PATHS} <= {200, 404}
        assert (await admin.get("/events?channel=a")).status_code == 404
        assert (await admin.get("/connection/websocket", headers=UPGRADE)).status_code == 404


async def test_what_is_not_served_at_all_is_not_found() -> None:
    async with serve_node(admin={"serve": ["health"]}) as served_node, served_node.http() as http:
        assert [part for part in PATHS if await call(http, part) == 200] == ["health"]
