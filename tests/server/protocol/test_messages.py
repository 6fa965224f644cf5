"""The wire: what is a command, what is not, and how replies and pushes are written (protocol §1, §2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tocsin_server.protocol.json import JSON as CODEC
from tocsin_server.protocol.json import compact, replace_lone_surrogates
from tocsin_server.protocol.messages import (
    EMPTY,
    MALFORMED,
    PING,
    ClientInfo,
    Command,
    ConnectResult,
    ErrorBody,
    HistoryResult,
    Ping,
    PresenceChange,
    PresenceResult,
    PresenceStatsResult,
    Publication,
    Push,
    PushEnvelope,
    RefreshPush,
    RefreshResult,
    Reply,
    RpcResult,
    SubRefreshResult,
    SubscribePush,
    SubscribeResult,
    UnsubscribePush,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "protocol.json").read_text())
"""Shared with the client."""

JSON = st.recursive(
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
ODD: st.SearchStrategy[Any] = st.sampled_from(
    ["", "news", 0, 1, -1, 2**64, 1.5, True, None, [], {}, [{}], {"offset": 2}, "\ud800"]
)
LIKELY = st.dictionaries(
    st.just("id") | st.sampled_from(METHODS),
    st.integers(0, 9) | st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=3) | ODD,
    max_size=3,
)
"""Objects that look like commands, and often are."""


def by_name(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def decoded(message: bytes) -> list[Any]:
    return list(CODEC.decode_commands(message))


def command(text: str | bytes) -> Command:
    (only,) = decoded(text.encode() if isinstance(text, str) else text)
    assert isinstance(only, Command)
    return only


# --------------------------------------------------------------------------------------------------- commands


@given(st.binary() | LIKELY.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_raise(message: bytes) -> None:
    """Whatever a peer sends is commands, or malformed."""
    commands = decoded(message)
    assert commands
    assert all(isinstance(one, Command) for one in commands[:-1])


@given(st.lists(LIKELY.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=9), min_size=1))
def test_a_frame_says_what_its_lines_say_each_alone(lines: list[bytes]) -> None:
    """Whole = split: up to the first that makes no sense, after which nothing is read."""
    lines = [line.replace(b"\n", b" ") for line in lines]
    alone = [decoded(line + b"\n")[0] for line in lines]
    if MALFORMED in alone:
        alone = alone[: alone.index(MALFORMED) + 1]
    assert decoded(b"\n".join(lines) + b"\n") == alone


@given(LIKELY, st.sampled_from([(",", ":"), (" , ", " : "), (",\t", ":\r")]))
def test_spaces_between_tokens_mean_nothing(value: dict[str, Any], separators: tuple[str, str]) -> None:
    """SDKs differ in how they write JSON."""
    plain = json.dumps(value).encode()
    spaced = json.dumps(value, separators=separators).encode()
    assert [type(one) for one in decoded(spaced)] == [type(one) for one in decoded(plain)]


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
def test_what_makes_no_sense_is_malformed(message: bytes) -> None:
    """Wrong JSON, wrong UTF-8, wrong types, numbers out of range, nesting without end."""
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
def test_half_a_surrogate_pair_becomes_the_replacement_character(written: bytes, read: bytes) -> None:
    """JavaScript writes it for a string cut in two; whole pairs and other escapes stay as they are."""
    publish = command(b'{"id":1,"publish":{"channel":"\\ud83d","data":%s}}' % written).publish
    assert publish is not None
    assert (publish.channel, bytes(publish.data)) == ("\ufffd", read)
    assert bytes(compact(written)) == read


def test_mending_surrogates_mends_nothing_else() -> None:
    """What is wrong besides stays wrong."""
    assert decoded(rb'{"id":1,"publish":{"data":"\ud83d\x"}}')[-1] is MALFORMED
    with pytest.raises(ValueError, match=r"."):
        compact(rb'"\ud83d')


@pytest.mark.parametrize("vector", VECTORS["commands"], ids=by_name)
def test_a_command_means_what_the_vector_says(vector: dict[str, Any]) -> None:
    """All of it: written again, it is the same."""
    read = json.loads(msgspec.json.encode(command(vector["wire"])))
    assert read == {"id": vector["id"], vector["method"]: vector["means"]}


def test_nothing_is_read_behind_what_makes_no_sense() -> None:
    """The connection is over there."""
    assert [type(one) for one in decoded(b'{}\nx\n{"id":1}')] == [Command, type(MALFORMED)]


def test_one_trailing_newline_is_tolerated() -> None:
    """Some SDKs end each command with one."""
    assert [one.id for one in decoded(b'{"id":1}\n{"id":2}\n')] == [1, 2]


def test_unknown_fields_are_ignored_and_absent_ones_are_zero() -> None:
    """Clients are newer and older than we are."""
    subscribe = command(
        '{"id":1,"subscribe":{"channel":"a","tf":{"x":[]},"delta":"fossil"},"new":0}'
    ).subscribe
    assert subscribe is not None
    assert (subscribe.channel, subscribe.recover, subscribe.offset, subscribe.epoch) == ("a", False, 0, "")


@given(JSON)
def test_payloads_are_kept_as_they_were_written(value: Any) -> None:
    """Numbers, escapes and the order of keys are the application's."""
    text = json.dumps(value, separators=(", ", " :")).encode()
    publish = command(b'{"id":1,"publish":{"channel":"a","data":%s}}' % text).publish
    assert publish is not None
    assert bytes(publish.data) == text


@pytest.mark.parametrize(
    ("text", "is_pong"),
    [("{}", True), ('{"subscribe":{}}', True), ('{"id":1}', False), ('{"send":{}}', False)],
)
def test_a_command_without_an_id_that_is_not_send_is_a_pong(text: str, is_pong: bool) -> None:
    """Whatever else it carries."""
    assert command(text).is_pong is is_pong


@pytest.mark.parametrize(("flag", "refuses"), [(0, False), (1, False), (2, True), (3, True), (4, False)])
def test_flag_bit_two_refuses_what_is_not_recovered(flag: int, refuses: bool) -> None:
    """Other bits are other things."""
    subscribe = command(b'{"id":1,"subscribe":{"flag":%d}}' % flag).subscribe
    assert subscribe is not None
    assert subscribe.refuses_unrecovered is refuses


# ----------------------------------------------------------------------------------------- replies and pushes

ADA = ClientInfo("", "c1")


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (PING, "{}"),
        (Reply(3, publish=EMPTY), '{"id":3,"publish":{}}'),
        (Reply(3, unsubscribe=EMPTY), '{"id":3,"unsubscribe":{}}'),
        (Reply(3, subscribe=SubscribeResult()), '{"id":3,"subscribe":{}}'),
        (Reply(3, sub_refresh=SubRefreshResult()), '{"id":3,"sub_refresh":{}}'),
        (Reply(3, rpc=RpcResult()), '{"id":3,"rpc":{}}'),
        (Reply(3, rpc=RpcResult(Raw(b"null"))), '{"id":3,"rpc":{"data":null}}'),
        (Reply(3, refresh=RefreshResult("c1", "1")), '{"id":3,"refresh":{"client":"c1","version":"1"}}'),
        (Reply(3, error=ErrorBody(0, "")), '{"id":3,"error":{"code":0,"message":""}}'),
        (
            Reply(3, error=ErrorBody(100, "oops", temporary=True)),
            '{"id":3,"error":{"code":100,"message":"oops","temporary":true}}',
        ),
        (Reply(1, connect=ConnectResult("c1", "1")), '{"id":1,"connect":{"client":"c1","version":"1"}}'),
        (Reply(3, presence=PresenceResult({})), '{"id":3,"presence":{"presence":{}}}'),
        (
            Reply(3, presence_stats=PresenceStatsResult(0, 0)),
            '{"id":3,"presence_stats":{"num_clients":0,"num_users":0}}',
        ),
        (
            Reply(3, history=HistoryResult([], "", 0)),
            '{"id":3,"history":{"publications":[],"epoch":"","offset":0}}',
        ),
        (
            PushEnvelope(Push("a", pub=Publication(Raw(b'"x"')))),
            '{"push":{"channel":"a","pub":{"data":"x"}}}',
        ),
        (
            PushEnvelope(Push("a", pub=Publication(Raw(b"1"), 7, ADA, {"t": "v"}))),
            '{"push":{"channel":"a","pub":{"data":1,"offset":7,"info":{"user":"","client":"c1"},"tags":{"t":"v"}}}}',
        ),
        (
            PushEnvelope(Push("a", join=PresenceChange(ADA))),
            '{"push":{"channel":"a","join":{"info":{"user":"","client":"c1"}}}}',
        ),
        (
            PushEnvelope(Push("a", unsubscribe=UnsubscribePush(2000, "why"))),
            '{"push":{"channel":"a","unsubscribe":{"code":2000,"reason":"why"}}}',
        ),
        (
            PushEnvelope(Push("a", subscribe=SubscribePush())),
            '{"push":{"channel":"a","subscribe":{}}}',
        ),
        (PushEnvelope(Push(refresh=RefreshPush(True, 9))), '{"push":{"refresh":{"expires":true,"ttl":9}}}'),
    ],
)
def test_zero_values_are_left_out_but_for_those_that_clients_index(message: Any, line: str) -> None:
    """A result's own key is always there, and so is an error's code and message."""
    assert CODEC.encode(message) == line.encode()


@pytest.mark.parametrize("vector", VECTORS["replies"], ids=by_name)
def test_a_message_is_written_as_the_vector_says(vector: dict[str, Any]) -> None:
    """The types have room for everything in it, and leave nothing out that a client indexes."""
    kinds = {"id": Reply, "push": PushEnvelope}
    kind = next((kinds[key] for key in vector["means"] if key in kinds), Ping)
    message: Any = msgspec.json.decode(vector["wire"], type=kind)
    assert json.loads(CODEC.encode(message)) == json.loads(vector["wire"])


@pytest.mark.parametrize("vector", VECTORS["payloads"], ids=by_name)
def test_an_odd_payload_is_passed_on(vector: dict[str, Any]) -> None:
    """As it was written, but for half surrogates."""
    payload = vector["wire"].encode()
    publish = command(b'{"id":1,"publish":{"channel":"a","data":%s}}' % payload).publish
    assert publish is not None
    line = CODEC.encode_push(Push("a", pub=Publication(compact(publish.data))))
    assert line == b'{"channel":"a","pub":{"data":%s}}' % replace_lone_surrogates(payload)


def test_a_push_is_written_alike_alone_and_in_its_envelope() -> None:
    """The line that all peers share is the one that a single peer would get."""
    push = Push("a", pub=Publication(Raw(b"1"), 7))
    assert CODEC.wrap_push(CODEC.encode_push(push)) == CODEC.encode(PushEnvelope(push))


@given(JSON)
def test_no_message_holds_a_line_break(value: Any) -> None:
    """Both transports separate messages by line breaks, and JSON can do without them between tokens."""
    payload = json.dumps(value, indent=1).replace("\n", "\r\n").encode()
    line = CODEC.encode_push(Push("a", pub=Publication(compact(payload))))
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line)["pub"]["data"] == value


@pytest.mark.parametrize("payload", [b"", b" ", b"{", b"1 2", b"\xff", b'"\xff"', b"[" * 100_000])
def test_what_is_not_one_json_value_does_not_travel(payload: bytes) -> None:
    """ValueError, whatever is wrong with it."""
    with pytest.raises(ValueError, match=r"."):
        compact(payload)
