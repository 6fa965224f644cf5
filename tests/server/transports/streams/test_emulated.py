"""`/connection/http_stream` and `/connection/sse` with `/emulation`, over sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.server.served_node import ServedNode, new_channel, publish, serve_node, until
from tests.server.transports.streams.stream_client import CONNECT, streaming
from tests.support.protobuf_client import messages_in, prefixed, sdk
from tocsin_server import errors
from tocsin_server.core.events import ServerDisconnect

ORIGIN = "https://app.example"
SUBSCRIBE = '{"id":2,"subscribe":{"channel":"%s"%s}}'
both = pytest.mark.parametrize("kind", ["http_stream", "sse"])


@pytest.fixture
async def served() -> AsyncIterator[ServedNode]:
    async with serve_node(server={"allowed_origins": [ORIGIN]}) as served:
        yield served


@both
async def test_commands_go_to_emulation_and_replies_come_on_the_stream(served: ServedNode, kind: str) -> None:
    channel = new_channel("log")
    async with streaming(served, kind) as client:
        assert client.status == 200
        assert "connection: close" in client.head
        assert "x-accel-buffering: no" in client.head
        assert "cache-control: no-store" in client.head
        result = await client.connected()
        assert result["node"] == served.node.uid
        assert result["pong"] is True
        reply = await client.call(2, subscribe={"channel": channel})
        assert reply["id"] == 2
        position = await publish(served.node, channel, b'{"a":1}', b"2")
        assert [(await client.next())["push"]["pub"]["data"] for _ in range(2)] == [{"a": 1}, 2]
        history = await client.call(3, history={"channel": channel, "limit": 1})
        assert history["history"]["offset"] == position.offset
    await served.until_empty()
    assert not len(served.node.emulated_sessions)


@both
async def test_the_request_may_have_several_commands(served: ServedNode, kind: str) -> None:
    commands = CONNECT + '\n{"id":2,"subscribe":{"channel":"news"}}'
    async with streaming(served, kind, commands, method="POST") as client:
        assert (await client.next())["id"] == 1
        assert (await client.next())["id"] == 2


@both
async def test_a_client_that_leaves_is_noticed_at_once(served: ServedNode, kind: str) -> None:
    """Nothing is written to it meanwhile."""
    async with streaming(served, kind, CONNECT + '\n{"id":2,"subscribe":{"channel":"news"}}') as client:
        await client.connected()
        await client.next()
        session = client.session
    await served.until_empty()
    async with served.http() as http:
        body = {"session": session, "node": served.node.uid, "data": '{"id":3,"rpc":{}}'}
        assert (await http.post("/emulation", json=body)).status_code == 404


@both
async def test_a_disconnect_is_the_last_message(served: ServedNode, kind: str) -> None:
    async with streaming(served, kind) as client:
        await client.connected()
        (connection,) = served.node.state.connections
        served.node.handle_event(connection, ServerDisconnect(errors.FORCE_DISCONNECT))
        why = {"code": 3503, "reason": "force disconnect"}
        assert await client.rest() == [{"push": {"disconnect": why}}]


@both
async def test_an_invalid_token_is_a_disconnect(served: ServedNode, kind: str) -> None:
    """An SDK reads its code from the stream; of a status it reads nothing."""
    async with streaming(served, kind, '{"id":1,"connect":{"token":"x"}}') as client:
        assert client.status == 200
        (message,) = await client.rest()
        assert message["push"]["disconnect"]["code"] == 3500


async def test_a_refused_command_has_its_error(served: ServedNode) -> None:
    async with streaming(served, "http_stream") as client:
        await client.connected()
        reply = await client.call(2, subscribe={"channel": "unknown:1"})
        assert reply["error"]["code"] == errors.UNKNOWN_CHANNEL.code


@both
async def test_a_client_that_reconnects_recovers(served: ServedNode, kind: str) -> None:
    channel = new_channel("log")
    async with streaming(served, kind, CONNECT + "\n" + SUBSCRIBE % (channel, "")) as client:
        await client.connected()
        epoch = (await client.next())["subscribe"]["epoch"]
    await publish(served.node, channel, b"1", b"2")
    since = f',"recover":true,"offset":0,"epoch":"{epoch}"'
    async with streaming(served, kind, CONNECT + "\n" + SUBSCRIBE % (channel, since)) as client:
        await client.connected()
        result = (await client.next())["subscribe"]
        assert result["recovered"] is True
        assert [publication["data"] for publication in result["publications"]] == [1, 2]


@both
async def test_pings_are_answered_through_emulation(kind: str) -> None:
    """A ping that is not answered ends the connection."""
    pings = {"ping_interval": "1s", "pong_timeout": "900ms"}
    async with serve_node(client=pings) as served, streaming(served, kind) as client:
        await client.connected()
        assert await client.next() == {}
        assert (await client.post({})).status_code == 204
        first, second = await client.rest()
        assert first == {}
        assert second["push"]["disconnect"]["code"] == errors.NO_PONG.code


async def test_a_slow_client_is_disconnected(served_slowly: ServedNode) -> None:
    channel = new_channel("log")
    commands = CONNECT + "\n" + SUBSCRIBE % (channel, "")
    async with streaming(served_slowly, "http_stream", commands, receive_buffer=4096) as client:
        await client.connected()
        payload = b'"' + b"x" * 60_000 + b'"'
        for _ in range(200):
            await publish(served_slowly.node, channel, payload)
            if not served_slowly.node.hub.channels:
                break
        await until(lambda: not served_slowly.node.hub.channels)
        messages = await client.rest()
        assert messages[-1]["push"]["disconnect"]["code"] == errors.SLOW.code
        offsets = [message["push"]["pub"]["offset"] for message in messages[1:-1]]
        assert offsets == list(range(1, len(offsets) + 1))


@pytest.fixture
async def served_slowly() -> AsyncIterator[ServedNode]:
    async with serve_node(client={"queue_limit_bytes": 300_000}) as served:
        yield served


async def test_messages_are_in_order_while_a_client_pauses(served: ServedNode) -> None:
    """Some are written at once, others wait until the client reads."""
    channel = new_channel("log")
    commands = CONNECT + "\n" + SUBSCRIBE % (channel, "")
    async with streaming(served, "http_stream", commands, receive_buffer=4096) as client:
        await client.connected()
        await client.next()
        for number in range(40):
            await publish(served.node, channel, b'"%d %b"' % (number, b"x" * 20_000))
        await until(lambda: served.queued_bytes > 0)
        for number in range(40):
            data: Any = (await client.next())["push"]["pub"]["data"]
            assert data.split(" ")[0] == str(number)
        await until(lambda: served.queued_bytes == 0)
        await publish(served.node, channel, b'"last"')
        assert (await client.next())["push"]["pub"]["data"] == "last"


async def test_a_client_of_http_1_0_gets_the_body_without_chunks(served: ServedNode) -> None:
    async with streaming(served, "http_stream", version="1.0") as client:
        assert "transfer-encoding" not in client.head
        line = await client._reader.readline()
        assert b'"connect"' in line
        await publish(served.node, "news", b"1")


async def test_http_stream_speaks_protobuf(served: ServedNode) -> None:
    """Its commands come to `/emulation` in protobuf, too. Subscribers in JSON get the same publication."""
    channel = new_channel("log")
    connect = prefixed(sdk.Command(id=1, connect=sdk.ConnectRequest()).SerializeToString())
    subscribe = prefixed(
        sdk.Command(id=2, subscribe=sdk.SubscribeRequest(channel=channel)).SerializeToString()
    )
    headers = {"Content-Type": "application/octet-stream"}
    async with (
        served.http() as http,
        served.connected(channel) as other,
        http.stream("POST", "/connection/http_stream", content=connect, headers=headers) as response,
    ):
        assert response.headers["content-type"] == "application/octet-stream"
        chunks = response.aiter_raw()
        (reply,) = [sdk.Reply.FromString(message) for message in messages_in(await anext(chunks))]
        request = sdk.EmulationRequest(
            session=reply.connect.session, node=reply.connect.node, data=subscribe
        ).SerializeToString()
        assert (await http.post("/emulation", content=request, headers=headers)).status_code == 204
        (reply,) = [sdk.Reply.FromString(message) for message in messages_in(await anext(chunks))]
        assert (reply.id, reply.HasField("subscribe")) == (2, True)
        await publish(served.node, channel, b'{"a":1}')
        (reply,) = [sdk.Reply.FromString(message) for message in messages_in(await anext(chunks))]
        assert (reply.push.channel, reply.push.pub.data) == (channel, b'{"a":1}')
        assert (await other.push("pub", channel))["data"] == {"a": 1}
        served.node.disconnect_all(errors.FORCE_DISCONNECT)
        (reply,) = [sdk.Reply.FromString(message) for message in messages_in(await anext(chunks))]
        assert (reply.push.disconnect.code, reply.push.disconnect.reason) == (3503, "force disconnect")


@pytest.mark.parametrize(
    ("kind", "method", "commands", "headers", "status"),
    [
        ("sse", "POST", CONNECT, "Content-Type: application/octet-stream\r\n", 415),
        ("sse", "GET", "", "", 400),
        ("http_stream", "POST", "", "", 400),
        ("http_stream", "GET", CONNECT, "", 405),
        ("sse", "HEAD", CONNECT, "", 405),
        ("http_stream", "POST", "x" * 600_000, "", 413),
        ("http_stream", "POST", CONNECT, "Origin: https://evil.example\r\n", 403),
        ("http_stream", "POST", CONNECT, "Content-Encoding: gzip\r\n", 415),
    ],
)
async def test_a_request_that_is_no_stream_has_a_status(
    served: ServedNode, kind: str, method: str, commands: str, headers: str, status: int
) -> None:
    with capture_logs() as lines:
        async with streaming(served, kind, commands, method=method, headers=headers) as client:
            assert client.status == status
    assert not served.node.state.connections
    if status != 405:
        (line,) = [line for line in lines if line["event"] == "request_refused"]
        assert line["status"] == status


@both
async def test_pages_of_allowed_origins_may_connect(served: ServedNode, kind: str) -> None:
    async with served.http() as http:
        headers = {"Origin": ORIGIN, "Access-Control-Request-Headers": "content-type, traceparent"}
        response = await http.options(f"/connection/{kind}", headers=headers)
        assert response.status_code == 204
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["access-control-allow-credentials"] == "true"
        assert "POST" in response.headers["access-control-allow-methods"]
        assert "traceparent" in response.headers["access-control-allow-headers"]
    async with streaming(served, kind, headers=f"Origin: {ORIGIN}\r\n") as client:
        assert f"access-control-allow-origin: {ORIGIN}" in client.head


@both
async def test_connections_are_counted_at_the_limits_of_addresses(kind: str) -> None:
    limits = {"exempt_addresses": [], "address_connection_limit": 1}
    async with serve_node(limits=limits) as served:
        async with streaming(served, kind) as first:
            await first.connected()
            async with streaming(served, kind) as second:
                assert second.status == 503
                assert "retry-after:" in second.head
        await until(lambda: served.node.admission.count == 0)
        async with streaming(served, kind) as third:
            assert third.status == 200


@both
async def test_a_client_that_sends_no_connect_command_is_disconnected(served: ServedNode, kind: str) -> None:
    async with streaming(served, kind, '{"id":1,"subscribe":{"channel":"news"}}') as client:
        (message,) = await client.rest()
        assert message["push"]["disconnect"]["code"] == errors.PROTOCOL_VIOLATION.code


@both
async def test_a_draining_node_disconnects_its_clients_and_takes_no_new_ones(
    served: ServedNode, kind: str
) -> None:
    async with streaming(served, kind) as client:
        await client.connected()
        await served.node.drain(0, lambda: False)
        (message,) = await client.rest()
        assert message["push"]["disconnect"]["code"] == errors.SHUTDOWN.code
    async with streaming(served, kind) as client:
        assert client.status == 503


async def test_the_transports_can_be_turned_off() -> None:
    async with serve_node(client={"http_stream": False, "sse": False}) as served, served.http() as http:
        for path in ("/connection/http_stream", "/connection/sse", "/emulation"):
            assert (await http.post(path, content=CONNECT)).status_code == 404


async def test_metrics_name_the_transports(served: ServedNode) -> None:
    async with streaming(served, "http_stream") as first, streaming(served, "sse") as second:
        await first.connected()
        await second.connected()
        page = served.node.metrics.page().decode()
        assert 'transport="http_stream"} 1.0' in page
        assert 'transport="emulated_sse"} 1.0' in page
