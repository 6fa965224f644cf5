"""The body of requests to back ends is that of Centrifugo's documentation."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from msgspec import Raw

from tests.server.hooks.proxy.events import CLIENT, client_request, events_of
from tocsin_server.hooks.events import ClientRequest, ConnectEvent, HookKind, RpcEvent
from tocsin_server.hooks.proxy.requests import request_body
from tocsin_server.protocol.payloads import Binary, PayloadNotJson

BASE = {"client": CLIENT, "transport": "websocket", "protocol": "json", "encoding": "json"}
CHAT = {**BASE, "user": "56", "channel": "chat:index"}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (HookKind.CONNECT, {**BASE, "name": "js", "data": {"a": 1}, "channels": ["news"]}),
        (HookKind.REFRESH, {**BASE, "user": "56"}),
        (HookKind.SUBSCRIBE, {**CHAT, "data": {"a": 1}}),
        (HookKind.SUB_REFRESH, CHAT),
        (HookKind.PUBLISH, {**CHAT, "data": {"a": 1}}),
        (HookKind.RPC, {**BASE, "user": "56", "method": "price", "data": {"a": 1}}),
    ],
)
def test_each_event_has_its_members(kind: HookKind, expected: dict[str, Any]) -> None:
    assert json.loads(request_body(events_of()[kind], is_binary=False)) == expected


def test_what_a_client_does_not_say_is_left_out() -> None:
    event = ConnectEvent(client=CLIENT, request=client_request())
    assert json.loads(request_body(event, is_binary=False)) == BASE
    rpc = RpcEvent(client=CLIENT, user="", method="", request=client_request())
    assert json.loads(request_body(rpc, is_binary=False)) == {**BASE, "user": ""}


@pytest.mark.parametrize("data", [Binary(b"\xff\x00"), Raw(b'{"a":1}')])
def test_with_binary_encoding_payloads_are_in_base64(data: Binary | Raw) -> None:
    for kind in (HookKind.CONNECT, HookKind.SUBSCRIBE, HookKind.PUBLISH, HookKind.RPC):
        body = json.loads(request_body(events_of(data=data)[kind], is_binary=True))
        assert body["encoding"] == "binary"
        assert base64.b64decode(body["b64data"]) == bytes(data)
        assert "data" not in body


def test_json_of_a_protobuf_client_is_written_as_json() -> None:
    """A protobuf client may have written it on several lines."""
    request = ClientRequest("websocket", "protobuf", "192.0.2.1", {}, {})
    event = events_of(request=request, data=Binary(b'{\n"a": 1}'))[HookKind.PUBLISH]
    assert json.loads(request_body(event, is_binary=False)) == {
        **CHAT,
        "protocol": "protobuf",
        "data": {"a": 1},
    }


def test_data_that_is_no_json_needs_binary_encoding() -> None:
    with pytest.raises(PayloadNotJson):
        request_body(events_of(data=Binary(b"\xff"))[HookKind.PUBLISH], is_binary=False)
