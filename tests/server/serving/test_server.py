"""Serving: several servers in one process, addresses that cannot be had, and leaving."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import uvloop

from tests.server.served_node import House, housed, listening_of, new_channel, publish, settings_of
from tests.support.event_stream import Event, EventStream, open_event_stream
from tests.support.raw_connection import commands, open_raw_websocket, open_tcp
from tests.support.server import Server, run_server
from tests.support.timing import SOON, STARTED, TICK
from tests.support.wire_client import Close, WireClient, connect_wire
from tocsin_server.app import create_app
from tocsin_server.config.options import ServerOptions
from tocsin_server.node.node import DRAIN_PAUSE_SECONDS
from tocsin_server.serving.server import GRACE_SECONDS, CannotListen, listen
from tocsin_server.serving.server import serving as serving_app

CONFIG = {
    "client": {"insecure": True},
    "api": {"insecure": True},
    "server": {"drain_seconds": 0},
    "channels": {"history_size": 10, "history_ttl": "300s", "force_recovery": True},
}


def as_server(house: House) -> Server:
    """What the harness's event streams need to know of a house: its port."""
    server = Server.__new__(Server)
    server.url = house.url
    return server


async def clients_of(house: House, stack: AsyncExitStack, channel: str) -> tuple[WireClient, EventStream]:
    """One of each kind, subscribed."""
    wire = await stack.enter_async_context(house.connected(channel))
    stream = await stack.enter_async_context(
        open_event_stream(as_server(house), f"/events?channel={channel}")
    )
    return wire, stream


async def told(stream: EventStream) -> Event:
    """The next event, whatever a stream says of itself at its beginning."""
    async with asyncio.timeout(SOON):
        while (event := await stream.next()).data is None or event.kind == "connect":
            pass
    return event


async def hear(house: House, wire: WireClient, stream: EventStream, channel: str, number: int) -> None:
    """Both clients hear what is published."""
    await publish(house.node, channel, b"%d" % number)
    assert (await wire.push("pub", channel))["data"] == number
    assert (await told(stream)).data["pub"]["data"] == number


async def test_two_servers_in_one_process_do_not_touch_each_other() -> None:
    """Both serve; one stops, its clients are sent away, and the other's hear on. Then a third starts."""
    news = new_channel("log")
    async with AsyncExitStack() as stack, housed(server={"drain_seconds": 0}) as staying:
        old = await clients_of(staying, stack, news)
        async with housed() as leaving:
            wire, stream = await clients_of(leaving, stack, news)
            await hear(staying, *old, news, 1)
            await hear(leaving, wire, stream, news, 1)
        assert await wire.closed() == Close(3001, "shutdown")
        farewell = await told(stream)
        assert (farewell.kind, farewell.data["code"]) == ("disconnect", 3001)
        with pytest.raises(ConnectionError):
            await stream.next()
        await hear(staying, *old, news, 2)
        async with housed() as third, AsyncExitStack() as more:
            await hear(third, *await clients_of(third, more, news), news, 1)
            await hear(staying, *old, news, 3)
        new = await clients_of(staying, stack, news)
        await hear(staying, *new, news, 4)
        assert staying.node.unready_reason == ""
        assert listening_of(staying.node) == {news}


async def test_a_server_can_be_started_in_a_process_again_and_again() -> None:
    """On the port of the one before, with clients of both kinds left to it when it stops."""
    port = 0
    for _ in range(3):
        app = create_app(settings_of({}))
        async with serving_app(app, ServerOptions(port=port)) as server, AsyncExitStack() as stack:
            house = House(app.state.node, server)
            port = house.port
            await hear(house, *await clients_of(house, stack, "log:again"), "log:again", 1)
            server.should_exit = True
            await house.empty()


async def test_signals_are_left_to_the_application() -> None:
    """A server inside somebody else's process takes no handler over."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with housed():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


async def test_an_address_that_is_taken_is_an_exception_not_an_exit() -> None:
    """A sentence; nothing was started, and the loop goes on."""
    app = create_app()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"^Cannot listen on 127\.0\.0\.1:{port}: [A-Z][a-z ]+\.$"):
            async with serving_app(app, ServerOptions(port=port)):
                pass
    assert app.state.node.trouble == "The node is not running."


def test_clients_that_come_all_at_once_are_accepted_several_in_a_turn_of_the_loop() -> None:
    """Those of a node that died do: one in a turn, as libuv has it, would make the last one wait for long."""
    uvloop.run(_accepted_in_few_turns(clients=80))


async def _accepted_in_few_turns(clients: int) -> None:
    async with housed() as house, AsyncExitStack() as stack:
        accepted = house.server.server_state.connections
        for _ in range(clients):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", house.port))
        turns = 0
        while len(accepted) < clients:
            assert turns < clients / 2
            turns += 1
            await asyncio.sleep(0)


def test_every_address_of_a_name_is_listened_on() -> None:
    """`localhost` may be two; if one cannot be had, the other is let go."""
    sockets = listen(ServerOptions(host="localhost", port=0))
    wanted = {found[4][0] for found in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    assert {one.getsockname()[0] for one in sockets} == wanted
    for one in sockets:
        one.close()


def test_what_is_written_leaves_at_once() -> None:
    """On any loop: nobody waits for an acknowledgement of what was written just before."""
    (listening,) = listen(ServerOptions(port=0))
    with listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# --------------------------------------------------------------------------------------- a process of its own


async def test_sigterm_sends_everybody_away_and_ends_well(tmp_path: Path) -> None:
    """Exit code 0, no traceback; WebSocket and SSE clients are told 3001, also while nobody asks anything.

    The log says how many it moved, and in how many seconds, which are not fewer than it paused.
    """
    with run_server({**CONFIG, "server": {"drain_seconds": 10}}, tmp_path) as server:
        async with AsyncExitStack() as stack:
            wire, stream = await clients_of_process(server, stack)
            server.process.send_signal(signal.SIGTERM)
            assert await wire.closed() == Close(3001, "shutdown")
            farewell = await told(stream)
            assert (farewell.kind, farewell.data["code"]) == ("disconnect", 3001)
            with pytest.raises(ConnectionError):
                await stream.next()
            assert await asyncio.to_thread(server.process.wait, STARTED) == 0
        assert "Traceback" not in server.stderr
    lines = [json.loads(line) for _, line in server.stderr_lines if line.startswith("{")]
    (line,) = (line for line in lines if line["event"] == "drained")
    assert line["connections"] == 2
    assert line["seconds"] > DRAIN_PAUSE_SECONDS / 2


async def clients_of_process(server: Server, stack: AsyncExitStack) -> tuple[WireClient, EventStream]:
    wire = await stack.enter_async_context(connect_wire(server))
    await wire.call("subscribe", channel="news")
    stream = await stack.enter_async_context(open_event_stream(server, "/events?channel=news"))
    return wire, stream


async def stuck(server: Server, stack: AsyncExitStack) -> None:
    """A request whose body never comes, and a WebSocket that answers no close frame."""
    request = await stack.enter_async_context(open_tcp(server))
    await request.send(b"POST /api/publish HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{")
    deaf = await stack.enter_async_context(open_raw_websocket(server))
    await deaf.send(commands({"id": 1, "connect": {}}))
    async for _ in deaf.messages():
        break


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Whoever keeps the first one waiting: still with exit code 0 and without a traceback."""
    with run_server(CONFIG, tmp_path) as server:
        async with AsyncExitStack() as stack:
            await stuck(server, stack)
            wire, _ = await clients_of_process(server, stack)
            server.process.send_signal(signal.SIGTERM)
            assert await wire.closed() == Close(3001, "shutdown")
            await asyncio.sleep(5 * TICK)
            assert server.process.poll() is None, "it waits for what is stuck"
            server.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.process.wait, GRACE_SECONDS / 2) == 0
        assert "Traceback" not in server.stderr


async def test_what_is_stuck_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One signal is enough, after GRACE_SECONDS; it ends as if the client had gone, which is no failure."""
    monkeypatch.setattr("tocsin_server.serving.server.GRACE_SECONDS", 3 * TICK)
    async with AsyncExitStack() as stack:
        async with housed() as house:
            await stuck(as_server(house), stack)
        assert not house.server.server_state.connections
        assert not house.server.server_state.tasks
        assert not house.server.force_exit
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_sigint_is_the_same(tmp_path: Path) -> None:
    """Ctrl-C, at any moment: also right after the start."""
    with run_server(CONFIG, tmp_path) as server:
        server.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(server.process.wait, STARTED) == 0
        assert "Traceback" not in server.stderr
