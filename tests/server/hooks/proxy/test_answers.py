"""What back ends answer, as Centrifugo's documentation shows it, and what is malformed."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tocsin_server.core.tokens import Flag, Override
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.hooks.answers import (
    EXPIRED,
    Answer,
    Connected,
    Published,
    Refreshed,
    RpcAnswer,
    Subscribed,
)
from tocsin_server.hooks.events import HookKind
from tocsin_server.hooks.outcomes import REASON_BYTES
from tocsin_server.hooks.proxy.answers import read_answer
from tocsin_server.hooks.proxy.faults import ProxyFault
from tocsin_server.protocol.payloads import Binary

PERMITS: dict[HookKind, Answer] = {
    HookKind.CONNECT: Connected(),
    HookKind.REFRESH: Refreshed(),
    HookKind.SUBSCRIBE: Subscribed(),
    HookKind.SUB_REFRESH: Refreshed(),
    HookKind.PUBLISH: Published(),
    HookKind.RPC: RpcAnswer(),
}
REFRESHES = (HookKind.REFRESH, HookKind.SUB_REFRESH)


def answer(kind: HookKind, value: Any) -> Answer:
    return read_answer(kind, 200, json.dumps(value).encode())


def fault(kind: HookKind, body: bytes, status: int = 200) -> str:
    with pytest.raises(ProxyFault) as raised:
        read_answer(kind, status, body)
    return str(raised.value)


@pytest.mark.parametrize("kind", HookKind)
def test_an_empty_result_permits_what_was_asked(kind: HookKind) -> None:
    assert answer(kind, {"result": {}}) == PERMITS[kind]


@pytest.mark.parametrize("kind", HookKind)
def test_null_and_unknown_members_count_as_missing(kind: HookKind) -> None:
    result = {"info": None, "data": None, "expire_at": None, "user": None, "meta": {"a": 1}, "new": [1]}
    assert answer(kind, {"result": result, "error": None, "disconnect": None, "x": 1}) == PERMITS[kind]


@pytest.mark.parametrize("kind", HookKind)
def test_without_a_result_a_connect_is_not_decided_and_a_refresh_has_expired(kind: HookKind) -> None:
    expected = {HookKind.CONNECT: None, HookKind.REFRESH: EXPIRED, HookKind.SUB_REFRESH: EXPIRED}
    assert answer(kind, {}) == expected.get(kind, PERMITS[kind])


def test_a_connect_result_says_who_connects_and_to_what() -> None:
    found = answer(
        HookKind.CONNECT,
        {
            "result": {
                "user": "56",
                "expire_at": 1565436268,
                "info": {"name": "Alexander"},
                "data": {"greeting": 1},
                "channels": ["news", "chat:index"],
                "subs": {"chat:index": {"data": [1], "override": {"presence": {"value": True}}}},
                "caps": [{"channels": ["n:*"], "allow": ["sub"]}],
            }
        },
    )
    assert isinstance(found, Connected)
    assert (found.user, found.expire_at) == ("56", 1565436268)
    assert bytes(found.info) == b'{"name": "Alexander"}'
    assert bytes(found.data) == b'{"greeting": 1}'
    assert list(found.subscriptions) == ["news", "chat:index"]
    assert found.subscriptions["news"] == Subscribed()
    assert found.subscriptions["chat:index"].override == Override(presence=Flag(value=True))
    assert found.capabilities[0].channels == ("n:*",)


def test_a_subscribe_result_says_with_what() -> None:
    found = answer(HookKind.SUBSCRIBE, {"result": {"info": 1, "data": {}, "expire_at": 5, "allow": ["pub"]}})
    assert isinstance(found, Subscribed)
    assert (bytes(found.info), bytes(found.data), found.expire_at) == (b"1", b"{}", 5)
    assert found.allow == ("pub",)


def test_a_publish_result_may_replace_the_data() -> None:
    found = answer(HookKind.PUBLISH, {"result": {"data": {"b": 2}, "skip_history": True}})
    assert isinstance(found, Published)
    assert (bytes(found.data), found.skip_history) == (b'{"b": 2}', True)


@pytest.mark.parametrize(
    ("result", "expected"),
    [({"data": {"x": [1]}}, b'{"x": [1]}'), ({"b64data": "/wA="}, b"\xff\x00"), ({"b64data": "MQ=="}, b"1")],
)
def test_an_rpc_result_is_json_or_bytes(result: dict[str, Any], expected: bytes) -> None:
    found = answer(HookKind.RPC, {"result": result})
    assert isinstance(found, RpcAnswer)
    assert isinstance(found.data, Raw if expected != b"\xff\x00" else Binary)
    assert bytes(found.data) == expected


def test_base64_has_priority_over_json() -> None:
    found = answer(
        HookKind.SUBSCRIBE, {"result": {"info": 1, "b64info": "Mg==", "data": 1, "b64data": "Mg=="}}
    )
    assert isinstance(found, Subscribed)
    assert (bytes(found.info), bytes(found.data)) == (b"2", b"2")


@pytest.mark.parametrize("kind", REFRESHES)
def test_a_refresh_prolongs_or_ends(kind: HookKind) -> None:
    found = answer(kind, {"result": {"expire_at": 1565436268, "info": {"a": 1}}})
    assert isinstance(found, Refreshed)
    assert (found.expire_at, bytes(found.info), found.is_expired) == (1565436268, b'{"a": 1}', False)
    assert answer(kind, {"result": {"expired": True, "expire_at": 5}}) == EXPIRED
    assert answer(kind, {"error": {"code": 1000}}) == EXPIRED


@pytest.mark.parametrize("kind", HookKind)
def test_a_disconnect_has_priority_over_all_else(kind: HookKind) -> None:
    value = {"disconnect": {"code": 4500, "reason": "gone"}, "error": {"code": 1000}, "result": {}}
    assert answer(kind, value) == Disconnect(4500, "gone")
    assert answer(kind, {"disconnect": {"code": 4000}}) == Disconnect(4000, "disconnected by the application")


def test_a_long_reason_is_cut_to_what_a_close_frame_holds() -> None:
    found = answer(HookKind.RPC, {"disconnect": {"code": 4000, "reason": "ü" * 200}})
    assert isinstance(found, Disconnect)
    assert found.reason == "ü" * (REASON_BYTES // 2)


@pytest.mark.parametrize("kind", [kind for kind in HookKind if kind not in REFRESHES])
def test_an_error_refuses_with_its_own_code(kind: HookKind) -> None:
    assert answer(kind, {"error": {"code": 1000, "message": "custom"}}) == Refusal(1000, "custom")
    assert answer(kind, {"error": {"code": 403, "temporary": True}}) == Refusal(403, "", temporary=True)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "Input data was truncated"),
        (b"<html>login</html>", "JSON is malformed"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"result":[]}', "Expected `object | null`, got `array` - at `$.result`"),
        (b'{"result":{"user":56}}', "Expected `str | null`, got `int` - at `$.result.user`"),
        (b'{"result":{"expire_at":"soon"}}', "at `$.result.expire_at`"),
        (b'{"result":{"channels":"news"}}', "at `$.result.channels`"),
        (b'{"result":{"subs":[]}}', "at `$.result.subs`"),
        (b'{"result":{"b64info":"!"}}', "b64info is not base64"),
        (b'{"result":{"b64info":"/w=="}}', "b64info is not JSON in base64"),
        (b'{"error":{"code":0}}', "the code of an error must be from 400 to 1999, not 0"),
        (b'{"error":{"code":"403"}}', "at `$.error.code`"),
        (b'{"error":{"message":"no"}}', "missing required field `code`"),
        (b'{"disconnect":{"code":200}}', "the code of a disconnect must be from 4000 to 4999, not 200"),
        (b'{"result":{}}}', "trailing characters"),
    ],
)
def test_a_malformed_answer_is_a_fault_that_says_where(body: bytes, reason: str) -> None:
    assert reason in fault(HookKind.CONNECT, body)


@pytest.mark.parametrize("status", [201, 204, 302, 401, 404, 500, 503])
def test_only_status_200_is_an_answer(status: int) -> None:
    assert fault(HookKind.RPC, b'{"result":{}}', status) == f"it answered with status {status}"


def test_a_fault_has_nothing_of_the_payload() -> None:
    for body in (b'{"result":{"user":["secret"]}}', b'{"result":{"b64data":"secret!"}}', b'{"secret'):
        assert "secret" not in fault(HookKind.CONNECT, body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = ["user", "info", "b64info", "data", "b64data", "channels", "subs", "expire_at", "caps"]


def _result(members: dict[str, Any]) -> bytes:
    return json.dumps({"result": members}).encode()


@given(
    st.sampled_from(HookKind),
    st.binary() | st.text().map(str.encode) | st.dictionaries(st.sampled_from(MEMBERS), JSON).map(_result),
)
def test_any_bytes_are_an_answer_or_a_fault(kind: HookKind, body: bytes) -> None:
    """No other error is raised."""
    with suppress(ProxyFault):
        read_answer(kind, 200, body)
