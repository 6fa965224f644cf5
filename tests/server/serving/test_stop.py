"""A server that stops: requests on connections that it had accepted, and signals that follow each other."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Sequence

import pytest
import uvloop

from tests.server.served_node import ServedNode, serve_node, serve_node_over_tls, trusting, until
from tests.support.raw_connection import HANDSHAKE, RawConnection
from tests.support.timing import SOON, STARTED, TICK
from tests.support.wire_client import Close
from tocsin_server.app import create_app
from tocsin_server.config.options import ServerOptions
from tocsin_server.node import node_tasks
from tocsin_server.serving import server as server_module
from tocsin_server.serving.registrations import Registrations
from tocsin_server.serving.server import serving as serving_app

AT_ONCE = {"drain_seconds": 0}
BODY = b'{"channel": "news", "data": 1}'
LIVE = b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n"
PUBLISH = b"POST /api/publish HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that stop wait for first requests as long as a slow machine may need."""
    monkeypatch.setattr(server_module, "FIRST_REQUEST_SECONDS", STARTED)


async def stop(served_node: ServedNode) -> None:
    """Begin to stop a server once it has accepted a connection, and wait until it accepts no other."""
    await until(lambda: served_node.server.server_state.connections)
    served_node.server.should_exit = True
    await until(lambda: served_node.node.is_draining)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("sent_before", [0, 6])
@pytest.mark.parametrize(
    ("request_", "status"),
    [(LIVE, 200), (PUBLISH, 200), (HANDSHAKE, 101)],
    ids=["live", "publish", "websocket"],
)
async def test_a_request_of_a_new_connection_may_arrive_during_the_stop(
    request_: bytes, status: int, sent_before: int
) -> None:
    """Nothing of it, or a part, has arrived before."""
    async with serve_node(server=AT_ONCE) as served_node, served_node.tcp() as (connection, _):
        await connection.send(request_[:sent_before])
        await stop(served_node)
        await connection.send(request_[sent_before:])
        assert await connection.response() == status
        if status == 101:
            assert await connection.closed() == Close(3001, "shutdown")


@pytest.mark.usefixtures("patient")
async def test_a_tls_handshake_may_go_on_during_the_stop(certificate: tuple[str, str]) -> None:
    async with serve_node_over_tls(*certificate, server=AT_ONCE) as served_node:
        client = socket.create_connection(("127.0.0.1", served_node.port), SOON)
        client.setblocking(False)
        await stop(served_node)
        reader, writer = await asyncio.open_connection(
            sock=client, ssl=trusting(certificate[0]), server_hostname="127.0.0.1"
        )
        writer.write(LIVE)
        assert await RawConnection(reader, writer).response() == 200
        writer.close()


async def test_a_connection_without_a_request_is_closed_after_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "FIRST_REQUEST_SECONDS", TICK)
    async with serve_node(server=AT_ONCE) as served_node, served_node.tcp() as (connection, _):
        await stop(served_node)
        assert await connection.read_some() == b""


@pytest.mark.usefixtures("patient")
async def test_an_idle_connection_is_closed_at_once() -> None:
    """It has had a response. Only the first request of a connection is waited for."""
    async with serve_node(server=AT_ONCE) as served_node, served_node.tcp() as (connection, _):
        await connection.send(LIVE)
        await connection.read_until_responses(1)
        await stop(served_node)
        assert await connection.read_some() == b""


def arriving_last(monkeypatch: pytest.MonkeyPatch, port: int, count: int) -> Sequence[socket.socket]:
    """Clients that connect when the server has begun to stop, and before its socket is closed."""
    clients: list[socket.socket] = []
    for name in ("accept_waiting", "close"):
        original = getattr(Registrations, name)

        def connect_first(registrations: Registrations, original=original) -> None:  # type: ignore[no-untyped-def]
            while len(clients) < count:
                clients.append(socket.create_connection(("127.0.0.1", port), SOON))
                clients[-1].setblocking(False)
            original(registrations)

        monkeypatch.setattr(Registrations, name, connect_first)
    return clients


@pytest.mark.usefixtures("patient")
def test_connections_in_the_queue_of_the_socket_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with serve_node(server=AT_ONCE) as served_node:
            clients = arriving_last(monkeypatch, served_node.port, 20)
            served_node.server.should_exit = True
            await until(lambda: served_node.node.is_draining)
            for client in clients:
                with client:
                    reader, writer = await asyncio.open_connection(sock=client)
                    writer.write(LIVE)
                    assert await RawConnection(reader, writer).response() == 200
                    writer.close()

    uvloop.run(main())


@pytest.mark.usefixtures("patient")
async def test_connections_in_the_queue_of_a_passed_socket_are_left_to_the_next_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        options = ServerOptions(host=f"fd:{passed.fileno()}", drain_seconds=0)
        async with serving_app(create_app(), options):
            clients = arriving_last(monkeypatch, passed.getsockname()[1], 20)
        async with serving_app(create_app(), options):
            for client in clients:
                reader, writer = await asyncio.open_connection(sock=client)
                writer.write(LIVE)
                assert await RawConnection(reader, writer).response() == 200
                writer.close()


async def test_a_second_signal_cancels_what_calls_are_doing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An RPC method that hangs does not delay the end."""
    monkeypatch.setattr(node_tasks, "STOP_SECONDS", 2 * STARTED)
    called = asyncio.Event()

    async def hang(*_: object) -> None:
        called.set()
        await asyncio.Event().wait()

    async with (
        asyncio.timeout(STARTED),
        serve_node(server=AT_ONCE, rpc_methods={"hang": hang}) as served_node,
        served_node.connected() as wire,
    ):
        await wire.send({"id": 9, "rpc": {"method": "hang"}})
        await called.wait()
        for _ in range(2):
            served_node.server.handle_exit(signal.SIGTERM, None)
        tasks = served_node.node._tasks
        await until(lambda: tasks._time_limit is None or tasks._time_limit.expired())
        served_node.server.handle_exit(signal.SIGTERM, None)  # a third one changes nothing


async def test_the_first_signal_after_a_drain_by_the_api_drops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A supervisor may drain a node, and then stop it as usual. A call that is being answered goes on."""
    monkeypatch.setattr(node_tasks, "STOP_SECONDS", STARTED)
    called, may_return, returned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def method(*_: object) -> int:
        called.set()
        await may_return.wait()
        returned.set()
        return 1

    async with (
        serve_node(server=AT_ONCE, rpc_methods={"method": method}) as served_node,
        served_node.connected() as wire,
    ):
        await wire.send({"id": 9, "rpc": {"method": "method"}})
        await called.wait()
        async with served_node.http() as http:
            await http.post("/api/drain", json={"node": served_node.node.uid})
        assert await wire.closed() == Close(3001, "shutdown")
        served_node.server.handle_exit(signal.SIGTERM, None)
        limit = served_node.node._tasks._time_limit
        assert limit is not None
        await until(lambda: limit.when() is not None)
        assert (limit.when() or 0) > asyncio.get_running_loop().time()
        may_return.set()
    assert returned.is_set()
