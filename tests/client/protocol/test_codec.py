"""Commands, replies and frames, checked by the vectors that the server's tests use too."""

import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin.errors import BadProtocol
from tocsin.protocol import codec, messages
from tocsin.protocol.messages import Reply, RpcRequest

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "protocol.json").read_text())
REQUESTS = {
    "connect": messages.ConnectRequest,
    "subscribe": messages.SubscribeRequest,
    "unsubscribe": messages.ChannelRequest,
    "publish": messages.PublishRequest,
    "presence": messages.ChannelRequest,
    "history": messages.HistoryRequest,
    "rpc": messages.RpcRequest,
    "refresh": messages.RefreshRequest,
    "sub_refresh": messages.RefreshRequest,
}


def by_name(vector: dict[str, Any]) -> str:
    return str(vector["name"])


@pytest.mark.parametrize("vector", VECTORS["commands"], ids=by_name)
def test_a_command_is_encoded_as_in_the_vector(vector: dict[str, Any]) -> None:
    request: Any = msgspec.convert(vector["means"], REQUESTS[vector["method"]])
    [frame] = codec.encode_frames([codec.build_command(vector["id"], vector["method"], request)])
    assert json.loads(frame) == json.loads(vector["wire"])


@pytest.mark.parametrize("vector", VECTORS["replies"], ids=by_name)
def test_a_reply_is_decoded_as_in_the_vector(vector: dict[str, Any]) -> None:
    [reply] = codec.decode_replies(vector["wire"])
    assert reply == msgspec.convert(vector["means"], Reply)


@pytest.mark.parametrize("vector", VECTORS["payloads"], ids=by_name)
def test_an_unusual_payload_reaches_the_caller(vector: dict[str, Any]) -> None:
    """A payload that RFC 8259 allows never closes the connection."""
    [reply] = codec.decode_replies(
        f'{{"push":{{"channel":"a","pub":{{"data":{vector["wire"]},"offset":1}}}}}}'
    )
    assert reply.push is not None
    assert reply.push.pub is not None
    assert reply.push.pub.data == json.loads(vector["wire"])
    assert reply.push.pub.offset == 1


def test_deep_nesting_is_decoded_with_its_offset() -> None:
    depth = 50_000
    deep = "[" * depth + "]" * depth
    [reply] = codec.decode_replies(f'{{"push":{{"channel":"a","pub":{{"data":{deep},"offset":7}}}}}}')
    assert reply.push is not None
    assert reply.push.pub is not None
    assert reply.push.pub.offset == 7


def test_a_message_carries_several_objects_and_one_may_end_it() -> None:
    replies = list(codec.decode_replies('{"id":1,"publish":{}}\n{}\n{"push":{"channel":"a"}}\n'))
    assert [reply.id for reply in replies] == [1, 0, 0]
    assert [reply.is_ping for reply in replies] == [False, True, False]
    assert list(codec.split_frame(b'{"id":1,"publish":{}}')) == ['{"id":1,"publish":{}}']


@pytest.mark.parametrize("frame", ["<html>", "{", '{"id":-1.5}', '{"push":3}', "nul", '{"id":1}x', "[1"])
def test_a_frame_of_another_protocol_is_bad_protocol(frame: str) -> None:
    with pytest.raises(BadProtocol):
        list(codec.decode_replies(frame))


def test_commands_are_joined_up_to_the_size_of_a_frame() -> None:
    """A frame is half of the size that a server accepts. Many commands are sent in several frames."""
    commands = [codec.build_command(n, "rpc", RpcRequest("m", "x" * 1000)) for n in range(1, 101)]
    frames = codec.encode_frames(commands)
    assert 1 < len(frames) < 10
    assert all(len(frame) <= codec.FRAME_BYTES for frame in frames)
    lines = [json.loads(line) for frame in frames for line in frame.split("\n")]
    assert [line["id"] for line in lines] == list(range(1, 101))
    assert len(codec.encode_frames([codec.build_command(1, "rpc", RpcRequest("m", "x" * 99_999))])) == 1


@given(st.text() | st.binary())
def test_an_arbitrary_frame_raises_only_bad_protocol(frame: str | bytes) -> None:
    with contextlib.suppress(BadProtocol):
        for part in codec.split_frame(frame):
            list(codec.decode_replies(part))


def test_a_payload_of_the_caller_is_encoded_where_it_is_given() -> None:
    """Dataclasses and strings with lone surrogates are. A value that JSON cannot hold raises at once."""
    assert bytes(codec.encode_payload({"a": [1, "ö"]})) == '{"a":[1,"ö"]}'.encode()
    assert bytes(codec.encode_payload("\ud800")) == b'"\\ud800"'
    assert bytes(codec.encode_payload(messages.RpcRequest("\ud800"))) == b'{"method":"\\ud800"}'
    with pytest.raises(TypeError):
        codec.encode_payload(object())
