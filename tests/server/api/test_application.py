"""Requests before their method runs: paths, bodies and types, and the two error modes."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.server.api.conftest import KEY, Served, served
from tocsin_server.api.methods import METHODS
from tocsin_server.errors import EngineError

pytestmark = pytest.mark.asyncio(loop_scope="module")

Name = Callable[[str], str]

TRANSPORT = {"X-Centrifugo-Error-Mode": "transport"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/api", "/api/publish", "/api/batch"])
async def test_calls_must_be_post_requests(api: Served, method: str, path: str) -> None:
    """Any other method is 405, with the allowed one in a header."""
    response = await api.http.request(method, path)
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/api/", "/api/nothing", "/api/publish/", "/api/user/ban", "/api/openapi"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_other_paths_are_not_found(api: Served, method: str, path: str) -> None:
    """Methods of Centrifugo's commercial edition are also 404."""
    assert (await api.http.request(method, path)).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b'"text"',
        b"null",
        b'{"channel":"a","data":}',
        b'{"channel":"a","data":1} x',
        b'{"channel":1,',
        b"\xff\xfe",
        b'{"channel":"a","data":"\xff"}',
        b'{"channel":"a","data":NaN}',
        b"[" * 100_000,
        b'{"channel":"a","data":' + b"[" * 400_000,
        b'{"data":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    ids=lambda body: repr(body[:30]),
)
@pytest.mark.parametrize("path", ["/api/publish", "/api"])
async def test_a_body_that_is_no_json_object_is_a_400_with_a_sentence(
    api: Served, path: str, body: bytes
) -> None:
    """The sentence says whether it is broken, no object, not UTF-8 or nested too deeply."""
    response = await api.post(path, body)
    assert (response.status_code, response.headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
    assert response.text.startswith("The request's body is not ")
    assert response.text.endswith(".")


@pytest.mark.parametrize("payload", ['"data":%s', '"data":0,"tags":{"a":%s}', '"data":0,"other":%s'])
async def test_deep_nesting_is_never_an_internal_error(api: Served, payload: str) -> None:
    """At every depth the response blames the request, and is never error 100.

    Python bounds the depth, each version at another one. The steps of a request come to that bound one
    after the other, at depths that differ by less than a hundred.
    """

    async def outcome(depth: int) -> tuple[int, int | None]:
        body = '{"channel":"a",%s}' % (payload % ("[" * depth + "]" * depth))
        response = await api.post("/api/publish", body.encode())
        code = response.json().get("error", {}).get("code") if response.status_code == 200 else None
        return response.status_code, code

    accepted, refused = 500, 100_000
    assert await outcome(accepted) != (400, None)
    assert await outcome(refused) == (400, None)
    while refused - accepted > 1:
        depth = (accepted + refused) // 2
        if await outcome(depth) == (400, None):
            refused = depth
        else:
            accepted = depth
    seen = {await outcome(depth) for depth in range(accepted - 100, refused + 50)}
    assert seen <= {(400, None), (200, 107), (200, None)}


@pytest.mark.parametrize(
    ("method", "params", "detail"),
    [
        ("publish", {"channel": 1, "data": 1}, "expected `str`, got `int` at `$.channel`"),
        ("publish", {"data": 1}, "object missing required field `channel`"),
        ("publish", {"channel": "", "data": 1}, "expected `str` of length >= 1 at `$.channel`"),
        ("publish", {"channel": "a", "tags": {"a": 1}}, "expected `str`, got `int` at `$.tags[...]`"),
        ("publish", {"channel": "a", "version": -1}, "expected `int` >= 0 at `$.version`"),
        ("publish", {"channel": "a", "version": 2**63}, f"expected `int` <= {2**63 - 1} at `$.version`"),
        ("publish", {"channel": "a", "delta": "yes"}, "expected `bool`, got `str` at `$.delta`"),
        ("broadcast", {"channels": [], "data": 1}, "expected `array` of length >= 1 at `$.channels`"),
        ("broadcast", {"channels": ["a", 1], "data": 1}, "expected `str`, got `int` at `$.channels[1]`"),
        ("history", {"channel": "a", "since": {"epoch": 1}}, "expected `str`, got `int` at `$.since.epoch`"),
        ("disconnect", {"user": ""}, "expected `str` of length >= 1 at `$.user`"),
        ("rpc", {"method": None}, "object missing required field `method`"),
        ("batch", {"commands": [{"rpc": 1}]}, "expected `object | null`, got `int` at `$.commands[0].rpc`"),
    ],
)  # fmt: skip
async def test_a_wrong_type_is_named(api: Served, method: str, params: dict[str, Any], detail: str) -> None:
    """Error 107 says what was expected, what was received, and where."""
    code, message = await api.error(method, **params)
    assert (code, message) == (107, f"bad request: {detail}")


async def test_unknown_members_are_ignored(api: Served, channel: Name) -> None:
    """A newer back end may send members that this server does not know."""
    name = channel("open")
    assert (await api.result("publish", channel=name, data=1, novelty={"a": [1]}))["offset"] == 1


async def test_a_body_of_one_byte_more_than_the_limit_is_refused() -> None:
    """413 has a sentence that names the key. The connection goes on."""
    async with served(api={"keys": [KEY], "body_limit_bytes": 1000}) as small:
        body = json.dumps({"channel": "a", "data": 1}).encode().ljust(1000)
        assert (await small.post("/api/publish", body)).status_code == 200
        for path in ("/api/publish", "/api"):
            response = await small.post(path, body + b" ")
            assert response.status_code == 413
            assert response.text == "The request's body is larger than 1000 bytes ([api] body_limit_bytes)."
        assert (await small.post("/api/publish", body)).status_code == 200


async def test_a_body_beyond_the_limit_is_refused_while_it_arrives(api: Served) -> None:
    """The response does not wait for the end of the body."""
    head = f"POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
    sent = head.encode() + b"80000\r\n" + b" " * 0x80000 + b"\r\n80001\r\n" + b" " * 0x80001 + b"\r\n"
    assert (await api.raw(sent)).startswith(b"HTTP/1.1 413 ")


async def test_a_caller_that_disconnects_early_affects_no_other(api: Served) -> None:
    """Half a body is not a call, and the next request is served."""
    head = f"POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Length: 99\r\n\r\n"
    await api.hang_up(head.encode() + b'{"channel":')
    assert await api.result("info")


REFUSALS: list[tuple[str, dict[str, Any], int, int]] = [
    ("publish", {"channel": "nowhere:1", "data": 1}, 404, 102),
    ("publish", {"channel": 1}, 400, 107),
    ("publish", {"channel": "größe", "data": 1}, 400, 107),
    ("publish", {"channel": "x" * 256, "data": 1}, 400, 107),
    ("history", {"channel": "a"}, 400, 108),
    ("history", {"channel": "open:1", "limit": 1, "since": {"offset": 1, "epoch": "x"}}, 416, 112),
    ("rpc", {"method": "nothing"}, 404, 104),
]


@pytest.mark.parametrize(("method", "params", "status", "code"), REFUSALS)
async def test_an_error_can_be_an_http_status(
    api: Served, method: str, params: dict[str, Any], status: int, code: int
) -> None:
    """In transport error mode the response has a status and the bare error. Otherwise it is a 200."""
    bare = await api.with_headers(**TRANSPORT).post(f"/api/{method}", params)
    assert (bare.status_code, bare.json()["code"]) == (status, code)
    assert await api.call(method, **params) == {"error": bare.json()}
    other = await api.with_headers(**{"X-Centrifugo-Error-Mode": "other"}).post(f"/api/{method}", params)
    assert other.status_code == 200


async def test_the_error_mode_can_be_configured() -> None:
    """Requests need no header then, and results are unchanged."""
    async with served(api={"keys": [KEY], "error_mode": "transport"}) as strict:
        refused = await strict.post("/api/rpc", {"method": "nothing"})
        assert (refused.status_code, refused.json()) == (404, {"code": 104, "message": "not found"})
        assert await strict.result("publish", channel="a", data=1) == {}


@pytest.mark.parametrize("error", [EngineError("the secret place is unreachable"), RuntimeError("a bug")])
async def test_an_error_of_the_server_is_error_100(
    api: Served, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """An engine error or a defect is never a success, and its message stays inside."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(api.node.engine.broker, "begin_publish", fail)
    with capture_logs() as logged:
        assert await api.error("publish", channel="a", data=1) == (100, "internal server error")
        bare = await api.with_headers(**TRANSPORT).post("/api/publish", {"channel": "a", "data": 1})
        answers = (await api.result("broadcast", channels=["a", "b"], data=1))["responses"]
    assert (bare.status_code, bare.json()["code"]) == (500, 100)
    assert [answer["error"]["code"] for answer in answers] == [100, 100]
    level = "warning" if isinstance(error, EngineError) else "error"
    assert [entry["log_level"] for entry in logged] == [level] * 4


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MEMBERS = sorted({name for method in METHODS.values() for name in method.request.__struct_fields__})


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(sorted(METHODS)),
    params=st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=4),
)
async def test_every_request_has_a_result_or_an_error(
    api: Served, method: str, params: dict[str, Any]
) -> None:
    """The error is one of the table, and never 100."""
    answer = await api.call(method, **params)
    assert ("error" in answer) != ("result" in answer or "replies" in answer)
    assert answer.get("error", {}).get("code") in (None, 102, 104, 107, 108, 112)
