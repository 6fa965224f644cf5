"""HTTP in uvloop, where a broken connection has no socket."""

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvloop

from tocsin import AsyncPublisher, Publisher, ServerUnreachable
from tocsin.transports.http import HttpClient

RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def resetting_server() -> Iterator[str]:
    """The address of a server that resets every connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:

        def reset_all() -> None:
            while True:
                connection, _ = listening.accept()
                with connection:
                    if is_over.is_set():
                        return
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

        is_over = threading.Event()
        thread = threading.Thread(target=reset_all)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        is_over.set()
        socket.create_connection(listening.getsockname()).close()
        thread.join()


def test_a_connection_that_breaks_at_once_is_a_transport_error(resetting_server: str) -> None:
    """Of 500 connections, some break at each step of opening."""
    failures: Counter[type] = Counter()

    async def request(http: HttpClient) -> None:
        try:
            await http.get(resetting_server)
        except httpx.TransportError as error:
            failures[type(error)] += 1

    async def request_often() -> None:
        async with HttpClient() as http:
            for _ in range(10):
                await asyncio.gather(*(request(http) for _ in range(50)))

    uvloop.run(request_often())
    assert failures.total() == 500


def test_a_publisher_reports_an_unreachable_server(resetting_server: str) -> None:
    async def publish() -> None:
        async with AsyncPublisher(resetting_server) as publisher:
            await publisher.publish("news", 1)

    with pytest.raises(ServerUnreachable):
        uvloop.run(publish())


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_of_the_environment_that_cannot_be_read_are_a_documented_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with (
        Publisher("https://127.0.0.1:9") as publisher,
        pytest.raises(ServerUnreachable, match="SSL_CERT_FILE"),
    ):
        publisher.publish("news", 1)
