"""WebSockets on the raw transport: slow ones, those that leave, those that are held back, and their doors."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

import pytest
import websockets
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import House, housed, housed_secretly, new_channel, publish, trusting, until
from tests.support.raw_connection import Op, RawConnection, close_frame, commands, frame
from tests.support.timing import SOON, TICK
from tests.support.wire_client import Close
from tocsin_server import errors
from tocsin_server.core.channel import BATCH_BYTES
from tocsin_server.transports.websocket.raw import WebSocketConnection

CONNECT = {"id": 1, "connect": {}}
LIMIT = 200_000
PAYLOAD = b'"' + b"x" * 30_000 + b'"'
CLOSE_SECONDS = "tocsin_server.transports.websocket.raw.CLOSE_SECONDS"


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with housed() as house:
        yield house
        await house.empty()


@pytest.fixture
def engine() -> FaultyEngine:
    return FaultyEngine()


async def told(connection: RawConnection, messages: int) -> list[Any]:
    """The next messages, without waiting for what follows."""
    heard = []
    async for message in connection.messages():
        heard.append(message)
        if len(heard) == messages:
            break
    return heard


async def opened(connection: RawConnection, *more: Any) -> list[Any]:
    """Shake hands, connect, say more; the replies to everything."""
    await connection.upgrade()
    await connection.send(commands(CONNECT, *more))
    return await told(connection, 1 + len(more))


# --------------------------------------------------------------------------------------------- slow consumers


async def flood(house: House, slow: WebSocketConnection, news: str) -> int:
    """Publish until the slow one is given up, while another hears each before the next; the last offset."""
    async with house.connected(news) as quick:
        for number in count(1):
            await publish(house.node, news, PAYLOAD)
            assert await quick.offsets(news, 1) == [number]
            assert slow._transport.get_write_buffer_size() <= LIMIT + BATCH_BYTES
            if slow not in house.node._connections:
                assert await house.node.engine.presence.stats(news) == (1, 1), "it is gone at once"
                return (await publish(house.node, news, b"1", b"2")).offset
    raise AssertionError


async def test_who_does_not_read_is_closed_delays_nobody_and_recovers_everything() -> None:
    """At `queue_limit_bytes`: 3008, which it reads after all it was sent; then it asks for the rest."""
    news = new_channel("open")
    async with housed(client={"queue_limit_bytes": LIMIT}) as house:
        async with house.tcp(receive_buffer=8192) as (connection, _):
            subscribe = {"id": 2, "subscribe": {"channel": news}}
            _, reply = await opened(connection, subscribe)
            slow = house.peer
            last = await flood(house, slow, news)
            heard, close = [0], Close(0, "")
            async for op, payload in connection.frames():
                if op == Op.CLOSE:
                    close = Close(int.from_bytes(payload[:2]), payload[2:].decode())
                    await connection.send(frame(payload, Op.CLOSE))
                else:
                    pushes = [json.loads(line)["push"] for line in payload.split(b"\n")]
                    heard += [push["pub"]["offset"] for push in pushes if "pub" in push]
        assert close == Close(3008, "slow")
        assert heard == list(range(len(heard))), "without a hole"
        assert 0 < heard[-1] < last
        async with house.connected() as wire:
            position = {"recover": True, "offset": heard[-1], "epoch": reply["subscribe"]["epoch"]}
            result = await wire.call("subscribe", channel=news, **position)
        assert result["recovered"] is True
        missed = [publication["offset"] for publication in result["publications"]]
        assert missed == list(range(heard[-1] + 1, last + 1))
        await house.empty()


async def test_a_slow_one_that_never_reads_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its close frame waits behind what it does not read, so the connection is cut after a while."""
    monkeypatch.setattr(CLOSE_SECONDS, TICK)
    news = new_channel("open")
    async with housed(client={"queue_limit_bytes": LIMIT}) as house:
        async with house.tcp(receive_buffer=8192) as (connection, _):
            await opened(connection, {"id": 2, "subscribe": {"channel": news}})
            slow = house.peer
            await flood(house, slow, news)
            await until(lambda: not house.server.server_state.connections)
        await house.empty()


async def test_a_burst_closes_nobody_who_reads(house: House) -> None:
    """As much as may wait for a peer, published at once, arrives whole."""
    news = new_channel("log")
    async with house.connected(news) as wire:
        await asyncio.gather(*(publish(house.node, news, PAYLOAD) for _ in range(34)))
        assert await wire.offsets(news, 34) == list(range(1, 35))


# ---------------------------------------------------------------------------------------------------- leaving


async def test_a_goodbye_waits_for_the_answers(engine: FaultyEngine) -> None:
    """Whoever says what it wants and leaves is answered before the close frame is, in the order it asked."""
    gate = engine.hold("publish")
    async with housed(engine=engine) as house:
        async with house.tcp() as (connection, _):
            await opened(connection)
            wishes = [{"id": n, "publish": {"channel": "plain:bye", "data": n}} for n in (2, 3)]
            await connection.send(commands(*wishes) + close_frame(1000, b"bye"))
            await until(lambda: engine.calls["publish"])
            peer = house.peer
            assert peer._is_leaving
            assert not peer._transport.is_closing()
            gate.set()
            frames = [received async for received in connection.frames()]
        assert [json.loads(payload) for op, payload in frames if op == Op.TEXT] == [
            {"id": n, "publish": {}} for n in (2, 3)
        ]
        assert frames[-1] == (Op.CLOSE, b"\x03\xe8bye")
        await house.empty()


async def test_a_goodbye_that_is_not_waited_for_leaves_nothing(engine: FaultyEngine) -> None:
    """The connection is cut while its last wish is still with the engine."""
    gate = engine.hold("publish")
    async with housed(engine=engine) as house:
        async with house.tcp() as (connection, writer):
            await opened(connection)
            wish = {"id": 2, "publish": {"channel": "plain:bye", "data": 1}}
            await connection.send(commands(wish) + close_frame())
            await until(lambda: engine.calls["publish"])
            writer.transport.abort()
            await until(lambda: not house.node._connections)
        gate.set()
        await house.empty()


async def test_a_close_frame_that_is_not_answered_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is dropped after CLOSE_SECONDS; the session is over at once."""
    monkeypatch.setattr(CLOSE_SECONDS, 2 * TICK)
    async with housed() as house, house.tcp() as (connection, _):
        await opened(connection)
        house.node.disconnect_all(errors.FORCE_DISCONNECT)
        assert not house.node._connections
        assert [received async for received in connection.frames()] == [(Op.CLOSE, b"\r\xafforce disconnect")]
        await until(lambda: not house.server.server_state.connections)
        await house.empty()


async def test_a_close_frame_that_is_answered_ends_the_connection(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and no timer is left."""
    monkeypatch.setattr(CLOSE_SECONDS, 100 * SOON)
    async with house.tcp() as (connection, _):
        await opened(connection)
        peer = house.peer
        house.node.disconnect_all(errors.FORCE_DISCONNECT)
        assert await connection.closed() == Close(3503, "force disconnect")
        await until(lambda: not house.server.server_state.connections)
        assert peer._close_timer is not None
        assert peer._close_timer.cancelled()


async def test_nothing_is_said_after_the_close_frame(house: House) -> None:
    """Whatever the peer still says, and whatever is published."""
    news = new_channel("log")
    async with house.tcp() as (connection, _):
        await opened(connection, {"id": 2, "subscribe": {"channel": news}})
        house.node.disconnect_all(errors.FORCE_DISCONNECT)
        await publish(house.node, news, b"1")
        await connection.send(commands({"id": 3, "publish": {"channel": news, "data": 2}}))
        await connection.send(frame(b"", Op.PING))
        await connection.send(close_frame(3503))
        assert [op async for op, _ in connection.frames()] == [Op.CLOSE, Op.PONG], "no text"


# ---------------------------------------------------------------------------------------------------- reading


async def test_reading_stops_while_commands_wait_for_the_engine(engine: FaultyEngine) -> None:
    """A peer that asks faster than the engine answers fills its own buffers, not the server's memory."""
    gate = engine.hold("publish")
    async with housed(engine=engine) as house:
        async with house.tcp() as (connection, writer):
            await opened(connection)
            writer.transport.set_write_buffer_limits(0)
            wish = {"publish": {"channel": "plain:much", "data": "x" * 20_000}}
            asked = 1
            while asked < 10_000:
                asked += 1
                writer.write(commands({"id": asked, **wish}))
                try:
                    await asyncio.wait_for(writer.drain(), 3 * TICK)
                except TimeoutError:  # its writes do not get through any more
                    break
            assert asked < 10_000, "more than 200 MB, and nobody stopped it"
            assert len(house.peer.session.backlog) < 20, "no more than one read brings"
            assert engine.calls["publish"] == 1
            gate.set()
            replies = [message["id"] for message in await told(connection, asked - 1)]
            assert replies == list(range(2, asked + 1))
        await house.empty()


async def test_a_held_back_peer_that_is_lost_is_noticed(engine: FaultyEngine) -> None:
    """At the latest when there is something to tell it: nothing is left of it."""
    gate = engine.hold("publish")
    async with housed(engine=engine) as house:
        async with house.tcp() as (connection, writer):
            await opened(connection)
            wishes = [{"id": n, "publish": {"channel": "plain:lost", "data": n}} for n in (2, 3)]
            await connection.send(commands(*wishes))
            await until(lambda: engine.calls["publish"])
            writer.transport.abort()
        gate.set()
        await house.empty()


@pytest.mark.parametrize("fragment", [b"", b" "], ids=["empty", "a byte each"])
async def test_fragments_cost_no_more_than_what_is_in_them(house: House, fragment: bytes) -> None:
    """However many there are: a size is all that bounds a message, and it does not count frames."""
    many = 10_000
    pieces = frame(fragment, Op.CONTINUATION, fin=False) * many
    async with house.tcp() as (connection, _):
        await opened(connection)
        await connection.send(frame(b'{"id": 2,', fin=False) + pieces + frame(b"all?", Op.PING))
        async for received in connection.frames():
            assert received == (Op.PONG, b"all?")
            break
        assert sys.getsizeof(house.peer._fragments) < 1000 + 2 * len(fragment) * many
        await connection.send(frame(b'"presence": {"channel": "open:1"}}', Op.CONTINUATION))
        assert await told(connection, 1) == [{"id": 2, "presence": {"presence": {}}}]
        assert sys.getsizeof(house.peer._fragments) < 1000
        await connection.send(commands({"id": 3, "presence": {"channel": "open:1"}}))
        assert await told(connection, 1) == [{"id": 3, "presence": {"presence": {}}}]


# ------------------------------------------------------------------------------------------------------ pings

NATIVE = "?cf_ws_frame_ping_pong=true"
HANDSHAKE_PATH = b"GET /connection/websocket"


async def natively(connection: RawConnection) -> Any:
    """Shake hands for WebSocket's own pings, and connect; the reply."""
    request = (
        HANDSHAKE_PATH + NATIVE.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    )
    await connection.send(request)
    assert await connection.response() == 101
    await connection.send(commands(CONNECT))
    (reply,) = await told(connection, 1)
    return reply["connect"]


async def test_native_pings_keep_a_connection_that_answers_them() -> None:
    """Ping frames instead of `{}`, and the reply promises no pings of the protocol's (protocol §1)."""
    async with housed(client={"ping_interval": 8 * TICK, "pong_timeout": 7 * TICK}) as house:
        async with house.tcp() as (connection, _):
            result = await natively(connection)
            assert not {"ping", "pong"} & result.keys()
            pings = 0
            async for op, payload in connection.frames():
                assert op == Op.PING
                await connection.send(frame(payload, Op.PONG) + frame(b"unasked", Op.PONG))
                pings += 1
                if pings == 3:
                    break
        await house.empty()


async def test_native_pings_that_are_not_answered_close() -> None:
    """3012, as for those of the protocol."""
    async with housed(client={"ping_interval": 2 * TICK, "pong_timeout": TICK}) as house:
        async with house.tcp() as (connection, _):
            await natively(connection)
            assert await connection.closed() == Close(3012, "no pong")
        await house.empty()


async def test_a_pong_frame_is_no_pong_of_the_protocol() -> None:
    """Where the protocol's pings were promised, WebSocket's frames do not count."""
    short_timeouts_server = {"ping_interval": 2 * TICK, "pong_timeout": TICK}
    async with housed(client=short_timeouts_server) as house, house.tcp() as (connection, _):
        (reply,) = await opened(connection)
        assert reply["connect"]["pong"] is True
        async for op, payload in connection.frames():
            await connection.send(frame(b"", Op.PONG))
            if op == Op.CLOSE:
                await connection.send(frame(payload, Op.CLOSE))
        assert (op, payload) == (Op.CLOSE, b"\x0b\xc4no pong")


# ------------------------------------------------------------------------------------------------------- cost


async def test_no_connection_has_a_task_of_its_own(house: House) -> None:
    """Idle or written to: what a task costs, times all who are connected, is what is saved here."""
    news = new_channel("plain")
    tasks = len(asyncio.all_tasks())
    async with AsyncExitStack() as stack:
        crowd = [(await stack.enter_async_context(house.tcp()))[0] for _ in range(50)]
        subscribe = {"id": 2, "subscribe": {"channel": news}}
        await asyncio.gather(*(opened(connection, subscribe) for connection in crowd))
        await publish(house.node, news, b"1")
        for connection in crowd:
            assert await told(connection, 1) == [{"push": {"channel": news, "pub": {"data": 1}}}]
        await until(lambda: len(asyncio.all_tasks()) - tasks < len(crowd))


async def test_nothing_is_compressed(house: House) -> None:
    """Not even for who offers it: each frame is built once for all, and compressed ones are read late."""
    async with house.wire(compression="deflate") as wire:
        request, response = wire.connection.request, wire.connection.response
        assert request is not None
        assert response is not None
        assert "permessage-deflate" in request.headers["Sec-WebSocket-Extensions"]
        assert "Sec-WebSocket-Extensions" not in response.headers
        await wire.connect()


# ------------------------------------------------------------------------------------------------------ doors


@pytest.mark.parametrize("query", ["", "?format=protobuf", "?cf_protocol=protobuf"])
async def test_protobuf_is_told_that_it_is_not_spoken(house: House, query: str) -> None:
    """3506, which does not invite back."""
    offered = {} if query else {"subprotocols": ["centrifuge-protobuf"]}
    async with house.wire(query, **offered) as wire:
        assert await wire.closed() == Close(3506, "inappropriate protocol")


async def test_json_is_chosen_where_both_are_offered(house: House) -> None:
    async with house.wire(subprotocols=["centrifuge-protobuf", "centrifuge-json"]) as wire:
        assert wire.connection.subprotocol == "centrifuge-json"
        await wire.connect()


async def status_of(house: House, origin: str | None) -> int:
    """How a page of this origin is answered."""
    headers = {} if origin is None else {"Origin": origin}
    try:
        async with house.wire(additional_headers=headers):
            return 101
    except websockets.InvalidStatus as refused:
        return refused.response.status_code


async def test_pages_connect_only_from_where_they_may() -> None:
    """Globs over the origin; "self" is whoever came from the host and port that it connects to."""
    origins = ["self", "https://*.example.com"]
    async with housed(server={"allowed_origins": origins}) as house:
        here = house.url
        answers = {
            None: 101,
            here: 101,
            here.replace("http", "https"): 101,  # TLS may end before us
            "https://app.example.com": 101,
            "HTTPS://app.EXAMPLE.com": 101,
            f"http://127.0.0.1:{house.port + 1}": 403,
            f"{here}.evil.example": 403,
            "http://localhost": 403,
            "https://example.com": 403,
            "http://app.example.com": 403,
            "null": 403,
            "": 403,
        }
        for origin, status in answers.items():
            assert await status_of(house, origin) == status, origin
        await house.empty()


async def test_no_page_connects_unless_one_may() -> None:
    """Not even one that this server served: "self" has to be said."""
    async with housed() as house:
        assert await status_of(house, house.url) == 403
        assert await status_of(house, None) == 101


async def echo(websocket: WebSocket) -> None:
    """An application's own WebSocket."""
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


async def test_other_paths_are_the_applications() -> None:
    """Its own WebSockets are served by uvicorn's protocol, beside ours on one port."""
    async with housed(routes=[WebSocketRoute("/echo", echo)]) as house, house.connected() as ours:
        url = house.websocket_url.replace("/connection/websocket", "")
        async with websockets.connect(f"{url}/echo", proxy=None) as theirs:
            await theirs.send("hello")
            assert await theirs.recv() == "hello"
        for path in ("/nowhere", "/connection/websocket/more", "/connection"):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(url + path, proxy=None)
            assert refused.value.response.status_code == 403
        assert await ours.call("presence", channel=new_channel("open")) == {"presence": {}}


async def test_a_plain_request_there_is_told_what_it_lacks(house: House) -> None:
    async with house.http() as http:
        response = await http.get("/connection/websocket")
    assert response.status_code == 400


async def test_it_works_the_same_over_tls(certificate: tuple[str, str]) -> None:
    """wss: many at once, a burst, and a close that both sides say."""
    news = new_channel("log")
    async with housed_secretly(*certificate) as house:
        context = trusting(certificate[0])
        async with house.wire(ssl=context) as one, house.wire(ssl=context) as two:
            for wire in (one, two):
                await wire.connect()
                await wire.call("subscribe", channel=news)
            await publish(house.node, news, *([PAYLOAD] * 50))
            for wire in (one, two):
                assert await wire.offsets(news, 50) == list(range(1, 51))
            house.node.disconnect_all(errors.FORCE_DISCONNECT)
            assert await one.closed() == await two.closed() == Close(3503, "force disconnect")
        await house.empty()
