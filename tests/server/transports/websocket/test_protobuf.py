"""Clients that speak protobuf, beside others that speak JSON, on both WebSocket transports."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from centrifuge import Client, SubscriptionEventHandler

from tests.server.served_node import Json, ServedNode, new_channel, serve_node, token_of
from tests.server.transports.hosts import application, under_uvicorn
from tests.support.protobuf_client import ProtobufClient, protobuf_client, sdk
from tests.support.refusal import Refused
from tests.support.timing import SOON
from tests.support.wire_client import Close
from tocsin_server.protocol.json import JSON, JsonCodec
from tocsin_server.protocol.protobuf.codec import PROTOBUF, ProtobufCodec

BYTES = bytes(range(256))
JSON_DATA = b'{"text":"hello"}'
NO_JSON_HERE = (107, 'bad request: data is no JSON, and publication_data_format is not "binary"')

SECTIONS: Json = {
    "namespaces": {
        "bytes": {
            **{
                f"allow_{what}_for_{who}": True
                for what in ("subscribe", "publish", "history")
                for who in ("client", "anonymous")
            },
            "history_size": 100,
            "history_ttl": "300s",
            "force_recovery": True,
            "publication_data_format": "binary",
        }
    }
}


async def echo(_user: str, params: Any) -> Any:
    """An RPC method."""
    return params


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[ServedNode]:
    async with serve_node(rpc_methods={"echo": echo}, **SECTIONS) as served:
        yield served


@asynccontextmanager
async def connected(node: ServedNode, *channels: str) -> AsyncIterator[ProtobufClient]:
    """A client after its connect command, subscribed to these channels."""
    async with protobuf_client(node.websocket_url) as client:
        await client.call("connect", name="test")
        for channel in channels:
            await client.call("subscribe", channel=channel)
        yield client


async def publish_bytes(node: ServedNode, channel: str, data: bytes) -> Json:
    """Publish over the HTTP API."""
    async with node.http() as http:
        body = {"channel": channel, "b64data": base64.b64encode(data).decode()}
        answer: Json = (await http.post("/api/publish", json=body)).json()
        return answer


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("query", "subprotocol"), [("", True), ("?format=protobuf", False), ("?cf_protocol=protobuf", True)]
)
async def test_a_client_chooses_protobuf(node: ServedNode, query: str, subprotocol: bool) -> None:
    async with protobuf_client(node.websocket_url + query, subprotocol=subprotocol) as client:
        assert client.connection.subprotocol == ("centrifuge-protobuf" if subprotocol else None)
        result = await client.call("connect")
        assert (bool(result.client), result.ping, result.pong) == (True, 25, True)


async def test_commands_of_one_frame_are_answered_in_one_frame(node: ServedNode) -> None:
    """In their order, each after its length."""
    channel = new_channel("log")
    async with protobuf_client(node.websocket_url) as client:
        await client.send(
            sdk.Command(id=1, connect={}),
            sdk.Command(id=2, subscribe={"channel": channel}),
            sdk.Command(id=3, publish={"channel": channel, "data": JSON_DATA}),
            sdk.Command(id=4, history={"channel": channel, "limit": -1}),
            sdk.Command(id=5, presence={"channel": channel}),
        )
        seen: list[Any] = []
        while not seen or seen[-1].id != 5:
            seen.append(await client.receive())
    replies = [reply for reply in seen if reply.id]
    assert [reply.id for reply in replies] == [1, 2, 3, 4, 5]
    assert replies[1].subscribe.recoverable
    assert replies[3].history.publications[0].data == JSON_DATA
    assert replies[4].error.code == 108
    (push,) = [reply.push for reply in seen if not reply.id]
    assert (push.channel, push.pub.data, push.pub.offset) == (channel, JSON_DATA, 1)
    assert push.pub.info.client == replies[0].connect.client


async def test_every_kind_of_push_and_reply_is_readable(node: ServedNode) -> None:
    channel = new_channel("open")
    async with connected(node, channel) as client, node.connected(channel) as other:
        await client.push("join")  # its own
        assert (await client.push("join")).info.client == other.client
        assert (await client.call("presence_stats", channel=channel)).num_clients == 2
        present = (await client.call("presence", channel=channel)).presence
        assert other.client in present
        assert (await client.call("rpc", method="echo", data=JSON_DATA)).data == JSON_DATA
        await client.call("publish", channel=channel, data=JSON_DATA)
        assert (await other.push("pub"))["data"] == {"text": "hello"}
        await other.call("unsubscribe", channel=channel)
        assert (await client.push("leave")).info.client == other.client
        await client.call("unsubscribe", channel=channel)
        with pytest.raises(Refused, match="102"):
            await client.call("subscribe", channel="nowhere:1")


async def test_a_client_recovers_what_it_missed(node: ServedNode) -> None:
    channel = new_channel("log")
    async with connected(node) as client:
        position = await client.call("subscribe", channel=channel)
    for number in range(3):
        await publish_bytes(node, channel, b"%d" % number)
    async with connected(node) as client:
        result = await client.call(
            "subscribe", channel=channel, recover=True, epoch=position.epoch, offset=position.offset
        )
    assert result.recovered
    assert [missed.data for missed in result.publications] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("frame", [b"", b"\x05\x08", b"\x02\x0f\x00", b'{"id":1,"connect":{}}'])
async def test_malformed_bytes_close_the_connection(node: ServedNode, frame: bytes) -> None:
    async with protobuf_client(node.websocket_url) as client:
        await client.connection.send(frame)
        assert await client.closed() == Close(3501, "bad request")


async def test_pings_are_empty_messages() -> None:
    """A client that answers none is disconnected, and one pong too many is a violation."""
    async with serve_node(client={"allow_anonymous": True, "ping_interval": 1, "pong_timeout": 0.5}) as quick:
        async with protobuf_client(quick.websocket_url) as client:
            client.answers_pings = False
            await client.call("connect")
            assert await client.closed() == Close(3012, "no pong")
            assert client.pings == 1
        async with protobuf_client(quick.websocket_url) as client:
            await client.call("connect")
            await client.connection.send(b"\x00")
            assert await client.closed() == Close(3501, "bad request")


# -------------------------------------------------------------------------------------------- binary payloads


@pytest.mark.parametrize("data", [BYTES, b"5\n", b" {}", b"\x00"])
async def test_b64data_reaches_protobuf_clients_as_bytes(node: ServedNode, data: bytes) -> None:
    """Live, in the history, and in a recovery; in the API's history as base64, unless it is JSON."""
    channel = new_channel("log")
    async with connected(node, channel) as client:
        assert (await publish_bytes(node, channel, data))["result"]["offset"] == 1
        assert (await client.push("pub")).data == data
        history = await client.call("history", channel=channel, limit=-1)
        assert [kept.data for kept in history.publications] == [data]
        result = await client.call("unsubscribe", channel=channel)
        result = await client.call("subscribe", channel=channel, recover=True, epoch=history.epoch)
        assert [missed.data for missed in result.publications] == [data]


async def test_bytes_that_are_json_reach_json_clients_on_one_line(node: ServedNode) -> None:
    """Several lines of JSON are one value."""
    channel = new_channel("log")
    async with connected(node, channel) as client, node.connected(channel) as wire:
        await publish_bytes(node, channel, b'{\n "a": 1\n}\n')
        assert (await client.push("pub")).data == b'{\n "a": 1\n}\n'
        assert (await wire.push("pub"))["data"] == {"a": 1}
        assert "\n" not in wire.frames[-1]


async def test_bytes_disconnect_json_clients_and_no_others(node: ServedNode) -> None:
    """With 3506, as the protocol has it, after everything that came before."""
    channel = new_channel("log")
    async with connected(node, channel) as client, node.connected(channel) as wire:
        await publish_bytes(node, channel, b"1")
        await publish_bytes(node, channel, BYTES)
        await publish_bytes(node, channel, b"3")
        assert [(await client.push("pub")).data for _ in range(3)] == [b"1", BYTES, b"3"]
        assert (await wire.push("pub"))["data"] == 1
        assert await wire.closed() == Close(3506, "inappropriate protocol")


@pytest.mark.parametrize("command", ["history", "subscribe"])
async def test_a_json_client_that_asks_for_bytes_is_disconnected(node: ServedNode, command: str) -> None:
    """By the replies before them, it knows which command it was."""
    channel = new_channel("log")
    await publish_bytes(node, channel, BYTES)
    async with node.connected() as wire:
        params: Json = {"limit": -1} if command == "history" else {"recover": True}
        await wire.send(
            {"id": 7, "presence_stats": {"channel": new_channel("open")}},
            {"id": 8, command: {"channel": channel, **params}},
        )
        assert (await wire.reply(7))["presence_stats"]["num_clients"] == 0
        assert await wire.closed() == Close(3506, "inappropriate protocol")


async def test_bytes_in_a_later_page_of_a_recovery_disconnect_a_json_client() -> None:
    """After the publications before them. A protobuf client gets all."""
    large, data = [b'"%d%b"' % (number, b"x" * 8000) for number in range(1, 31)], BYTES * 30
    async with serve_node(client={"allow_anonymous": True, "history_limit_bytes": 16_384}) as small:
        for one in (*large, data):
            await publish_bytes(small, "log:pages", one)
        async with protobuf_client(small.websocket_url) as client:
            await client.call("connect")
            result = await client.call("subscribe", channel="log:pages", recover=True)
            missed = [*result.publications]
            while len(missed) < 31:
                missed.append(await client.push("pub"))
            assert [one.data for one in missed] == [*large, data]
        async with small.connected() as wire:
            first = (await wire.call("subscribe", channel="log:pages", recover=True))["publications"]
            assert 0 < len(first) < 30
            for number in range(len(first) + 1, 31):
                assert (await wire.push("pub"))["offset"] == number
            assert await wire.closed() == Close(3506, "inappropriate protocol")
        await small.until_empty()


async def test_bytes_end_an_event_stream(node: ServedNode) -> None:
    """Live and in a recovery. Its last event says that the client must not come back."""
    channel = new_channel("log")
    async with node.http() as http:
        async with http.stream("GET", "/events", params={"channel": channel}) as stream:
            lines = stream.aiter_lines()
            while "event: connect" not in await anext(lines):
                pass
            await publish_bytes(node, channel, b"1")
            await publish_bytes(node, channel, BYTES)
            rest = [line async for line in lines]
        assert f'data: {{"channel":"{channel}","pub":{{"data":1,"offset":1}}}}' in rest
        assert 'data: {"code":3506,"reason":"inappropriate protocol"}' in rest
        async with http.stream("GET", "/events", params={"channel": channel, "lastEventId": "1@"}) as stream:
            assert 'data: {"code":3506,"reason":"inappropriate protocol"}' in [
                line async for line in stream.aiter_lines()
            ]


async def test_clients_publish_bytes_only_where_the_namespace_says_so(node: ServedNode) -> None:
    """Elsewhere one client could disconnect all subscribers that speak JSON."""
    ordinary, binary = new_channel("log"), new_channel("bytes")
    async with connected(node, ordinary, binary) as client:
        with pytest.raises(Refused) as refused:
            await client.call("publish", channel=ordinary, data=BYTES)
        assert (refused.value.code, refused.value.message) == NO_JSON_HERE
        await client.call("publish", channel=ordinary, data=b"1\n")
        await client.send(sdk.Command(id=90, publish={"channel": binary, "data": BYTES}))
        assert (await client.push("pub")).data == b"1\n"
        assert (await client.push("pub")).data == BYTES


async def test_methods_of_the_application_take_json(node: ServedNode) -> None:
    async with connected(node) as client:
        with pytest.raises(Refused, match="must be JSON"):
            await client.call("rpc", method="echo", data=BYTES)


async def test_the_data_of_a_subscription_may_be_bytes() -> None:
    """Of the API and of a token. A JSON client cannot be given them."""
    claims = {"subs": {"plain:1": {"b64data": base64.b64encode(BYTES).decode()}}}
    async with serve_node() as served, served.http() as http:
        async with protobuf_client(served.websocket_url) as client:
            result = await client.call("connect", token=token_of("ann", **claims))
            assert result.subs["plain:1"].data == BYTES
            body = {"user": "ann", "channel": "plain:2", "b64data": base64.b64encode(BYTES).decode()}
            assert (await http.post("/api/subscribe", json=body)).json() == {"result": {}}
            assert (await client.push("subscribe")).data == BYTES
        async with served.wire() as wire:
            await wire.send({"id": 1, "connect": {"token": token_of("ann", **claims)}})
            assert await wire.closed() == Close(3506, "inappropriate protocol")


# ------------------------------------------------------------------------------------------------ both codecs


async def test_a_publication_is_encoded_once_for_each_codec(
    node: ServedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not for a codec that no subscriber speaks."""
    encoded: list[str] = []

    def counting(codec: Any, kind: type) -> None:
        encode = codec.encode_push

        def count(_: Any, push: Any) -> Any:
            encoded.append(codec.name)
            return encode(push)

        monkeypatch.setattr(kind, "encode_push", count)

    counting(JSON, JsonCodec)
    counting(PROTOBUF, ProtobufCodec)
    channel = new_channel("log")
    async with connected(node, channel) as one, connected(node, channel) as two:
        await publish_bytes(node, channel, b"1")
        assert [(await client.push("pub")).data for client in (one, two)] == [b"1", b"1"]
        assert encoded == ["protobuf"]
        async with node.connected(channel) as three, node.connected(channel) as four:
            await publish_bytes(node, channel, b"2")
            for client in (one, two):
                await client.push("pub")
            for wire in (three, four):
                await wire.push("pub")
    assert sorted(encoded[1:]) == ["json", "protobuf"]


async def test_the_transport_over_asgi_speaks_protobuf_too() -> None:
    """Frames that wait together are joined; each message keeps its length."""
    app, node = application(**SECTIONS)
    async with under_uvicorn(app) as host:
        url = f"ws://{host.authority}/push/connection/websocket"
        async with (
            protobuf_client(url) as client,
            protobuf_client(url + "?format=protobuf", subprotocol=False) as other,
        ):
            for one in (client, other):
                await one.call("connect")
                await one.call("subscribe", channel="bytes:1")
            for number in range(50):
                await client.call("publish", channel="bytes:1", data=BYTES * number + b".")
            for number in range(50):
                assert (await other.push("pub")).data == BYTES * number + b"."
            await other.connection.send(b"\x02\x0f")
            assert await other.closed() == Close(3501, "bad request")
        assert 'transport="asgi"' in node.metrics.page().decode()


async def test_the_python_sdk_speaks_protobuf(node: ServedNode) -> None:
    """Unmodified: connect, subscribe, publish, history, and bytes."""
    received: asyncio.Queue[Any] = asyncio.Queue()

    class Events(SubscriptionEventHandler):
        async def on_publication(self, ctx: Any) -> None:
            received.put_nowait(ctx.pub)

    client = Client(node.websocket_url, use_protobuf=True)
    await client.connect()
    async with asyncio.timeout(SOON):
        await client.ready()
        subscription = client.new_subscription(new_channel("bytes"), Events())
        await subscription.subscribe()
        await subscription.ready()
        await subscription.publish(data=BYTES)
        publication = await received.get()
        history = await subscription.history(limit=-1)
    await client.disconnect()
    await asyncio.gather(*client._background_tasks, return_exceptions=True)  # closing sockets
    assert (publication.data, publication.offset) == (BYTES, 1)
    assert [kept.data for kept in history.publications] == [BYTES]
