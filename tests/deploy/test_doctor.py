"""`tocsin doctor` behind real nginx: what the proxy passes, buffers and cuts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.nginx import HOST, run_nginx
from tests.server.engine.redis.redis_server import free_ports
from tests.support.configs import API_KEY, PERMIT_ALL
from tests.support.server import Server, run_server
from tests.support.timing import SOON, TICK
from tests.support.tokens import SECRET, connection_token
from tocsin.cli.findings import Finding
from tocsin.cli.url_checks import Target, url_findings

PING_SECONDS = 2
HELD_SECONDS = 2.5 * PING_SECONDS
CONFIG = {
    "server": {"drain_seconds": 0, "allowed_origins": ["https://app.example"]},
    "client": {"token_hmac_secret": SECRET, "ping_interval": PING_SECONDS, "pong_timeout": 1},
    "api": {"keys": [API_KEY]},
    "channels": PERMIT_ALL,
}
BUFFERED = "proxy_ignore_headers X-Accel-Buffering; gzip on; gzip_types text/event-stream;"
IMPATIENT = "proxy_read_timeout 1s;"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with run_server(CONFIG, tmp_path_factory.mktemp("doctor")) as server:
        yield server


async def found(url: str, *, token: str | None = None, hold_seconds: float = TICK) -> dict[str, Finding]:
    """The findings about an address, by check."""
    token = connection_token("ann") if token is None else token
    findings = [one async for one in url_findings(Target(url, token, "doctor", hold_seconds))]
    assert all(one["fix"] for one in findings if one["level"] != "ok")
    assert connection_token("ann") not in str(findings)
    return {one["check"]: one for one in findings}


async def behind_nginx(
    node: Server, directory: Path, *, without: str = "(?!)", added: str = "", hold_seconds: float = TICK
) -> dict[str, Finding]:
    [port] = free_ports(1)
    with run_nginx([node.port], port, directory, without=without, added=added):
        return await found(f"http://{HOST}:{port}", hold_seconds=hold_seconds)


async def test_the_configuration_of_the_repository_is_fit(node: Server, tmp_path: Path) -> None:
    findings = await behind_nginx(node, tmp_path, hold_seconds=HELD_SECONDS)
    assert {name: one["text"] for name, one in findings.items() if one["level"] != "ok"} == {}
    assert "arrive at once" in findings["event stream"]["text"]


async def test_a_proxy_that_buffers_event_streams_is_found(node: Server, tmp_path: Path) -> None:
    """Nginx passes on the first event, which came with the head. The WebSocket beside it passes."""
    findings = await behind_nginx(
        node, tmp_path, without="proxy_buffering", added=BUFFERED, hold_seconds=HELD_SECONDS
    )
    assert findings["event stream"]["level"] == "error"
    assert "proxy_buffering off" in findings["event stream"]["fix"]
    assert findings["WebSocket"]["level"] == "ok"


async def test_a_proxy_that_does_not_pass_the_upgrade_is_found(node: Server, tmp_path: Path) -> None:
    findings = await behind_nginx(node, tmp_path, without="proxy_set_header (Upgrade|Connection)")
    assert findings["WebSocket"]["level"] == "error"
    assert "Upgrade" in findings["WebSocket"]["fix"]


async def test_a_proxy_that_cuts_idle_connections_is_found(node: Server, tmp_path: Path) -> None:
    """Nginx waits a second, and the server pings every five."""
    timeouts = "proxy_(read|send)_timeout"
    findings = await behind_nginx(node, tmp_path, without=timeouts, added=IMPATIENT, hold_seconds=SOON)
    for check in ("WebSocket", "event stream"):
        assert findings[check]["level"] == "error"
        assert "cut after" in findings[check]["text"]
        assert "client.ping_interval" in findings[check]["fix"]


async def test_without_a_token_connections_cannot_be_held(node: Server) -> None:
    findings = await found(node.url, token="", hold_seconds=SOON)
    assert findings["WebSocket"]["level"] == "warning"
    assert "--token" in findings["WebSocket"]["fix"]
    assert "--token" in findings["event stream"]["fix"]


async def test_a_token_that_is_refused_is_not_said_to_be_missing(node: Server) -> None:
    """The error of the connect command, and the close of a token that no key verifies, are in the finding."""
    for token, words in (
        (connection_token("ann", exp=1), "token expired (error 109)"),
        ("junk", "invalid token (3500)"),
    ):
        finding = (await found(node.url, token=token, hold_seconds=SOON))["WebSocket"]
        assert words in finding["text"]
        assert "log of the node" in finding["fix"]


async def test_a_short_check_says_that_buffering_is_not_known(node: Server) -> None:
    findings = await found(node.url)
    assert findings["event stream"]["level"] == "warning"
    assert "client.ping_interval (2 s)" in findings["event stream"]["fix"]


async def test_an_open_server_is_found(insecure_server: Server) -> None:
    """Its address is private, so metrics are no error. A ping is not due while it is checked."""
    findings = await found(insecure_server.url, token="")
    assert findings["metrics"]["level"] == "warning"
    assert findings["event stream"]["level"] == "warning"
