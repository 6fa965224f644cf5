"""Other forms of the same JSON: null for a member that is not set, and whole numbers with a fraction."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.api import types
from tocsin_server.protocol.canonical import _MOST_MEMBERS, canonical
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import MALFORMED, Command, Malformed

COMMANDS: dict[str, dict[str, Any]] = {
    "connect": {"token": "", "data": 1, "subs": {}, "name": "", "version": ""},
    "subscribe": {
        "channel": "a",
        "token": "",
        "recover": False,
        "epoch": "",
        "offset": 0,
        "positioned": False,
        "recoverable": False,
        "join_leave": False,
        "flag": 0,
        "type": 0,
    },
    "unsubscribe": {"channel": "a"},
    "publish": {"channel": "a", "data": 1},
    "presence": {"channel": "a"},
    "presence_stats": {"channel": "a"},
    "history": {"channel": "a", "limit": 0, "since": {"offset": 0, "epoch": ""}, "reverse": False},
    "rpc": {"method": "a", "data": 1},
    "send": {"data": 1},
    "refresh": {"token": ""},
    "sub_refresh": {"channel": "a", "token": ""},
}
"""Every command with all its members."""


def decoded(line: bytes) -> Command | Malformed:
    (command,) = JSON.decode_commands(line)
    return command


@pytest.mark.parametrize(
    ("method", "name"), [(method, name) for method, members in COMMANDS.items() for name in members]
)
def test_a_null_member_of_a_command_counts_as_absent(method: str, name: str) -> None:
    """In every command, and in every member."""
    with_null = decoded(json.dumps({"id": 1, method: {**COMMANDS[method], name: None}}).encode())
    assert isinstance(with_null, Command)
    request = getattr(with_null, method)
    if name != "data":  # a payload of null is a value
        assert getattr(request, name) == getattr(type(request)(), name)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"id":1,"connect":null,"refresh":{"token":null}}', b'{"id":1,"refresh":{}}'),
        (b'{"id":null,"send":{}}', b'{"send":{}}'),
        (b'{"id":2.0,"history":{"limit":1e2}}', b'{"id":2,"history":{"limit":100}}'),
        (b'{"id":1,"connect":{"subs":{"a":null}}}', b'{"id":1,"connect":{"subs":{"a":{}}}}'),
    ],
)
def test_other_forms_of_a_command_are_accepted(line: bytes, expected: bytes) -> None:
    """A null, and a whole number with a fraction or an exponent."""
    assert decoded(line) == decoded(expected)
    assert decoded(expected) is not MALFORMED


@pytest.mark.parametrize(
    "line",
    [
        b'{"id":"1","connect":{}}',
        b'{"id":1.5,"connect":{}}',
        b'{"id":1e400,"connect":{}}',
        b'{"id":1e999999999,"connect":{}}',
        b'{"id":1,"connect":{"token":[null]}}',
        b'{"id":1,"connect":{"name":5,"x":' + b"[" * 100_000,
        b'{"id":"x","publish":{"data":' + b'{"a":' * 100_000,
        b"null",
    ],
    ids=lambda line: line[:40].decode(),
)
def test_a_wrong_type_stays_malformed(line: bytes) -> None:
    """No other exception is raised, and no number is changed."""
    assert decoded(line) is MALFORMED


def test_a_payload_is_not_changed() -> None:
    """Its nulls and its numbers belong to the application."""
    command = decoded(b'{"id":1.0,"publish":{"channel":"a","data":{"x":null,"y":1.0}}}')
    assert isinstance(command, Command)
    assert command.publish is not None
    assert bytes(command.publish.data) == b'{"x":null,"y":1.0}'


REQUESTS: list[tuple[type[msgspec.Struct], dict[str, Any]]] = [
    (types.PublishRequest, {"channel": "a", "data": 1}),
    (types.BroadcastRequest, {"channels": ["a"], "data": 1}),
    (types.ChannelRequest, {"channel": "a"}),
    (types.HistoryRequest, {"channel": "a"}),
    (types.ChannelsRequest, {}),
    (types.DisconnectRequest, {"user": "a"}),
    (types.UnsubscribeRequest, {"user": "a"}),
    (types.SubscribeRequest, {"user": "a", "channel": "a"}),
    (types.RefreshRequest, {"user": "a"}),
    (types.RpcRequest, {"method": "a"}),
    (types.BatchRequest, {"commands": []}),
]


@pytest.mark.parametrize(("kind", "required"), REQUESTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_null_member_of_a_request_counts_as_absent(
    kind: type[msgspec.Struct], required: dict[str, Any]
) -> None:
    """All optional members at once."""
    optional = {field.encode_name: None for field in msgspec.structs.fields(kind) if not field.required}
    text = canonical(json.dumps({**optional, **required}).encode(), kind)
    request = msgspec.json.decode(text, type=kind)
    plain = msgspec.json.decode(json.dumps(required), type=kind)
    for field in msgspec.structs.fields(kind):
        if "data" not in field.name and "info" not in field.name and field.name != "params":
            assert getattr(request, field.name) == getattr(plain, field.name)


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(),
        lambda v: (
            st.lists(v)
            | st.dictionaries(
                st.sampled_from(
                    ["id", "connect", "subs", "token", "history", "since", "offset", "publish", "data"]
                ),
                v,
            )
        ),
    )
)
def test_the_canonical_form_is_final(value: Any) -> None:
    """The canonical form of it is itself, so that decoding is tried twice at most."""
    once = canonical(json.dumps(value).encode(), Command)
    assert canonical(once, Command) == once


def test_an_object_with_too_many_named_entries_is_not_repaired() -> None:
    """It is refused as it was written, instead of taking the time."""
    for count, is_repaired in ((_MOST_MEMBERS, True), (_MOST_MEMBERS + 1, False)):
        subs = {f"{number}": {"offset": 1.0} for number in range(count)}
        text = msgspec.json.encode({"id": 1, "connect": {"subs": subs}})
        assert (b"1.0" not in canonical(text, Command)) is is_repaired
