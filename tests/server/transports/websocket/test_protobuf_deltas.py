"""Deltas and tags filters in protobuf: as bytes, beside clients that speak JSON."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from centrifuge import Client, DeltaType, PublicationContext, SubscriptionEventHandler

from tests.server.served_node import Json, ServedNode, new_channel, serve_node
from tests.support.fossil import apply_delta
from tests.support.protobuf_client import protobuf_client
from tests.support.refusal import Refused
from tests.support.timing import SOON

SECTIONS: Json = {
    "namespaces": {
        "deltas": {
            "allow_subscribe_for_client": True,
            "allow_subscribe_for_anonymous": True,
            "history_size": 100,
            "history_ttl": "300s",
            "force_recovery": True,
            "publication_data_format": "binary",
            "allowed_delta_types": ["fossil"],
            "delta_publish": True,
            "allow_tags_filter": True,
        }
    }
}
NO_TEXT = bytes(range(256))

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[ServedNode]:
    async with serve_node(**SECTIONS) as served:
        yield served


async def publish(node: ServedNode, channel: str, *payloads: bytes, **members: Any) -> None:
    async with node.http() as http:
        for data in payloads:
            body = {"channel": channel, "b64data": base64.b64encode(data).decode(), **members}
            assert "result" in (await http.post("/api/publish", json=body)).json()


def binary(number: int) -> bytes:
    """A payload that is no text, and resembles the one before."""
    return NO_TEXT + b"%d" % number + NO_TEXT


def document(number: int) -> bytes:
    return json.dumps({"text": "Äpfel und Birnen " * 4, "n": number}, ensure_ascii=False).encode()


async def test_a_delta_of_bytes_is_bytes(node: ServedNode) -> None:
    """Any bytes. The first publication is whole, and so are recovered ones."""
    channel = new_channel("deltas")
    async with protobuf_client(node.websocket_url) as client:
        await client.call("connect")
        result = await client.call("subscribe", channel=channel, delta="fossil")
        assert result.delta
        await publish(node, channel, *map(binary, range(1, 4)))
        pushes = [await client.push("pub") for _ in range(3)]
        assert [push.delta for push in pushes] == [False, True, True]
        assert all(len(push.data) < 40 for push in pushes[1:])
        base = pushes[0].data
        for number, push in enumerate(pushes[1:], start=2):
            base = apply_delta(base, push.data)
            assert base == binary(number)
        await client.call("unsubscribe", channel=channel)
        position = {"recover": True, "offset": 1, "epoch": result.epoch}
        back = await client.call("subscribe", channel=channel, delta="fossil", **position)
        assert [(missed.data, missed.delta) for missed in back.publications] == [
            (binary(2), False),
            (binary(3), False),
        ]


async def test_clients_of_both_codecs_get_deltas_of_the_same_publications(node: ServedNode) -> None:
    """Each in the way of its codec."""
    channel = new_channel("deltas")
    async with protobuf_client(node.websocket_url) as client, node.connected() as other:
        await client.call("connect")
        await client.call("subscribe", channel=channel, delta="fossil")
        assert (await other.call("subscribe", channel=channel, delta="fossil"))["delta"]
        await publish(node, channel, *map(document, range(1, 5)))
        one = two = b""
        for number in range(1, 5):
            push, json_push = await client.push("pub"), await other.push("pub")
            assert push.delta is json_push.get("delta", False) is (number > 1)
            text = json_push["data"].encode()
            one = apply_delta(one, push.data) if push.delta else push.data
            two = apply_delta(two, text) if number > 1 else text
            assert json.loads(one) == json.loads(two) == json.loads(document(number))


async def test_the_python_sdk_applies_deltas_in_protobuf(node: ServedNode) -> None:
    """Its application gets the published bytes."""
    channel = new_channel("deltas")
    received: asyncio.Queue[bytes] = asyncio.Queue()
    subscribed = asyncio.Event()

    class Handler(SubscriptionEventHandler):
        async def on_subscribed(self, ctx: Any) -> None:
            subscribed.set()

        async def on_publication(self, ctx: PublicationContext) -> None:
            await received.put(ctx.pub.data)

    sdk = Client(node.websocket_url, use_protobuf=True, proxy=None)
    async with asyncio.timeout(SOON):
        await sdk.connect()
        await sdk.new_subscription(channel, Handler(), delta=DeltaType.FOSSIL).subscribe()
        await subscribed.wait()
        payloads = [*map(binary, range(5)), NO_TEXT[::-1], *map(document, range(5))]
        await publish(node, channel, *payloads)
        assert [await received.get() for _ in payloads] == payloads
    await sdk.disconnect()
    await asyncio.gather(*sdk._background_tasks, return_exceptions=True)  # closing sockets


async def test_a_tags_filter_in_protobuf(node: ServedNode) -> None:
    """It leaves publications out; one that is not valid is refused."""
    channel = new_channel("deltas")
    async with protobuf_client(node.websocket_url) as client:
        await client.call("connect")
        leaf = {"key": "kind", "cmp": "in", "vals": ["a", "b"]}
        with pytest.raises(Refused, match="107"):
            await client.call("subscribe", channel=channel, tf={"op": "not", "nodes": [leaf, leaf]})
        result = await client.call("subscribe", channel=channel, tf={"op": "not", "nodes": [leaf]})
        assert not result.delta
        for number, kind in enumerate("abcabc"):
            await publish(node, channel, binary(number), tags={"kind": kind})
        pushes = [await client.push("pub") for _ in range(2)]
        assert [(push.data, push.offset) for push in pushes] == [(binary(2), 3), (binary(5), 6)]
