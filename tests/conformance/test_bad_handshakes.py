"""Invalid handshakes are refused or closed in bounded time, and harm no other client."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from tests.support.configs import STANDARD
from tests.support.raw_connection import HANDSHAKE, open_tcp
from tests.support.server import Server, run_server

pytestmark = pytest.mark.usefixtures("other_clients_are_unharmed")

INVALID_HANDSHAKES = {
    "a plain GET": (
        HANDSHAKE.replace(b"Upgrade: websocket\r\n", b"").replace(b"Upgrade\r\n", b"close\r\n"),
        {400},
    ),
    "a POST": (HANDSHAKE.replace(b"GET", b"POST"), {400, 405}),
    "no key": (HANDSHAKE.replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""), {400}),
    "a key too short": (HANDSHAKE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ="), {400}),
    "a key that is no base64": (HANDSHAKE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"***"), {400}),
    "an old version": (HANDSHAKE.replace(b"Version: 13", b"Version: 8"), {400, 426}),
    "no version": (HANDSHAKE.replace(b"Sec-WebSocket-Version: 13\r\n", b""), {400, 426}),
    "another path": (HANDSHAKE.replace(b"/connection/websocket", b"/connection/nothing"), {403, 404}),
    "the path of the API": (HANDSHAKE.replace(b"/connection/websocket", b"/api/publish"), {403, 404, 405}),
    "no HTTP": (b"hello\r\n\r\n", {400}),
    "HTTP of another kind": (HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/9.9"), {400, 505}),
    "a header without a name": (HANDSHAKE.replace(b"Host: ", b": "), {400}),
    "a broken header": (HANDSHAKE.replace(b"Host: ", b"Ho\x00st "), {400}),
}

UNFINISHED = {
    "nothing": b"",
    "half a request line": b"GET /connec",
    "half a handshake": HANDSHAKE[:100],
    "all but the last byte": HANDSHAKE[:-1],
    "headers without end": HANDSHAKE[:-2] + b"X: " + b"x" * 1_000_000,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits 3 s for a handshake."""
    config = {**STANDARD, "client": {**STANDARD["client"], "stale_timeout": 3}}
    with run_server(config, tmp_path_factory.mktemp("short-stale-timeout")) as running:
        yield running


async def answer_to(server: Server, data: bytes) -> bytes:
    """Send bytes, and return everything that the server answers."""
    async with open_tcp(server) as connection:
        await connection.send(data)
        return await connection.read_to_end()


@pytest.mark.parametrize(("data", "statuses"), INVALID_HANDSHAKES.values(), ids=INVALID_HANDSHAKES)
async def test_an_invalid_handshake_is_refused(server: Server, data: bytes, statuses: set[int]) -> None:
    """The response has an HTTP status, and not that of a server error."""
    async with open_tcp(server) as connection:
        await connection.send(data)
        assert await connection.response() in statuses


async def test_binary_noise_closes_the_connection(server: Server) -> None:
    """For example, a TLS client that connects to a plain port."""
    for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), bytes(range(256)) * 100):
        assert b"101" not in await answer_to(server, data)


async def test_an_unfinished_handshake_is_closed_in_bounded_time(server: Server) -> None:
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(answer_to(server, data)) for data in UNFINISHED.values()]
    for name, answer in zip(UNFINISHED, answers, strict=True):
        assert b"101" not in answer.result(), name


@pytest.mark.parametrize("line", ["X: " + "a" * 60, "X: " + "a" * 60_000], ids=["many", "long"])
async def test_an_endless_request_head_is_refused(server: Server, line: str) -> None:
    """A client that sends header lines without end gets 431, long before it fills memory."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\n")
    answer = asyncio.ensure_future(reader.read(12))
    with contextlib.suppress(ConnectionError):
        for _ in range(20_000):
            writer.write(line.encode() + b"\r\n")
            await writer.drain()
            if answer.done():
                break
    with contextlib.suppress(ConnectionError):
        assert await answer == b"HTTP/1.1 431"
    assert answer.done()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
