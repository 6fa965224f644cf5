"""How many connections a node serves, and that each is counted back however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import InvalidStatus

from tests.server.served_node import ServedNode, serve_node, until
from tests.server.transports.websocket.raw_session import CONNECT, connect
from tests.support.api import NO_TLS
from tests.support.raw_connection import HANDSHAKE, RawConnection, close_frame, commands
from tests.support.timing import TICK
from tests.support.wire_client import Close
from tocsin_server.serving import address_limits, refused_connections
from tocsin_server.serving.http_limits import HttpProtocol
from tocsin_server.serving.refused_connections import RefusedConnections

STREAM = b"GET /events?channel=open:1 HTTP/1.1\r\nHost: here\r\n\r\n"
CALL = b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n"


@asynccontextmanager
async def counting(**limits: object) -> AsyncIterator[ServedNode]:
    """A node to which this machine's address is one of the internet."""
    async with serve_node(limits={"exempt_addresses": [], **limits}) as served_node:
        yield served_node


def counts(served_node: ServedNode) -> tuple[int, int, int, int]:
    node = served_node.node
    return (node.admission.count, node.admission.addresses, len(node.half_open), node.half_open.addresses)


def limits_reached(served_node: ServedNode, limit: str) -> int:
    return served_node.node.metrics.limits_reached.counts[limit,]


async def websocket_status(served_node: ServedNode) -> tuple[int, str]:
    """The status of a handshake, and when to try again."""
    try:
        async with connect_websocket(served_node.websocket_url, proxy=None):
            return 101, ""
    except InvalidStatus as error:
        return error.response.status_code, error.response.headers.get("Retry-After", "")


async def stream_status(served_node: ServedNode) -> tuple[int, str]:
    """The same of an event stream."""
    async with served_node.http() as http, http.stream("GET", "/events?channel=open:1") as response:
        return response.status_code, response.headers.get("Retry-After", "")


STATUSES = [websocket_status, stream_status]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("option", ["connection_limit", "address_connection_limit"])
async def test_a_connection_above_the_limit_is_refused_with_503(
    option: str, status: Callable[[ServedNode], Awaitable[tuple[int, str]]]
) -> None:
    """WebSocket connections and event streams count together, and each that ends makes room."""
    async with counting(**{option: 3}) as served_node, AsyncExitStack() as stack:
        wire = await stack.enter_async_context(served_node.connected())
        async with served_node.tcp() as (stream, _):
            await stream.send(STREAM)
            assert await stream.response() == 200
            assert (await status(served_node))[0] in (101, 200)
            await until(lambda: served_node.node.admission.count == 2)
            await stack.enter_async_context(served_node.connected())
            assert await status(served_node) == (503, "5")
            assert limits_reached(served_node, f"limits.{option}") == 1
        await until(lambda: served_node.node.admission.count == 2)
        assert (await status(served_node))[0] in (101, 200)
        await wire.call("presence", channel="open:1")


@pytest.mark.parametrize("status", STATUSES)
async def test_a_client_that_connects_too_often_is_told_when_to_try_again(
    status: Callable[[ServedNode], Awaitable[tuple[int, str]]],
) -> None:
    async with counting(address_connect_rate=1) as served_node:
        found = [await status(served_node) for _ in range(11)]
        assert {code for code, _ in found[:10]} <= {101, 200}
        assert found[10] == (503, "1") or found[10][0] in (101, 200)  # a second may have passed
        while found[-1][0] != 503:
            found.append(await status(served_node))
        assert found[-1] == (503, "1")


@pytest.mark.parametrize("refused_limit", [0, 1])
async def test_sockets_above_twice_the_rate_are_closed_unread(
    refused_limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few stay open for a while, so that their clients cannot connect again at once."""
    monkeypatch.setattr(refused_connections, "REFUSED_LIMIT", refused_limit)
    open_after_each: list[int] = []
    drop = RefusedConnections.drop

    def recorded_drop(refused: RefusedConnections, transport: asyncio.Transport) -> None:
        drop(refused, transport)
        open_after_each.append(len(refused))

    monkeypatch.setattr(RefusedConnections, "drop", recorded_drop)
    async with counting(address_connect_rate=1) as served_node:
        count = 0
        while not limits_reached(served_node, "limits.address_connect_rate"):
            async with served_node.tcp() as (connection, _):
                count += 1
                await connection.send(CALL)
                if count > 20:
                    await asyncio.sleep(0)
        assert count >= 21
        async with served_node.tcp() as (connection, _):
            await connection.send(CALL)
            assert await connection.read_to_end() == b""
        assert set(open_after_each) == {refused_limit}
        refused = served_node.server.refused
        await until(lambda: not len(refused) and not served_node.server.server_state.connections)


async def test_an_address_that_is_exempt_has_no_limits_of_its_own() -> None:
    limits = {"address_connection_limit": 1, "address_connect_rate": 1, "address_half_open_limit": 1}
    async with serve_node(limits=limits) as served_node, AsyncExitStack() as stack:
        for _ in range(25):
            await stack.enter_async_context(served_node.tcp())
        wires = [await stack.enter_async_context(served_node.connected()) for _ in range(3)]
        assert len(served_node.node.half_open) == 25
        for wire in wires:
            await wire.call("presence", channel="open:1")


async def test_the_address_behind_a_trusted_proxy_counts() -> None:
    """The proxy's own address does not."""
    server = {"trusted_proxies": ["127.0.0.1"]}
    limits = {"address_connection_limit": 1, "address_half_open_limit": 1}
    async with serve_node(server=server, limits=limits) as served_node, AsyncExitStack() as stack:

        async def status(address: str) -> int:
            connection, _ = await stack.enter_async_context(served_node.tcp())
            header = b"Upgrade: websocket\r\nX-Forwarded-For: %s\r\n" % address.encode()
            await connection.send(HANDSHAKE.replace(b"Upgrade: websocket\r\n", header))
            await connection.send(commands(CONNECT))
            return await connection.response()

        async def stream(address: str) -> int:
            async with (
                served_node.http(headers={"X-Forwarded-For": address}) as http,
                http.stream("GET", "/events?channel=open:1") as response,
            ):
                return response.status_code

        assert await status("198.51.100.1") == 101
        assert await status("198.51.100.1") == 503
        assert await stream("198.51.100.1") == 503
        assert await status("198.51.100.2, 198.51.100.1") == 503
        assert await stream("198.51.100.2") == 200


async def test_the_oldest_half_open_connection_is_dropped() -> None:
    """A connection with a session, or with a request that is being answered, is not half open."""
    async with counting(half_open_limit=3) as served_node, AsyncExitStack() as stack:
        wire = await stack.enter_async_context(served_node.connected())
        stream, _ = await stack.enter_async_context(served_node.tcp())
        await stream.send(STREAM)
        assert await stream.response() == 200
        idle, silent, accepted, newest = [
            (await stack.enter_async_context(served_node.tcp()))[0] for _ in range(4)
        ]
        assert await idle.read_to_end() == b""
        assert limits_reached(served_node, "limits.half_open_limit") == 1
        await silent.send(CALL)
        assert await silent.response() == 200  # idle again, and now the newest of three
        await accepted.upgrade()
        async with served_node.tcp():
            assert await newest.read_to_end() == b""
            async with served_node.tcp():
                assert not (await silent.read_to_end()).startswith(b"HTTP")
                async with served_node.tcp():
                    assert await accepted.closed() == Close(3013, "too many requests")
        await wire.call("presence", channel="open:1")
        await until(lambda: served_node.node.admission.count == 2)


async def test_a_connection_that_is_answered_before_its_body_ends_is_half_open_afterwards() -> None:
    """It is idle then, as after any other request, and may be dropped for a new one."""
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        await connection.send(b"POST /health/live HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n")
        assert await connection.read_until_responses(1) == [405]
        (http,) = served_node.server.server_state.connections
        assert isinstance(http, HttpProtocol)
        await connection.send(b"{}")
        await until(lambda: http._is_message_complete)
        assert len(served_node.node.half_open) == 1


async def test_an_address_has_its_own_limit_of_half_open_connections() -> None:
    async with counting(address_half_open_limit=2) as served_node, AsyncExitStack() as stack:
        connections = [(await stack.enter_async_context(served_node.tcp()))[0] for _ in range(3)]
        assert await connections[0].read_to_end() == b""
        for connection in connections[1:]:
            await connection.send(CALL)
            assert await connection.response() == 200
        assert limits_reached(served_node, "limits.address_half_open_limit") == 1


async def test_open_files_limit_the_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest half-open connection makes room. Without one the new socket is closed unread."""
    monkeypatch.setattr(address_limits, "socket_limit", lambda: 2)
    async with serve_node() as served_node, served_node.connected() as wire:
        async with served_node.tcp() as (first, _):
            await until(lambda: len(served_node.node.half_open) == 1)
            async with served_node.connected() as second:
                assert await first.read_to_end() == b""
                async with served_node.tcp() as (third, _):
                    assert await third.read_to_end() == b""
                await second.call("presence", channel="open:1")
        await wire.call("presence", channel="open:1")
        assert limits_reached(served_node, "limits.connection_limit") == 2


ROUNDS = 20


async def _handshake(connection: RawConnection) -> None:
    await connection.upgrade()


async def _session(connection: RawConnection) -> None:
    await connect(connection)


async def _closing(connection: RawConnection) -> None:
    await connect(connection)
    await connection.send(close_frame())
    await connection.closed()


async def _violation(connection: RawConnection) -> None:
    await connection.upgrade()
    await connection.send(commands({"id": 1, "presence": {"channel": "x"}}))
    await connection.closed()


def _sending(data: bytes) -> Callable[[RawConnection], Awaitable[None]]:
    async def send(connection: RawConnection) -> None:
        await connection.send(data)

    return send


def _answered(data: bytes) -> Callable[[RawConnection], Awaitable[None]]:
    async def call(connection: RawConnection) -> None:
        await connection.send(data)
        await connection.response()

    return call


WAYS: list[Callable[[RawConnection], Awaitable[None]]] = [
    _handshake,
    _session,
    _closing,
    _violation,
    _sending(b""),
    _sending(b"GET /"),
    _sending(b"\r\n"),
    _sending(HANDSHAKE),
    _sending(HANDSHAKE + commands(CONNECT)),
    _sending(STREAM),
    _sending(STREAM + CALL),
    _sending(CALL * 5),
    _answered(STREAM),
    _answered(STREAM.replace(b"GET", b"HEAD")),
    _answered(b"GET /events HTTP/1.1\r\nHost: here\r\n\r\n"),
    _answered(CALL),
    _answered(b"nonsense\r\n\r\n"),
    _answered(HANDSHAKE.replace(b"Version: 13", b"Version: 12")),
    _answered(HANDSHAKE.replace(b"Host:", b"Origin: https://elsewhere.example\r\nHost:")),
]
"""What a client does before it leaves."""


async def test_every_connection_is_counted_back_however_it_ends() -> None:
    limits = {"address_connect_rate": 0, "connect_rate": 0, "address_half_open_limit": 0}
    async with counting(**limits) as served_node:
        total = 0
        for number in range(ROUNDS):
            async with AsyncExitStack() as stack:
                for way in WAYS:
                    connection, writer = await stack.enter_async_context(served_node.tcp())
                    await way(connection)
                    total += 1
                    if number % 2:
                        writer.close()  # otherwise a reset, at the end
            await asyncio.sleep(0)
        assert total == len(WAYS) * ROUNDS
        await until(lambda: not any(counts(served_node)))
        await served_node.until_empty()


async def test_connections_that_the_node_closes_are_counted_back() -> None:
    async with counting() as served_node, AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(served_node.connected())
        connection, _ = await stack.enter_async_context(served_node.tcp())
        await connection.send(STREAM)
        assert await connection.response() == 200
        assert counts(served_node)[:2] == (6, 1)
        await served_node.node.drain(0, lambda: True)
        await until(lambda: not served_node.node.admission.count)


async def test_streams_that_all_leave_at_once_are_gone_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """Requests behind a stream do not keep its end from being noticed."""
    async with serve_node() as served_node:
        async with AsyncExitStack() as stack:
            writers = []
            for number in range(200):
                connection, writer = await stack.enter_async_context(served_node.tcp())
                await connection.send(STREAM + CALL * (number % 3))
                assert await connection.response() == 200
                await connection.send(CALL * (number % 5))
                writers.append(writer)
            assert len(served_node.node.state.connections) == 200
            for writer in writers:
                writer.transport.abort()
        await until(lambda: not served_node.node.state.connections)
        await served_node.until_empty()
    assert not [line for line in caplog.records if line.levelname in ("WARNING", "ERROR")]


async def test_a_quick_client_is_served_while_others_hold_half_open_connections() -> None:
    async with (
        counting(half_open_limit=20, address_connect_rate=0) as served_node,
        AsyncExitStack() as stack,
        httpx.AsyncClient(base_url=served_node.url, trust_env=False, verify=NO_TLS) as http,
    ):
        for number in range(60):
            connection, _ = await stack.enter_async_context(served_node.tcp())
            await connection.send(b"GET / HTTP/1.1\r\nX-Slow: ")
            if not number % 10:
                assert (await http.get("/health/live")).status_code == 200
                async with served_node.connected() as wire:
                    await wire.call("presence", channel="open:1")
        assert len(served_node.node.half_open) <= 20
        await asyncio.sleep(TICK)
