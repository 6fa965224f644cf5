"""Serving: several servers in one process, addresses in use, signals and drains."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Collection
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from tests.server.served_node import (
    ServedNode,
    new_channel,
    publish,
    serve_node,
    settings_of,
    subscribed_channels,
    until,
)
from tests.support.api import NO_TLS
from tests.support.event_stream import Event, EventStream, open_event_stream
from tests.support.raw_connection import commands, open_raw_websocket, open_tcp
from tests.support.server import Server, run_server
from tests.support.timing import SOON, STARTED, TICK
from tests.support.wire_client import Close, WireClient, connect_wire
from tocsin_server.app import create_app
from tocsin_server.config.options import ServerOptions
from tocsin_server.node.drain import PAUSE_SECONDS
from tocsin_server.serving import listening
from tocsin_server.serving.listening import CannotListen, listen
from tocsin_server.serving.server import GRACE_SECONDS
from tocsin_server.serving.server import serving as serving_app

CONFIG = {
    "client": {"insecure": True},
    "api": {"insecure": True},
    "server": {"drain_seconds": 0},
    "channels": {"history_size": 10, "history_ttl": "300s", "force_recovery": True},
}


def as_server(served_node: ServedNode) -> Server:
    """A served node as the helpers for processes need it: they use its URL."""
    server = Server.__new__(Server)
    server.url = served_node.url
    return server


async def clients_of(
    served_node: ServedNode, stack: AsyncExitStack, channel: str
) -> tuple[WireClient, EventStream]:
    """A WebSocket and an event stream, both subscribed."""
    wire = await stack.enter_async_context(served_node.connected(channel))
    stream = await stack.enter_async_context(
        open_event_stream(as_server(served_node), f"/events?channel={channel}")
    )
    return wire, stream


async def next_event(stream: EventStream) -> Event:
    """The next event after those at the beginning of a stream."""
    async with asyncio.timeout(SOON):
        while (event := await stream.next()).data is None or event.kind == "connect":
            pass
    return event


async def publish_and_receive(
    served_node: ServedNode, wire: WireClient, stream: EventStream, channel: str, number: int
) -> None:
    """Publish a number, and receive it with both clients."""
    await publish(served_node.node, channel, b"%d" % number)
    assert (await wire.push("pub", channel))["data"] == number
    assert (await next_event(stream)).data["pub"]["data"] == number


async def test_two_servers_in_one_process_are_independent() -> None:
    """One of them stops and disconnects its clients. The other one goes on, and a third starts."""
    news = new_channel("log")
    async with AsyncExitStack() as stack, serve_node(server={"drain_seconds": 0}) as staying:
        old = await clients_of(staying, stack, news)
        async with serve_node() as stopping:
            wire, stream = await clients_of(stopping, stack, news)
            await publish_and_receive(staying, *old, news, 1)
            await publish_and_receive(stopping, wire, stream, news, 1)
        assert await wire.closed() == Close(3001, "shutdown")
        last_event = await next_event(stream)
        assert (last_event.kind, last_event.data["code"]) == ("disconnect", 3001)
        with pytest.raises(ConnectionError):
            await stream.next()
        await publish_and_receive(staying, *old, news, 2)
        async with serve_node() as third, AsyncExitStack() as more:
            await publish_and_receive(third, *await clients_of(third, more, news), news, 1)
            await publish_and_receive(staying, *old, news, 3)
        new = await clients_of(staying, stack, news)
        await publish_and_receive(staying, *new, news, 4)
        assert staying.node.unready_reason == ""
        assert subscribed_channels(staying.node) == {news}


async def test_a_process_can_start_one_server_after_another() -> None:
    """Each uses the port of the one before, which stopped while it had clients."""
    port = 0
    for _ in range(3):
        app = create_app(settings_of({}))
        async with serving_app(app, ServerOptions(port=port)) as server, AsyncExitStack() as stack:
            served_node = ServedNode(app.state.node, server)
            port = served_node.port
            await publish_and_receive(
                served_node, *await clients_of(served_node, stack, "log:again"), "log:again", 1
            )
            server.should_exit = True
            await served_node.until_empty()


async def test_a_server_in_another_program_leaves_signals_alone() -> None:
    """It replaces no signal handler."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with serve_node():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


async def test_an_address_in_use_raises_an_exception() -> None:
    """Its message is a sentence. The node was not started, and the process goes on."""
    app = create_app()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"^Cannot listen on 127\.0\.0\.1:{port}: [A-Z][a-z ]+\.$"):
            async with serving_app(app, ServerOptions(port=port)):
                pass
    assert app.state.node.unready_reason == "The node is not running."


def test_one_turn_of_the_loop_accepts_several_connections() -> None:
    """All clients of a dead node reconnect at once, and libuv accepts one connection a turn."""
    uvloop.run(_accepted_in_few_turns(clients=80))


async def _accepted_in_few_turns(clients: int) -> None:
    async with serve_node() as served_node, AsyncExitStack() as stack:
        accepted = served_node.server.server_state.connections
        for _ in range(clients):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", served_node.port))
        turns = 0
        while len(accepted) < clients:
            assert turns < clients / 2
            turns += 1
            await asyncio.sleep(0)


def test_a_server_listens_on_every_address_of_a_host_name() -> None:
    """`localhost` may have two addresses."""
    sockets = listen(ServerOptions(host="localhost", port=0))
    wanted = {found[4][0] for found in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    assert {one.getsockname()[0] for one in sockets} == wanted
    for one in sockets:
        one.close()


def reached(host: str, port: int) -> bool:
    """Whether a server listens there."""
    try:
        socket.create_connection((host, port), SOON).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the machine has no IPv6")


@needs_ipv6
@pytest.mark.parametrize("host", ["::", "127.0.0.1,::1"])
def test_a_server_listens_on_both_families(host: str) -> None:
    """`::` is every address of the machine. Several hosts have one port, also if the system chooses it."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(one) for one in listen(ServerOptions(host=host, port=0))]
        port = sockets[0].getsockname()[1]
        assert reached("127.0.0.1", port)
        assert reached("::1", port)


@needs_ipv6
def test_both_addresses_of_every_family_may_be_named() -> None:
    """Then each has a socket of its own."""
    sockets = listen(ServerOptions(host="0.0.0.0,::", port=0))
    assert len(sockets) == 2
    for one in sockets:
        one.close()


async def test_a_server_listens_on_a_unix_socket(tmp_path: Path) -> None:
    """Requests and event streams work as on a port. The socket of a server that ended is replaced."""
    path = str(tmp_path / "tocsin.sock")
    for _ in range(2):
        app = create_app(settings_of({}))
        async with serving_app(app, ServerOptions(host=f"unix:{path}")) as server:
            assert server.url == f"unix:{path}"
            with pytest.raises(CannotListen, match=r"Address already in use"):
                listen(ServerOptions(host=f"unix:{path}"))
            transport = httpx.AsyncHTTPTransport(uds=path)
            async with httpx.AsyncClient(transport=transport, base_url="http://node") as http:
                assert (await http.get("/health/live")).status_code == 200
                async with http.stream("GET", "/events?channel=open:1") as stream:
                    assert stream.status_code == 200


def test_another_file_is_not_replaced_by_a_unix_socket(tmp_path: Path) -> None:
    (file := tmp_path / "notes").write_text("mine")
    with pytest.raises(CannotListen):
        listen(ServerOptions(host=f"unix:{file}"))
    assert file.read_text() == "mine"


async def test_a_server_takes_a_socket_that_another_process_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its file descriptor, or all of systemd's (LISTEN_FDS)."""
    with socket.create_server(("127.0.0.1", 0)) as passed:
        monkeypatch.setattr(listening, "FIRST_PASSED_FD", passed.fileno())
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        for host in (f"fd:{passed.fileno()}", "systemd"):
            app = create_app(settings_of({}))
            async with serving_app(app, ServerOptions(host=host)) as server:
                assert server.url == f"http://127.0.0.1:{passed.getsockname()[1]}"
                async with httpx.AsyncClient(base_url=server.url, trust_env=False, verify=NO_TLS) as http:
                    assert (await http.get("/health/live")).status_code == 200


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("fd:999", "is no socket"),
        ("systemd", "systemd passed no socket"),
        ("unix:/nowhere/a.sock", "No such"),
    ],
)
def test_a_socket_that_was_not_passed_raises_an_exception(host: str, reason: str) -> None:
    with pytest.raises(CannotListen, match=rf"^Cannot listen on {host}: .*{reason}.*\.$"):
        listen(ServerOptions(host=host))


def test_a_passed_socket_must_listen() -> None:
    with socket.socket() as idle, pytest.raises(CannotListen, match="does not listen"):
        listen(ServerOptions(host=f"fd:{idle.fileno()}"))


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option")
@pytest.mark.parametrize(("pong_timeout", "milliseconds"), [(8, 8000), (1, 5000)])
async def test_a_client_whose_network_is_gone_is_dropped_after_the_pong_timeout(
    pong_timeout: float, milliseconds: int
) -> None:
    """TCP drops a connection on which nothing is acknowledged for so long, on every transport.

    An event stream has a comment every `ping_interval`, so its client is noticed after both.
    """
    async with serve_node(client={"pong_timeout": pong_timeout}) as served_node, served_node.tcp():
        await until(lambda: served_node.server.server_state.connections)
        connections: Collection[Any] = served_node.server.server_state.connections
        (connection,) = connections
        accepted = connection._transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == milliseconds


async def test_an_idle_connection_stays_open_longer_than_those_of_proxies() -> None:
    """Otherwise a proxy's request meets a connection that is just being closed. The time can be set."""
    assert ServerOptions().keep_alive_timeout > 60
    app = create_app(settings_of({}))
    async with (
        serving_app(app, ServerOptions(port=0, keep_alive_timeout=10 * TICK)) as server,
        ServedNode(app.state.node, server).tcp() as (connection, _),
    ):
        await connection.send(b"HEAD /health/live HTTP/1.1\r\nHost: here\r\n\r\n")
        assert await connection.response() == 200
        started = asyncio.get_running_loop().time()
        assert await connection.read_to_end() == b""
        assert asyncio.get_running_loop().time() - started > 5 * TICK


def test_small_writes_are_not_delayed() -> None:
    """No write waits for the acknowledgement of the one before, on any event loop."""
    (listening,) = listen(ServerOptions(port=0))
    with listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# --------------------------------------------------------------------------------------- a process of its own


async def test_sigterm_drains_the_node_and_exits_with_0(tmp_path: Path) -> None:
    """Clients are told to reconnect (3001), also while the node is idle.

    The log has the number of connections, and the seconds of the drain, which include its pauses.
    """
    with run_server({**CONFIG, "server": {"drain_seconds": 10}}, tmp_path) as server:
        async with AsyncExitStack() as stack:
            wire, stream = await clients_of_process(server, stack)
            server.process.send_signal(signal.SIGTERM)
            assert await wire.closed() == Close(3001, "shutdown")
            last_event = await next_event(stream)
            assert (last_event.kind, last_event.data["code"]) == ("disconnect", 3001)
            with pytest.raises(ConnectionError):
                await stream.next()
            assert await asyncio.to_thread(server.process.wait, STARTED) == 0
        assert "Traceback" not in server.stderr
    lines = [json.loads(line) for _, line in server.stderr_lines if line.startswith("{")]
    (line,) = (line for line in lines if line["event"] == "drained")
    assert line["connections"] == 2
    assert line["seconds"] > PAUSE_SECONDS / 2


async def clients_of_process(server: Server, stack: AsyncExitStack) -> tuple[WireClient, EventStream]:
    wire = await stack.enter_async_context(connect_wire(server))
    await wire.call("subscribe", channel="news")
    stream = await stack.enter_async_context(open_event_stream(server, "/events?channel=news"))
    return wire, stream


async def stuck(server: Server, stack: AsyncExitStack) -> None:
    """Open a request whose body never arrives, and a WebSocket that answers no close frame."""
    request = await stack.enter_async_context(open_tcp(server))
    await request.send(b"POST /api/publish HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{")
    websocket = await stack.enter_async_context(open_raw_websocket(server))
    await websocket.send(commands({"id": 1, "connect": {}}))
    async for _ in websocket.messages():
        break


async def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    """Requests that never end cannot delay it. The exit code is 0, without a traceback."""
    with run_server(CONFIG, tmp_path) as server:
        async with AsyncExitStack() as stack:
            await stuck(server, stack)
            wire, _ = await clients_of_process(server, stack)
            server.process.send_signal(signal.SIGTERM)
            assert await wire.closed() == Close(3001, "shutdown")
            await asyncio.sleep(5 * TICK)
            assert server.process.poll() is None, "it waits for the stuck requests"
            server.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.process.wait, GRACE_SECONDS / 2) == 0
        assert "Traceback" not in server.stderr


async def test_stuck_requests_are_dropped_after_the_grace_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They end as if their clients had disconnected, which is not logged as an error."""
    monkeypatch.setattr("tocsin_server.serving.server.GRACE_SECONDS", 3 * TICK)
    async with AsyncExitStack() as stack:
        async with serve_node() as served_node:
            await stuck(as_server(served_node), stack)
        assert not served_node.server.server_state.connections
        assert not served_node.server.server_state.tasks
        assert not served_node.server.force_exit
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_sigint_drains_the_node_and_exits_with_0(tmp_path: Path) -> None:
    """Ctrl-C works at any moment, also right after the start."""
    with run_server(CONFIG, tmp_path) as server:
        server.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(server.process.wait, STARTED) == 0
        assert "Traceback" not in server.stderr
