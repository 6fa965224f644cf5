"""Hypothesis sends valid, nearly valid and invalid protobuf. The server answers, or closes with a code.

The input is the same in every run (see test_fuzz_connection).
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conformance.test_fuzz_connection import ANSWERED, CLOSED, FUZZING, commands_of
from tests.support.protobuf_client import prefixed, protobuf_client, sdk
from tests.support.server import Server
from tests.support.wire_client import Close

pytestmark = pytest.mark.usefixtures("other_clients_are_unharmed")

LAST = sdk.Command(id=1001, unsubscribe={"channel": "plain:end"}).SerializeToString()
"""A command that is always answered and changes nothing."""


def written(command: dict[str, Any]) -> bytes:
    """A command, as far as it fits the schema: other values are left out."""
    message = sdk.Command(id=command["id"])
    for method, params in command.items():
        if method != "id":
            getattr(message, method).SetInParent()
            for name, value in params.items() if isinstance(params, dict) else ():
                _set(getattr(message, method), name, value)
    encoded: bytes = message.SerializeToString()
    return encoded


def _set(request: Any, name: str, value: Any) -> None:
    if name == "data":
        request.data = repr(value).encode("utf-8", "replace")  # often no JSON
    elif name in request.DESCRIPTOR.fields_by_name:
        setattr(request, name, value)


@st.composite
def damaged(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """A message with some bytes removed, added or changed."""
    message = bytearray(draw(messages))
    at = draw(st.integers(0, len(message)))
    message[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(message)


VALID = commands_of(ANSWERED).map(written)
OTHER = commands_of({name: CLOSED[name] for name in ("connect", "refresh", "send")}).map(written)
MESSAGES = VALID | damaged(VALID | OTHER) | OTHER | st.binary(max_size=20)
FRAMES = st.lists(MESSAGES, min_size=1, max_size=4).map(lambda each: b"".join(map(prefixed, each)))


@FUZZING
@given(frames=st.lists(FRAMES | st.binary(max_size=30), max_size=4))
async def test_every_frame_is_answered_or_closes_the_connection(server: Server, frames: list[bytes]) -> None:
    """What it receives are replies and pushes that the SDK's own classes can read."""
    async with protobuf_client(server.websocket_url) as client:
        await client.call("connect")
        for frame in frames:
            await client.send_bytes(frame)
        await client.send_bytes(prefixed(LAST))
        ending = await client.reply_or_close(1001)
    assert ending is None or ending in {
        Close(3500, "invalid token"),
        Close(3501, "bad request"),
        Close(3508, "not available"),
        Close(3509, "too many errors"),
    }
