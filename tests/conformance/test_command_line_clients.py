"""Two clients that every machine has or can install: `python -m websockets` and curl."""

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.support.api import Api
from tests.support.configs import API_KEY
from tests.support.server import Server
from tests.support.timing import SOON

Name = Callable[[str], str]


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[Process]:
    """A running program with pipes. It is killed afterwards unless it has ended by itself."""
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    try:
        async with asyncio.timeout(SOON):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def curl(*arguments: str) -> str:
    """The output of curl."""
    async with running("curl", "--silent", "--show-error", "--noproxy", "*", *arguments) as process:
        output, _ = await process.communicate()
    return output.decode()


async def line_with(process: Process, text: str) -> str:
    """The next line of output that contains a text."""
    assert process.stdout is not None
    async for line in process.stdout:
        if text in line.decode():
            return line.decode()
    raise AssertionError(f"the program ended without {text!r}")


def send(process: Process, command: object) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(command).encode() + b"\n")


async def test_commands_typed_by_hand_work(server: Server, api: Api, channel: Name) -> None:
    """Line by line in `python -m websockets`: connect, subscribe, receive, publish, close."""
    news = channel("open")
    async with running(sys.executable, "-u", "-m", "websockets", server.websocket_url) as client:
        await line_with(client, "Connected to")
        send(client, {"id": 1, "connect": {}})
        connected = re.search(r'\{.*"connect".*\}', await line_with(client, '"connect"'))
        assert connected is not None
        assert json.loads(connected[0])["connect"]["client"]
        send(client, {"id": 2, "subscribe": {"channel": news}})
        await line_with(client, '"subscribe"')
        await api.publish(news, {"hello": "you"})
        await line_with(client, '"hello"')
        send(client, {"id": 3, "publish": {"channel": news, "data": {"hello": "all"}}})
        await line_with(client, '"id":3')
        assert client.stdin is not None
        client.stdin.close()
        await line_with(client, "Connection closed: 1000")
    assert (await api.call("history", channel=news))["offset"] == 2


async def test_text_that_is_not_a_command_closes_the_connection(server: Server) -> None:
    """The close code is that of the protocol."""
    async with running(sys.executable, "-u", "-m", "websockets", server.websocket_url) as client:
        await line_with(client, "Connected to")
        assert client.stdin is not None
        client.stdin.write(b"hello?\n")
        await line_with(client, "Connection closed: 3501")


async def test_curl_publishes(server: Server, api: Api, channel: Name) -> None:
    """As in a shell script."""
    news = channel("open")
    body = json.dumps({"channel": news, "data": {"from": "curl"}})
    answer = await curl("-H", f"X-API-Key: {API_KEY}", "-d", body, f"{server.api_url}/publish")
    assert json.loads(answer)["result"]["offset"] == 1
    page = await api.call("history", channel=news, limit=1)
    assert page["publications"][0]["data"] == {"from": "curl"}


async def test_curl_receives_and_recovers(server: Server, api: Api, channel: Name) -> None:
    """An event stream is read line by line, and recovered from its last id."""
    news = channel("short")
    url = server.events_url(news)
    command = ("curl", "--silent", "--no-buffer", "--noproxy", "*", url)
    async with running(*command) as client:
        await line_with(client, "id: 0@")
        epoch = (await api.publish(news, {"n": 1}))["epoch"]
        data = await line_with(client, '"pub"')
        assert json.loads(data.removeprefix("data: "))["pub"] == {"data": {"n": 1}, "offset": 1}
    await api.publish_numbers(news, range(2, 4))
    async with running(*command, "-H", f"Last-Event-ID: 1@{epoch}") as client:
        for n in (2, 3):
            data = await line_with(client, '"pub"')
            assert json.loads(data.removeprefix("data: "))["pub"]["offset"] == n


async def test_curl_gets_the_status_of_each_address(server: Server) -> None:
    """A plain GET of the WebSocket's address is answered 400, an unknown address 404."""
    for path, status in (
        ("/connection/websocket", "400"),
        ("/nothing", "404"),
        ("/connection/nothing", "404"),
    ):
        assert await curl("-o", "/dev/null", "-w", "%{http_code}", server.url + path) == status
