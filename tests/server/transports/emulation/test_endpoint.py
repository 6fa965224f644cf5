"""`POST /emulation` on the node that has the connection: what is answered, and what is refused and why."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from tests.server.node.fake_connection import FakeConnection, connected
from tests.server.served_node import ServedNode, serve_node, until
from tocsin_server.core.admission import BURST_SECONDS
from tocsin_server.errors import EngineError, Unanswered
from tocsin_server.transports.emulation import endpoint

ORIGIN = "https://app.example"
OTHER_NODE = "0b4c2b5a-9d8f-4c57-a6d1-2f7f4c1e9a10"

Json = dict[str, Any]


class EmulatedClient:
    """A client whose connection is a list, and whose commands are requests."""

    def __init__(self, served: ServedNode, http: httpx.AsyncClient, connection: FakeConnection) -> None:
        self.served = served
        self.http = http
        self.connection = connection
        address = served.node.emulated_sessions.new_address()
        served.node.emulated_sessions.add(address.session, connection)
        self.session, self.node = address

    async def post(self, data: str = '{"id":9,"rpc":{"method":"none"}}', **changes: Any) -> httpx.Response:
        """Send commands."""
        body = {"session": self.session, "node": self.node, "data": data, **changes}
        return await self.http.post("/emulation", json=body)


@pytest.fixture
async def client() -> AsyncIterator[EmulatedClient]:
    limits = {"exempt_addresses": [], "address_connect_rate": 2}
    async with (
        serve_node(server={"allowed_origins": [ORIGIN]}, limits=limits) as served,
        served.http() as http,
    ):
        yield EmulatedClient(served, http, await connected(served.node))


async def test_commands_are_run_and_answered_on_the_connection(client: EmulatedClient) -> None:
    """Several commands of one request, too."""
    response = await client.post('{"id":5,"subscribe":{"channel":"news"}}\n{"id":6,"rpc":{"method":"none"}}')
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["cache-control"] == "no-store"
    await until(lambda: client.connection.reply(6))
    reply = client.connection.reply(5)
    assert reply is not None
    assert "subscribe" in reply


async def test_requests_that_follow_each_other_run_in_that_order(client: EmulatedClient) -> None:
    for number in range(10, 30):
        assert (await client.post(json.dumps({"id": number, "rpc": {"method": "none"}}))).status_code == 204
    assert [reply["id"] for reply in client.connection.received[-20:]] == list(range(10, 30))


async def test_invalid_commands_close_the_connection_and_not_the_node(client: EmulatedClient) -> None:
    """As over a WebSocket. After that the session is gone."""
    other = EmulatedClient(client.served, client.http, await connected(client.served.node))
    assert (await client.post("nonsense")).status_code == 204
    assert client.connection.closed_with is not None
    assert client.connection.closed_with.code == 3501
    response = await client.post()
    assert (response.status_code, response.json()["code"]) == (404, 104)
    assert (await other.post()).status_code == 204


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"session": "guessed"}, 404, "Connect again"),
        ({"session": "guessed", "node": "not a uid"}, 404, "Connect again"),
        ({"session": "guessed", "node": OTHER_NODE}, 404, "Connect again"),
        ({"data": ""}, 400, "no commands"),
        ({"data": 7}, 400, '"session", "node" and "data"'),
        ({"data": "x" * 524_289}, 413, "524288 bytes"),
        ({"data": "x" * 2_000_000}, 413, "524288 bytes"),
    ],
)
async def test_a_refused_request_has_a_status_and_a_reason(
    client: EmulatedClient, changes: Json, status: int, says: str
) -> None:
    """It leaves a line in the log, without the session id, and the connection goes on."""
    with capture_logs() as log_lines:
        response = await client.post(**changes)
    assert response.status_code == status
    assert says in response.json()["message"]
    assert response.headers["connection"] == "close", "the rate of connections limits the rate of refusals"
    (line,) = (line for line in log_lines if line["event"] == "request_refused")
    assert (line["transport"], line["status"], line["address"]) == ("emulation", status, "127.0.0.1")
    assert "guessed" not in str(log_lines)
    assert client.session not in str(log_lines)
    assert (await client.post()).status_code == 204


async def test_a_compressed_body_and_other_methods_are_refused(client: EmulatedClient) -> None:
    headers = {"Content-Encoding": "deflate"}
    response = await client.http.post("/emulation", content=zlib.compress(b"{}"), headers=headers)
    assert response.status_code == 415
    assert (await client.http.get("/emulation")).status_code == 405


async def test_pages_of_allowed_origins_alone_may_send_commands(client: EmulatedClient) -> None:
    """A page asks before, because of the type of its body."""
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    for origin, status in ((ORIGIN, 204), ("https://evil.example", 403)):
        is_allowed = origin == ORIGIN
        client.http.headers["Origin"] = origin
        preflight = await client.http.options("/emulation", headers=asked)
        response = await client.post()
        for each in (preflight, response):
            assert each.status_code == status
            assert ("access-control-allow-origin" in each.headers) is is_allowed
        if is_allowed:
            assert "POST" in preflight.headers["access-control-allow-methods"]
            assert "content-type" in preflight.headers["access-control-allow-headers"]
    assert len([each for each in client.connection.received if each.get("id") == 9]) == 1


async def test_an_address_that_guesses_sessions_is_refused_before_other_nodes_are_asked(
    client: EmulatedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clients that have sessions on this node go on."""
    asked = []

    async def forward(*arguments: object) -> bool:
        asked.append(arguments)
        return False

    now = client.served.node.now()
    monkeypatch.setattr(client.served.node, "now", lambda: now)
    monkeypatch.setattr(client.served.node.emulated_sessions, "forward", forward)
    burst = 2 * BURST_SECONDS
    statuses = [(await client.post(session="guessed", node=OTHER_NODE)).status_code for _ in range(burst)]
    assert statuses == [404] * burst
    refused = await client.post(session="guessed", node=OTHER_NODE)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert len(asked) == burst
    assert client.served.node.metrics.limits_reached.counts == {("limits.address_connect_rate",): 1}
    assert (await client.post()).status_code == 204


async def test_clients_with_sessions_on_other_nodes_use_up_nothing(
    client: EmulatedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many requests they send."""

    async def forward(*_: object) -> bool:
        return True

    now = client.served.node.now()
    monkeypatch.setattr(client.served.node, "now", lambda: now)
    monkeypatch.setattr(client.served.node.emulated_sessions, "forward", forward)
    for _ in range(2 * BURST_SECONDS + 5):
        assert (await client.post(session="elsewhere", node=OTHER_NODE)).status_code == 204


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [(Unanswered([OTHER_NODE]), 504, "does not answer"), (EngineError("gone"), 503, "not be forwarded")],
)
async def test_a_node_that_is_not_reached_is_an_error_that_sdks_reconnect_after(
    client: EmulatedClient, monkeypatch: pytest.MonkeyPatch, error: EngineError, status: int, says: str
) -> None:
    async def forward(*_: object) -> bool:
        raise error

    monkeypatch.setattr(client.served.node.emulated_sessions, "forward", forward)
    response = await client.post(session="elsewhere", node=OTHER_NODE)
    assert (response.status_code, response.json()["code"]) == (status, 100)
    assert says in response.json()["message"]


async def test_commands_on_their_way_to_other_nodes_are_bounded(
    client: EmulatedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of this node are not counted, and the room is free again afterwards."""
    gate = asyncio.Event()

    async def forward(*_: object) -> bool:
        return await gate.wait()

    monkeypatch.setattr(client.served.node.emulated_sessions, "forward", forward)
    monkeypatch.setattr(endpoint, "FORWARDED_BYTES", 100)
    first = asyncio.create_task(client.post("x" * 60, session="elsewhere", node=OTHER_NODE))
    second = asyncio.create_task(client.post("x" * 60, session="elsewhere", node=OTHER_NODE))
    done, waiting = await asyncio.wait((first, second), return_when=asyncio.FIRST_COMPLETED)
    assert [task.result().status_code for task in done] == [503]
    assert (await client.post()).status_code == 204
    gate.set()
    assert [(await task).status_code for task in waiting] == [204]
    assert (await client.post("x" * 60, session="elsewhere", node=OTHER_NODE)).status_code == 204
