"""The body of a request to `/emulation`: exactly what is accepted, and why the rest is refused."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.transports.emulation.envelope import body_limit, read_envelope
from tocsin_server.transports.http_request import RequestRefused

UID = "0b4c2b5a-9d8f-4c57-a6d1-2f7f4c1e9a10"


@given(st.text(min_size=1, max_size=50).filter(lambda text: text.isprintable()))
def test_commands_arrive_as_they_were_sent(data: str) -> None:
    for ascii_only in (True, False):
        body = json.dumps({"node": UID, "session": "s", "data": data}, ensure_ascii=ascii_only)
        envelope = read_envelope(body.encode(), 1000)
        assert (envelope.session, envelope.node, envelope.commands) == ("s", UID, data.encode())


def test_an_unknown_member_is_ignored_and_the_node_may_be_missing() -> None:
    envelope = read_envelope(b'{"session":"s","data":"{}","new":[1]}', 10)
    assert envelope == ("s", "", b"{}")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"session":"s"}',
        b'{"session":"s","data":{}}',
        b'{"session":1,"data":"{}"}',
        b'{"session":"s","data":"{}","node":7}',
        b'{"session":"s","data":"\\ud800"}',
        b'{"session":"s","data":"\xff"}',
        b'{"session":"s","data":"{}"} x',
        b"[" * 100_000,
    ],
)
def test_a_body_of_another_form_is_refused(body: bytes) -> None:
    with pytest.raises(RequestRefused) as raised:
        read_envelope(body, 10)
    assert raised.value.status == 400


def test_a_request_without_commands_is_refused() -> None:
    with pytest.raises(RequestRefused, match="no commands"):
        read_envelope(b'{"session":"s","data":""}', 10)


def test_commands_have_exactly_as_many_bytes_as_a_message_may_have() -> None:
    """They always fit into the largest body, however `JSON.stringify` escapes them."""
    for character in ('"', "\\", "a", "é"):
        data = character * (1000 // len(character.encode()))
        body = json.dumps({"session": "s" * 32, "node": UID, "data": data}, ensure_ascii=False).encode()
        assert len(body) <= body_limit(1000)
        assert read_envelope(body, 1000).commands == data.encode()
        with pytest.raises(RequestRefused, match="999 bytes") as raised:
            read_envelope(body, 999)
        assert raised.value.status == 413


@pytest.mark.parametrize(
    ("node", "is_uid"),
    [(UID, True), (UID.upper(), False), ("", False), (f"{UID}\n", False), ("*", False), ("{a}", False)],
)
def test_only_a_uid_names_a_node(node: str, is_uid: bool) -> None:
    body = json.dumps({"session": "s", "node": node, "data": "{}"}).encode()
    assert read_envelope(body, 10).names_node is is_uid


def field(number: int, value: bytes) -> bytes:
    """A field of protobuf with a length."""
    size, length = len(value), b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + value


def message(session: bytes = b"s", node: bytes = UID.encode(), data: bytes = b"{}") -> bytes:
    """An `EmulationRequest`, as the SDK encodes it."""
    return field(1, node) + field(2, session) + field(3, data)


@given(st.binary(min_size=1, max_size=100_000))
def test_commands_in_protobuf_arrive_as_they_were_sent(data: bytes) -> None:
    assert read_envelope(message(data=data), 100_000, is_protobuf=True) == ("s", UID, data)


def test_unknown_fields_are_skipped_and_the_last_value_counts() -> None:
    body = field(9, b"new") + message(data=b"old") + field(3, b"{}")
    assert read_envelope(body, 10, is_protobuf=True) == ("s", UID, b"{}")


def test_what_the_sdk_encodes_is_read() -> None:
    """`EmulationRequest.encode({session: "a", node: "b", data: [1, 255]})` of centrifuge 5.8."""
    encoded = bytes.fromhex("0a0162" + "120161" + "1a0201ff")
    assert read_envelope(encoded, 10, is_protobuf=True) == ("a", "b", b"\x01\xff")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"\x0a",
        b"\x0a\x05abc",
        b"\x08\x01",
        b"\xff" * 20,
        b"\x1a" + b"\xff" * 9 + b"\x01",
        field(2, b"\xff") + field(3, b"{}"),
    ],
)
def test_a_body_that_is_not_protobuf_is_refused(body: bytes) -> None:
    with pytest.raises(RequestRefused, match="EmulationRequest") as raised:
        read_envelope(body, 10, is_protobuf=True)
    assert raised.value.status == 400


@given(st.binary(max_size=200), st.booleans())
def test_no_body_is_an_error_of_the_node(body: bytes, is_protobuf: bool) -> None:
    with contextlib.suppress(RequestRefused):
        read_envelope(body, 100, is_protobuf=is_protobuf)
