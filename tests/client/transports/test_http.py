"""HTTP under uvloop, where a broken connection loses its socket."""

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
import uvloop

from tocsin import AsyncPublisher, ServerUnreachable
from tocsin.transports.http import HttpClient

RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def hostile() -> Iterator[str]:
    """The address of something that resets whatever it accepts."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:

        def reset_all() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    if is_over.is_set():
                        return
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

        is_over = threading.Event()
        resetting = threading.Thread(target=reset_all)
        resetting.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        is_over.set()
        socket.create_connection(listener.getsockname()).close()
        resetting.join()


def test_a_connection_that_breaks_at_once_is_an_error_of_transport(hostile: str) -> None:
    """Whenever it breaks, of many."""
    failures: Counter[type] = Counter()

    async def ask(http: HttpClient) -> None:
        try:
            await http.get(hostile)
        except httpx.TransportError as error:
            failures[type(error)] += 1

    async def ask_often() -> None:
        async with HttpClient() as http:
            for _ in range(10):
                await asyncio.gather(*(ask(http) for _ in range(50)))

    uvloop.run(ask_often())
    assert failures.total() == 500


def test_a_publisher_says_that_the_server_cannot_be_reached(hostile: str) -> None:
    async def publish() -> None:
        async with AsyncPublisher(hostile) as publisher:
            await publisher.publish("news", 1)

    with pytest.raises(ServerUnreachable):
        uvloop.run(publish())
