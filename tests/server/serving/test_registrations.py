"""The number of registrations of a listening socket follows the load, and no connection is lost meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import random
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import ParamSpec, cast

import pytest
import uvloop

from tests.server.served_node import serve_node, trusting, until
from tests.server.serving.test_accepted_connection import LINE, PROXIED, REQUEST, ROUTES
from tests.support.timing import SOON, STARTED
from tocsin_server.app import create_app
from tocsin_server.config.options import ServerOptions
from tocsin_server.serving.accepting import ACCEPTED_TOGETHER
from tocsin_server.serving.listening import BACKLOG
from tocsin_server.serving.registrations import FULL_TURNS, SPARSE_TURNS, Registrations
from tocsin_server.serving.server import Server
from tocsin_server.serving.server import serving as serving_app

CROWD = 100
GREETING = b"hello"

P = ParamSpec("P")


def on_uvloop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run a test on the event loop of `tocsin serve`."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            async with asyncio.timeout(STARTED):
                await test(*args, **kwargs)

        uvloop.run(main())

    return run


class Greeter(asyncio.Protocol):
    """Sends a greeting, and closes. `made` counts how many there were."""

    made = 0

    def __init__(self) -> None:
        Greeter.made += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the greeting."""
        connection = cast("asyncio.Transport", transport)
        connection.write(GREETING)
        connection.close()


@contextlib.asynccontextmanager
async def accepting() -> AsyncIterator[tuple[Registrations, int]]:
    """The registrations of a new socket, and its port."""
    Greeter.made = 0
    listening = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    registrations = Registrations(listening, Greeter)
    port = listening.getsockname()[1]
    await registrations.start()
    try:
        yield registrations, port
    finally:
        registrations.close()


def arrive(port: int, count: int) -> list[socket.socket]:
    """Clients whose connections wait to be accepted."""
    clients = [socket.socket() for _ in range(count)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
    for client in clients:
        waiting = select.poll()
        waiting.register(client, select.POLLOUT)
        assert waiting.poll(1000 * SOON)
    return clients


async def greeted(clients: Iterable[socket.socket]) -> None:
    """Wait until each client has been greeted."""
    for client in clients:
        assert await asyncio.get_running_loop().sock_recv(client, 64) == GREETING
        client.close()


def open_files() -> int:
    """How many file descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - which would count its own differently


@on_uvloop
async def test_clients_that_come_one_by_one_find_one_registration() -> None:
    async with accepting() as (registrations, port):
        for _ in range(5 * FULL_TURNS):
            await greeted(arrive(port, 1))
            assert registrations.count == 1


@on_uvloop
async def test_a_few_clients_at_once_change_nothing() -> None:
    async with accepting() as (registrations, port):
        for _ in range(5):
            await greeted(arrive(port, FULL_TURNS))
            assert registrations.count == 1


@on_uvloop
async def test_a_crowd_is_accepted_by_as_many_registrations_as_there_may_be() -> None:
    async with accepting() as (registrations, port):
        clients = arrive(port, CROWD)
        turns = 0
        while Greeter.made < CROWD:
            turns += 1
            await asyncio.sleep(0)
        assert registrations.count == ACCEPTED_TOGETHER
        assert turns < CROWD / 3
        await greeted(clients)


@on_uvloop
async def test_the_registrations_of_a_crowd_end_when_clients_come_one_by_one() -> None:
    """And their file descriptors are closed."""
    async with accepting() as (registrations, port):
        before = open_files()
        await greeted(arrive(port, CROWD))
        assert open_files() > before
        alone = 0
        while registrations.count > 1:
            await greeted(arrive(port, 1))
            alone += 1
        assert 2 * SPARSE_TURNS < alone <= 3 * SPARSE_TURNS
        await until(lambda: open_files() == before)
        await greeted(arrive(port, 1))


@on_uvloop
async def test_no_connection_is_lost_while_the_number_changes() -> None:
    """Connections wait in the queue of the socket in each turn, also in those that end registrations."""
    choose = random.Random(1)
    async with accepting() as (registrations, port):
        counts = []
        for at_most in (20, 3, 1, 20, 2, 1):
            clients = []
            for _ in range(3 * SPARSE_TURNS):
                clients += arrive(port, choose.randint(1, at_most))
                await asyncio.sleep(0)
                counts.append(registrations.count)
            await greeted(clients)
        changes = list(pairwise(counts))
        assert {(8, 4), (4, 2), (2, 1)} <= set(changes)
        assert changes.count((4, 8)) > 1


@pytest.mark.parametrize("turns", range(16))
def test_a_close_in_any_turn_leaves_nothing_open_and_the_queue_to_others(turns: int) -> None:
    """Others have the same socket if it was passed to them, or to this server."""
    uvloop.run(_close_after(turns))


async def _close_after(turns: int) -> None:
    before = open_files()
    async with accepting() as (registrations, port):
        with registrations._listening.dup() as other:
            clients = arrive(port, CROWD)
            for _ in range(turns):
                await asyncio.sleep(0)
            registrations.close()
            made = Greeter.made
            left = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    accepted, _ = other.accept()
                    with accepted:
                        accepted.send(GREETING)
                    left += 1
            await greeted(clients)
            assert made == Greeter.made
            assert made + left == CROWD
            assert made < CROWD or turns > CROWD / ACCEPTED_TOGETHER
    assert registrations.count == 0
    await until(lambda: open_files() <= before + 1)  # the loop opens a file of its own once


@on_uvloop
async def test_a_process_without_file_descriptors_keeps_the_registrations_that_it_has(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def dup(_sock: socket.socket) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket.socket, "dup", dup)
    async with accepting() as (registrations, port):
        await greeted(arrive(port, CROWD))
        assert registrations.count == 1
    del registrations
    gc.collect()
    assert not caplog.records


async def test_asyncios_own_loop_accepts_a_few_connections_in_a_turn_and_all_others_wait() -> None:
    """It has one registration. Clients of a crowd are not refused meanwhile, nor have to try again."""
    async with accepting() as (registrations, port):
        clients = arrive(port, CROWD)
        for client in clients:
            client.getpeername()  # raises OSError unless the connection is in the queue
        while (before := Greeter.made) < CROWD:
            await asyncio.sleep(0)
            assert Greeter.made - before <= 2 * ACCEPTED_TOGETHER
        assert registrations.count == 1
        await greeted(clients)


@on_uvloop
async def test_a_crowd_behind_a_proxy_is_served_over_tls(certificate: tuple[str, str]) -> None:
    files = {"tls_certificate": certificate[0], "tls_key": certificate[1]}
    context = trusting(certificate[0])

    async def request(client: socket.socket) -> bytes:
        await asyncio.get_running_loop().sock_sendall(client, LINE)
        secured = await asyncio.open_connection(sock=client, ssl=context, server_hostname="127.0.0.1")
        return await answer(secured, REQUEST)

    async with serve_node(server={**PROXIED, **files}, routes=ROUTES) as served_node:
        answers = await asyncio.gather(*map(request, arrive(served_node.port, CROWD)))
        assert all(b'["https","203.0.113.7",4711]' in one for one in answers)
        assert counts_of(served_node.server) == [ACCEPTED_TOGETHER]


@on_uvloop
async def test_a_crowd_at_a_unix_socket_is_served_and_the_socket_is_closed_at_the_end(tmp_path: Path) -> None:
    path = str(tmp_path / "tocsin.sock")

    async def request() -> bytes:
        return await answer(
            await asyncio.open_unix_connection(path), REQUEST.replace(b"/who", b"/health/live")
        )

    async with serving_app(create_app(), ServerOptions(host=f"unix:{path}")) as server:
        answers = await asyncio.gather(*(request() for _ in range(CROWD)))
        assert all(one.startswith(b"HTTP/1.1 200 ") for one in answers)
        assert counts_of(server) == [ACCEPTED_TOGETHER]
    assert counts_of(server) == [0]
    with pytest.raises(ConnectionRefusedError):
        await request()


async def answer(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes) -> bytes:
    """What the server answers to a request on this connection."""
    reader, writer = connection
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


def counts_of(server: Server) -> list[int]:
    """The number of registrations of each socket."""
    return [one.count for one in server._accepting if isinstance(one, Registrations)]
