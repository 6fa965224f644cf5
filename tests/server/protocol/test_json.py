"""The JSON codec (protocol §1): which bytes are commands, and how messages are encoded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.json_text import _MOST_ESCAPES, compact, replace_lone_surrogates
from tocsin_server.protocol.messages import (
    MALFORMED,
    PONG,
    Command,
    Publication,
    Push,
    PushEnvelope,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "protocol.json").read_text())
"""Shared with the client."""

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=8,
)
METHODS = (
    "connect",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_stats",
    "history",
    "rpc",
    "send",
    "refresh",
    "sub_refresh",
    "ping",
)
FIELDS = (
    "channel",
    "token",
    "data",
    "recover",
    "offset",
    "epoch",
    "subs",
    "limit",
    "since",
    "reverse",
    "flag",
)
UNUSUAL: st.SearchStrategy[Any] = st.sampled_from(
    ["", "news", 0, 1, -1, 2**64, 1.5, True, None, [], {}, [{}], {"offset": 2}, "\ud800"]
)
LIKELY = st.dictionaries(
    st.just("id") | st.sampled_from(METHODS),
    st.integers(0, 9) | st.dictionaries(st.sampled_from(FIELDS), UNUSUAL, max_size=3) | UNUSUAL,
    max_size=3,
)
"""Objects that resemble commands, and often are valid ones."""


def by_name(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def decoded(message: bytes) -> list[Any]:
    return list(JSON.decode_commands(message))


def command(text: str | bytes) -> Command:
    (only,) = decoded(text.encode() if isinstance(text, str) else text)
    assert isinstance(only, Command)
    return only


# --------------------------------------------------------------------------------------------------- commands


@given(st.binary() | LIKELY.map(lambda value: json.dumps(value).encode()))
def test_every_message_decodes_to_commands_or_malformed(message: bytes) -> None:
    """No bytes raise an exception."""
    commands = decoded(message)
    assert commands
    assert all(isinstance(decoded_command, Command) for decoded_command in commands[:-1])


@given(st.lists(LIKELY.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=9), min_size=1))
def test_a_frame_decodes_as_its_lines_do_separately(lines: list[bytes]) -> None:
    """Up to the first malformed one, after which the codec stops."""
    lines = [line.replace(b"\n", b" ") for line in lines]
    separately = [decoded(line + b"\n")[0] for line in lines]
    if MALFORMED in separately:
        separately = separately[: separately.index(MALFORMED) + 1]
    assert decoded(b"\n".join(lines) + b"\n") == separately


@given(LIKELY, st.sampled_from([(",", ":"), (" , ", " : "), (",\t", ":\r")]))
def test_spaces_between_tokens_have_no_meaning(value: dict[str, Any], separators: tuple[str, str]) -> None:
    """SDKs differ in how they write JSON."""
    plain = json.dumps(value).encode()
    spaced = json.dumps(value, separators=separators).encode()
    assert [type(decoded_command) for decoded_command in decoded(spaced)] == [
        type(decoded_command) for decoded_command in decoded(plain)
    ]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\n",
        b"{}\n\n",
        b"\n{}",
        b"{} {}",
        b"[]",
        b"null",
        b"{",
        b'{"id":1,}',
        b"\xef\xbb\xbf{}",
        b"\xff",
        b'{"id":1,"publish":{"data":"\xff"}}',
        b'{"id":1,"publish":{"data":"\xed\xa0\x80"}}',
        b'{"id":1,"publish":{"data":"a\tb"}}',
        b'{"id":1,"publish":{"data":01}}',
        b'{"id":1,"publish":{"data":NaN}}',
        b'{"id":1,"publish":{"data":[1,]}}',
        b'{"id":-1}',
        b'{"id":4294967296}',
        b'{"id":"1"}',
        b'{"id":1.5}',
        b'{"id":true}',
        b'{"id":1,"subscribe":{"channel":1}}',
        b'{"id":1,"subscribe":{"channel":"a","offset":-1}}',
        b'{"id":1,"subscribe":{"channel":"a","offset":9223372036854775808}}',
        b'{"id":1,"subscribe":{"channel":"a","recover":1}}',
        b'{"id":1,"history":{"channel":"a","limit":2147483648}}',
        b'{"id":1,"connect":[]}',
        b'{"id":1,"zz":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id":1,"publish":{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"id":1,"publish":{"data":' + b'{"a":' * 100_000,
    ],
)
def test_invalid_messages_are_malformed(message: bytes) -> None:
    """Invalid JSON, invalid UTF-8, wrong types, numbers out of range, deep nesting."""
    assert decoded(message)[-1] is MALFORMED


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb'"\ud83d"', rb'"\ufffd"'),
        (rb'"\uDE00\uD83D"', rb'"\ufffd\ufffd"'),
        (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"'),
        (rb'"\ud83d\ud83d\ude00\ude00"', rb'"\ufffd\ud83d\ude00\ufffd"'),
        (rb'"\\ud83d \ud83d"', rb'"\\ud83d \ufffd"'),
        (rb'{"\ud83d":"\u0041\n"}', rb'{"\ufffd":"\u0041\n"}'),
    ],
)
def test_a_lone_surrogate_becomes_the_replacement_character(written: bytes, read: bytes) -> None:
    """JavaScript writes one for a string that was cut in two. Pairs and other escapes stay unchanged."""
    publish = command(b'{"id":1,"publish":{"channel":"\\ud83d","data":%s}}' % written).publish
    assert publish is not None
    assert (publish.channel, bytes(publish.data)) == ("\ufffd", read)
    assert bytes(compact(written)) == read


def test_replacing_surrogates_does_not_hide_other_errors() -> None:
    """A message that is invalid besides stays malformed."""
    assert decoded(rb'{"id":1,"publish":{"data":"\ud83d\x"}}')[-1] is MALFORMED
    with pytest.raises(ValueError, match=r"."):
        compact(rb'"\ud83d')


def test_decoding_stops_at_a_malformed_line() -> None:
    """The connection is closed there."""
    assert [type(decoded_command) for decoded_command in decoded(b'{}\nx\n{"id":1}')] == [
        Command,
        type(MALFORMED),
    ]


def test_one_trailing_newline_is_tolerated() -> None:
    """Some SDKs end each command with one."""
    assert [decoded_command.id for decoded_command in decoded(b'{"id":1}\n{"id":2}\n')] == [1, 2]


@given(values)
def test_payloads_are_kept_byte_for_byte(value: Any) -> None:
    """Numbers, escapes and the order of keys belong to the application."""
    text = json.dumps(value, separators=(", ", " :")).encode()
    publish = command(b'{"id":1,"publish":{"channel":"a","data":%s}}' % text).publish
    assert publish is not None
    assert bytes(publish.data) == text


# ----------------------------------------------------------------------------------------- replies and pushes


@pytest.mark.parametrize("vector", VECTORS["payloads"], ids=by_name)
def test_an_unusual_payload_is_passed_on(vector: dict[str, Any]) -> None:
    """As it was written, except for lone surrogates."""
    payload = vector["wire"].encode()
    publish = command(b'{"id":1,"publish":{"channel":"a","data":%s}}' % payload).publish
    assert publish is not None
    line = JSON.encode_push(Push("a", pub=Publication(compact(publish.data))))
    assert line == b'{"channel":"a","pub":{"data":%s}}' % replace_lone_surrogates(payload)


def test_a_wrapped_push_equals_an_encoded_envelope() -> None:
    """Shared pushes are encoded first and wrapped later; those of one client are encoded at once."""
    push = Push("a", pub=Publication(Raw(b"1"), 7))
    assert JSON.wrap_push(JSON.encode_push(push)) == JSON.encode(PushEnvelope(push))


@given(values)
def test_no_message_contains_a_line_break(value: Any) -> None:
    """Every transport separates messages by line breaks; JSON allows them only between tokens."""
    payload = json.dumps(value, indent=1).replace("\n", "\r\n").encode()
    line = JSON.encode_push(Push("a", pub=Publication(compact(payload))))
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line)["pub"]["data"] == value


@pytest.mark.parametrize("payload", [b"", b" ", b"{", b"1 2", b"\xff", b'"\xff"', b"[" * 100_000])
def test_a_payload_that_is_not_one_json_value_is_refused(payload: bytes) -> None:
    """With ValueError, for every kind of error."""
    with pytest.raises(ValueError, match=r"."):
        compact(payload)


def test_a_text_with_too_many_escapes_is_not_repaired() -> None:
    """Replacing half surrogates takes time in proportion to the escapes, and no honest text has so many."""
    repaired = rb"\ud800" + rb"\n" * (_MOST_ESCAPES - 1)
    assert replace_lone_surrogates(repaired) == rb"\ufffd" + rb"\n" * (_MOST_ESCAPES - 1)
    text = repaired + rb"\n"
    assert replace_lone_surrogates(text) == text


def test_the_lines_of_a_message_are_decoded_one_at_a_time() -> None:
    """What follows is not even looked at until it is needed."""
    commands = JSON.decode_commands(b'{"id":1,"presence":{"channel":"a"}}\nnonsense\n{}')
    assert isinstance(next(commands), Command)
    assert list(commands) == [MALFORMED]


@pytest.mark.parametrize(
    ("message", "kinds"),
    [
        (b"", [MALFORMED]),
        (b"\n", [MALFORMED]),
        (b"{}", [PONG]),
        (b"{}\n", [PONG]),
        (b"{}\n{}", [PONG, PONG]),
        (b"{}\n\n", [PONG, MALFORMED]),
        (b"\n{}", [MALFORMED]),
    ],
)
def test_a_message_is_divided_at_its_line_breaks(message: bytes, kinds: list[object]) -> None:
    """One at its end is tolerated."""
    assert list(JSON.decode_commands(message)) == kinds
