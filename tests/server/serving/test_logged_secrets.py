"""What a server logs at level debug while tokens, keys and payloads arrive in every way, right and wrong."""

import json
from typing import Any
from urllib.parse import urlencode

import httpx
import jwt
import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.support.configs import API_KEY, STANDARD
from tests.support.recorded_logs import FORBIDDEN, MARKED_PAYLOAD
from tests.support.server import Server, run_server
from tests.support.timing import SOON
from tests.support.tokens import connection_token, subscription_token

EXPECTED = [
    "client_refused",
    "request_refused",
    "api_request_refused",
    "protocol_broken",
    "connection_closed",
    "connections_closed",
]
MARK = json.dumps(MARKED_PAYLOAD)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The standard error of a server that got everything that the functions below send."""
    directory = tmp_path_factory.mktemp("logged")
    with run_server(STANDARD, directory, "--log-level", "debug") as server:
        send_tokens(server)
        send_api_keys(server)
        send_payloads(server)
    return server.stderr


def exchange(server: Server, *frames: str | bytes, query: str = "") -> None:
    """Send frames on one connection, and read until the server closes it or has answered them."""
    try:
        with connect(f"{server.websocket_url}{query}", open_timeout=SOON) as socket:
            for frame in frames:
                socket.send(frame)
                socket.recv(SOON)
    except (WebSocketException, OSError):
        pass  # refused or closed, as some of them must be


def get(url: str, token: str = "") -> None:
    """Send a request, and leave once the response has begun."""
    with httpx.stream("GET", url, headers={"Authorization": f"Bearer {token}"} if token else {}):
        pass


def connecting(token: str = "") -> str:
    return json.dumps({"id": 1, "connect": {"token": token}})


def command(name: str, **body: Any) -> str:
    return json.dumps({"id": 2, name: body})


def send_tokens(server: Server) -> None:
    wrong = connection_token("ann", secret="another secret " * 4)
    tokens = [
        connection_token("ann"),
        connection_token("ann", exp=1),
        wrong,
        subscription_token("ann", "open:1"),
        jwt.encode({"sub": "ann"}, "", algorithm="none"),
        wrong[:-3],
        f"{wrong}.x",
    ]
    for token in tokens:
        exchange(server, connecting(token))
        exchange(server, connecting(), command("subscribe", channel="open:1", token=token))
        exchange(server, connecting(), command("refresh", token=token))
        exchange(server, connecting(token), query=f"?token={token}&cf_protocol=none")
        for parameters in ({"channel": "open:1", "token": token, "x": token}, {"token": token}):
            get(f"{server.url}/events?{urlencode(parameters)}")
        get(f"{server.url}/nowhere?token={token}")
        get(f"{server.url}/events?channel={token}", token)


def send_api_keys(server: Server) -> None:
    token = connection_token("ann")
    for headers in ({"X-API-Key": token}, {"Authorization": f"apikey {token}"}, {"X-API-Key": API_KEY}):
        for path in ("/api/info", f"/api/info?api_key={API_KEY}", f"/api/{token}", f"/metrics?key={API_KEY}"):
            httpx.post(server.url + path, headers=headers, content=b"{}")
            httpx.post(server.url + path, headers=headers, content=b"[")


def send_payloads(server: Server) -> None:
    publish = {"channel": "open:1", "data": MARKED_PAYLOAD}
    bodies = [
        json.dumps(publish),
        json.dumps({**publish, "channel": "nowhere:1"}),
        json.dumps({**publish, "channel": 7}),
        json.dumps({**publish, "tags": {"a": 1}}),
        json.dumps(publish)[:-1],
        f"{MARK}",
        f"[{MARK}]",
    ]
    for body in bodies:
        for path in ("/api/publish", "/api/broadcast", "/api/batch", "/api"):
            httpx.post(server.url + path, headers={"X-API-Key": API_KEY}, content=body)
    for frame in (
        command("publish", **publish),
        command("publish", channel="objects:1", data=MARKED_PAYLOAD),
        command("rpc", method="none", data=MARKED_PAYLOAD),
        command("publish", channel="open:1", data=MARKED_PAYLOAD)[:-1],
        MARKED_PAYLOAD,
        MARKED_PAYLOAD.encode() + b"\xff",
        MARKED_PAYLOAD * 100_000,
    ):
        exchange(server, connecting(), frame)
        exchange(server, frame)


def test_no_line_holds_a_token_a_key_or_a_payload(logged: str) -> None:
    """Nor the sign that one was replaced: no code of the server logs one."""
    assert [found[0] for found in FORBIDDEN.finditer(logged)] == []


@pytest.mark.parametrize("event", EXPECTED)
def test_the_refusals_are_logged(logged: str, event: str) -> None:
    """The other test would pass with an empty log."""
    assert f'"event": "{event}"' in logged


@pytest.mark.parametrize("event", ["client_refused", "request_refused", "api_request_refused"])
def test_a_refusal_says_from_where_it_was(logged: str, event: str) -> None:
    lines = [line for line in logged.splitlines() if f'"event": "{event}"' in line]
    assert all('"address": "127.0.0.1"' in line for line in lines)
