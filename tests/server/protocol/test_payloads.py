"""Payloads: which bytes are JSON on one line, and what a JSON client can be given of the others."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import Publication, Push, PushEnvelope, Reply, RpcResult
from tocsin_server.protocol.payloads import Binary, PayloadNotJson, is_json, json_of, payload_of


@given(st.binary(min_size=1, max_size=20) | st.integers().map(lambda number: b" %d\n" % number))
def test_every_byte_of_a_payload_is_kept(data: bytes) -> None:
    payload = payload_of(data)
    assert bytes(payload) == data
    if isinstance(payload, Raw):
        assert b"\n" not in data
        assert json_of(payload) is payload


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"1\n", b"1"), (b' {"a":\r\n1}', b'{"a":1}'), (rb'"\ud83d"', rb'"\ufffd"'), (b"[1, 2]", b"[1, 2]")],
)
def test_bytes_that_are_json_are_encoded_on_one_line(data: bytes, text: bytes) -> None:
    payload = payload_of(data)
    assert is_json(payload)
    assert bytes(json_of(payload)) == text
    push = Push("news", pub=Publication(payload))
    assert JSON.encode_push(push) == b'{"channel":"news","pub":{"data":%b}}' % text


@pytest.mark.parametrize("data", [b"\xff", b"{", b"1 2", b"\x00", b'{"a":1}\x00'])
def test_other_bytes_cannot_be_encoded_as_json(data: bytes) -> None:
    """In no kind of message, and never as something else."""
    payload = payload_of(data)
    assert not is_json(payload)
    push = Push("news", pub=Publication(payload))
    with pytest.raises(PayloadNotJson):
        JSON.encode_push(push)
    for message in (PushEnvelope(push), Reply(1, rpc=RpcResult(payload))):
        with pytest.raises(PayloadNotJson):
            JSON.encode(message)


def test_an_encoder_that_does_not_know_binary_payloads_refuses_them() -> None:
    """It writes base64 for plain bytes."""
    with pytest.raises(TypeError):
        msgspec.json.encode(Binary(b"1"))
