"""The JSON body with which a back end is asked about an event, as Centrifugo's HTTP proxy writes it (pure).

    {"client": "9336a229…", "transport": "websocket", "protocol": "json", "encoding": "json", "user": "56",
     "channel": "chat:index", "data": {"input": "hello"}}

Optional members without a value are left out. With `is_binary`, `data` is in base64, in the member `b64data`.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from tocsin_server.hooks.events import (
    ConnectEvent,
    Event,
    PublishEvent,
    RpcEvent,
    SubRefreshEvent,
    SubscribeEvent,
)
from tocsin_server.protocol.payloads import json_of

_encode = msgspec.json.Encoder().encode


def request_body(event: Event, *, is_binary: bool) -> bytes:
    """Return the body of the request about an event.

    Raises PayloadNotJson if the client's data is no JSON and the request would have to write it as JSON.
    """
    body: dict[str, Any] = {
        "client": event.client,
        "transport": event.request.transport,
        "protocol": event.request.protocol,
        "encoding": "binary" if is_binary else "json",
    }
    if isinstance(event, ConnectEvent):
        given = (("name", event.name), ("version", event.version), ("channels", event.channels))
        body |= {name: value for name, value in given if value}
    else:
        body["user"] = event.user
    if isinstance(event, SubscribeEvent | PublishEvent | SubRefreshEvent):
        body["channel"] = event.channel
    if isinstance(event, RpcEvent) and event.method:
        body["method"] = event.method
    if isinstance(event, ConnectEvent | SubscribeEvent | PublishEvent | RpcEvent) and event.data:
        if is_binary:
            body["b64data"] = base64.b64encode(bytes(event.data)).decode()
        else:
            body["data"] = json_of(event.data)
    return _encode(body)
