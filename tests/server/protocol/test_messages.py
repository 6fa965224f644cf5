"""The messages of the client protocol (protocol §2): what commands mean, and how messages are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import (
    EMPTY,
    PING,
    ClientInfo,
    Command,
    ConnectRequest,
    ConnectResult,
    ErrorBody,
    HistoryResult,
    Ping,
    PresenceChange,
    PresenceRequest,
    PresenceResult,
    PresenceStatsResult,
    Publication,
    Push,
    PushEnvelope,
    RefreshPush,
    RefreshResult,
    Reply,
    RpcResult,
    SendRequest,
    SubRefreshResult,
    SubscribePush,
    SubscribeRequest,
    SubscribeResult,
    UnsubscribePush,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "protocol.json").read_text())
"""Shared with the client."""

ADA = ClientInfo("", "c1")


def by_name(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def command(text: str) -> Command:
    (only,) = JSON.decode_commands(text.encode())
    assert isinstance(only, Command)
    return only


# --------------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize("vector", VECTORS["commands"], ids=by_name)
def test_a_command_means_the_same_as_its_vector(vector: dict[str, Any]) -> None:
    """Encoded again, it has all fields of the vector."""
    read = json.loads(msgspec.json.encode(command(vector["wire"])))
    assert read == {"id": vector["id"], vector["method"]: vector["means"]}


def test_unknown_fields_are_ignored_and_absent_ones_are_zero() -> None:
    """Clients may be newer or older than the server."""
    subscribe = command(
        '{"id":1,"subscribe":{"channel":"a","tf":{"x":[]},"delta":"fossil"},"new":0}'
    ).subscribe
    assert subscribe is not None
    assert (subscribe.channel, subscribe.recover, subscribe.offset, subscribe.epoch) == ("a", False, 0, "")


@pytest.mark.parametrize(
    ("pong", "is_pong"),
    [
        (Command(), True),
        (Command(subscribe=SubscribeRequest()), True),
        (Command(1), False),
        (Command(send=SendRequest()), False),
    ],
)
def test_a_command_without_an_id_that_is_not_send_is_a_pong(pong: Command, is_pong: bool) -> None:
    """Its other fields do not matter."""
    assert pong.is_pong is is_pong


@pytest.mark.parametrize(("flag", "refuses"), [(0, False), (1, False), (2, True), (3, True), (4, False)])
def test_flag_bit_2_refuses_a_subscription_that_cannot_recover(flag: int, refuses: bool) -> None:
    """Other bits have other meanings."""
    assert SubscribeRequest(flag=flag).refuses_unrecovered is refuses


def test_the_request_of_a_command_is_its_first_method_in_the_protocol_s_order() -> None:
    assert Command(1).request is None
    subscribe, presence = SubscribeRequest("a"), PresenceRequest("b")
    assert Command(1, presence=presence).request is presence
    assert Command(1, presence=presence, subscribe=subscribe).request is subscribe
    assert isinstance(Command(1, connect=ConnectRequest(), subscribe=subscribe).request, ConnectRequest)


# ----------------------------------------------------------------------------------------- replies and pushes


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
def test_zero_values_are_left_out_unless_clients_index_them(message: Any, line: str) -> None:
    """The key of a result is always present, and so are the code and message of an error."""
    assert JSON.encode(message) == line.encode()


@pytest.mark.parametrize("vector", VECTORS["replies"], ids=by_name)
def test_a_message_is_encoded_as_its_vector(vector: dict[str, Any]) -> None:
    """The types have every field of the vectors, and leave out none that clients index."""
    kinds = {"id": Reply, "push": PushEnvelope}
    kind = next((kinds[key] for key in vector["means"] if key in kinds), Ping)
    message: Any = msgspec.json.decode(vector["wire"], type=kind)
    assert json.loads(JSON.encode(message)) == json.loads(vector["wire"])


# ------------------------------------------------------------------------------------------------------ sizes

texts = st.text("abc", max_size=300)


@given(texts, texts, st.integers(0, 10**6), st.none() | texts, st.dictionaries(texts, texts, max_size=2))
def test_the_size_of_a_publication_is_about_that_of_its_encoding(
    channel: str, data: str, offset: int, user: str | None, tags: dict[str, str]
) -> None:
    """It need not be encoded for that. Limits of queues count it."""
    payload = Raw(json.dumps(data).encode())
    info = None if user is None else ClientInfo(user, "c" * 36, payload, payload)
    push = Push(channel, pub=Publication(payload, offset, info, tags or None))
    assert abs(push.size - len(JSON.encode_push(push))) < 100


@given(texts, texts)
def test_the_size_of_a_join_is_about_that_of_its_encoding(channel: str, user: str) -> None:
    """The size of a leave is the same."""
    change = PresenceChange(ClientInfo(user, "c" * 36))
    join = Push(channel, join=change)
    assert abs(join.size - len(JSON.encode_push(join))) < 100
    assert Push(channel, leave=change).size == join.size
