"""docs/embedding.md: its applications, under the servers that the page names."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.docs.conversation import conversing
from tests.docs.examples import Example, agrees, free_ports, page, replaced, running, shell
from tests.server.engine.redis.redis_server import redis_running
from tests.server.node.fake_connection import FakeConnection
from tests.server.served_node import until
from tests.support.api import NO_TLS
from tests.support.timing import SOON

PAGE = page("embedding.md")
COMMANDS = re.findall(r"(?m)^\| `(.+?)` \| .+ \| `(\w+)` \|$", PAGE.text)

pytestmark = pytest.mark.asyncio(loop_scope="module")


def command_of(module: str) -> str:
    """The page's command that runs this module's application."""
    (command,) = [example.text for example in PAGE.of("sh") if example.text.startswith(f"uvicorn {module}:")]
    return command


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mounted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The port of the application that Tocsin is mounted in."""
    folder = tmp_path_factory.mktemp("mounted")
    ports = free_ports("8000")
    PAGE.write_files(folder, ports)
    async with running(
        replaced(command_of("mounted"), ports), folder, ports["8000"], logs_errors=True
    ):  # one method fails
        yield ports["8000"]


@pytest.mark.parametrize(("command", "transport"), COMMANDS)
async def test_a_server_uses_the_transport_shown(tmp_path: Path, command: str, transport: str) -> None:
    """The application's own route is there, and the metrics name the transport of a WebSocket."""
    ports = free_ports("8000")
    port = ports["8000"]
    PAGE.write_files(tmp_path, ports)
    async with running(replaced(command, ports), tmp_path, port), http(port) as client:
        assert (await client.get("/")).text == "a page of mine"
        async with connect(f"ws://127.0.0.1:{port}/connection/websocket", proxy=None) as connection:
            await connection.send('{"id":1,"connect":{}}')
            assert "connect" in str(await connection.recv())
            metrics = (await client.get("/metrics")).text
    assert f'tocsin_connections{{transport="{transport}"}} 1.0' in metrics


async def test_tocsin_is_mounted_in_starlette_too(tmp_path: Path) -> None:
    """A client connects under the prefix, so the host's lifespan runs the node."""
    ports = free_ports("8000")
    PAGE.write_files(tmp_path, ports)
    async with (
        running(replaced(command_of("in_starlette"), ports), tmp_path, ports["8000"]),
        conversing(f"http://127.0.0.1:{ports['8000']}/push", {}) as conversation,
    ):
        await conversation.play("\n".join(PAGE.of("frames")[0].text.splitlines()[:2]))


async def test_an_application_that_is_mounted_publishes(mounted: str, tmp_path: Path) -> None:
    """The page's calls of it, in their order."""
    examples = [example for example in PAGE.of("sh") if example.heading.startswith("Publishing")]
    assert len(examples) == 2
    for example in examples:
        printed = await shell(replaced(example.text, {"8000": mounted}), tmp_path)
        assert agrees(example.output, printed), printed


def frames_of(heading: str) -> list[Example]:
    """The conversations of a section."""
    return [example for example in PAGE.of("frames") if example.heading == heading]


@pytest.mark.parametrize("example", frames_of("RPC methods"))
async def test_a_client_calls_a_method_of_the_application(mounted: str, example: Example) -> None:
    async with conversing(f"http://127.0.0.1:{mounted}/push", {}) as conversation:
        await conversation.play(example.text)


async def test_hooks_of_the_application_decide(tmp_path: Path) -> None:
    """On WebSockets, with the session in the connect command, and on an event stream, with the cookie."""
    ports = free_ports("8000")
    PAGE.write_files(tmp_path, ports)
    assert len(frames_of("Hooks")) == 2
    (call,) = [one for one in PAGE.of("sh") if one.heading == "Hooks" and one.text.startswith("curl")]
    async with running(replaced(command_of("deciding"), ports), tmp_path, ports["8000"]):
        for example in frames_of("Hooks"):
            async with conversing(f"http://127.0.0.1:{ports['8000']}/push", {}) as conversation:
                await conversation.play(example.text)
        printed = await shell(replaced(call.text, ports), tmp_path)
        assert agrees(call.output, printed), printed
        async with http(ports["8000"]) as client:
            assert (await client.post("/login/bob")).cookies["session"] == "session-of-bob"


async def test_a_handler_is_told_who_came_and_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = [one for one in PAGE.of("python") if one.file_name == "attendance.py"]
    PAGE.write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOCSIN_EVENTS__TYPES", "connected,disconnected")
    names: dict[str, Any] = {}
    exec(example.text, names)
    node = names["app"].state.node
    printed = ""

    def has_printed(*words: str) -> bool:
        nonlocal printed
        printed += capsys.readouterr().out
        return all(word in printed for word in words)

    async with node.running():
        connection = FakeConnection(node)
        number = connection.send_command("connect")
        await until(lambda: connection.reply(number))
        client = connection.session.client
        await until(lambda: has_printed(f"connected  {client}"))
    assert has_printed(f"disconnected  {client}")


async def test_several_nodes_share_a_redis(tmp_path: Path) -> None:
    servers, calls = [example for example in PAGE.of("sh") if example.heading == "Several nodes"]
    with redis_running(tmp_path, "appendonly no") as redis:
        ports = {**free_ports("8001", "8002"), "6379": str(redis.port)}
        PAGE.write_files(tmp_path)
        one, two = replaced(servers.text, ports).splitlines()
        async with (
            running(f"env {one}", tmp_path, ports["8001"]),
            running(f"env {two}", tmp_path, ports["8002"]),
        ):
            printed = await shell(replaced(calls.text, ports), tmp_path)
            assert agrees(calls.output, printed), printed


def http(port: str) -> httpx.AsyncClient:
    """An HTTP client of a server on this machine."""
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=SOON, verify=NO_TLS
    )
