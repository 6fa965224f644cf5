"""Named keys of the HTTP API: hashes, expiry, scopes of methods and channels, and what is logged of them."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, get_args

import httpx
import pytest
import pytest_asyncio
import structlog

from tests.server.api.conftest import KEY, SETTINGS, Served, served
from tests.support.api import NO_TLS
from tocsin_server.api.auth import ApiKeys, Unauthorized
from tocsin_server.api.callers import Caller
from tocsin_server.api.http import ApiRequest
from tocsin_server.api.methods import METHODS
from tocsin_server.config.api_key_options import ApiMethod, shared_keys
from tocsin_server.config.loading import Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

DESK, OLD_DESK, PAGES, EXPIRED = "key of the desk", "old key of the desk", "key of the pages", "an old key"
KEYS = {
    "desk": {
        "keys": [DESK, f"sha256:{sha256(OLD_DESK.encode()).hexdigest()}"],
        "methods": ["publish", "broadcast", "history", "channels", "subscribe", "unsubscribe", "presence"],
        "channels": ["open:desk*", "{sport,$sport}"],
    },
    "pages": {"keys": [PAGES], "methods": ["info", "disconnect"], "expires": "2999-01-01"},
    "expired": {"keys": [EXPIRED], "expires": (datetime.now(UTC) - timedelta(seconds=5)).isoformat()},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api() -> AsyncIterator[Served]:
    """The API of a node with the named keys beside the others."""
    async with served(api_keys=KEYS) as running:
        yield running


def desk(api: Served) -> Served:
    """The same with the key of the desk."""
    return api.with_headers(**{"X-API-Key": DESK})


async def test_every_method_but_batch_can_be_named() -> None:
    """The type of the option has the names of the table."""
    assert set(get_args(ApiMethod)) == METHODS.keys() - {"batch"}


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (KEY, 200),
        (DESK, 200),
        (OLD_DESK, 200),
        (PAGES, 200),
        (EXPIRED, 401),
        (f"sha256:{sha256(OLD_DESK.encode()).hexdigest()}", 401),
        (sha256(OLD_DESK.encode()).hexdigest(), 401),
        ("desk", 401),
    ],
)
async def test_each_key_is_valid_until_it_expires(api: Served, key: str, status: int) -> None:
    """A name has several at once. A hash is valid for its key, and not itself a key."""
    response = await api.with_headers(**{"X-API-Key": key}).post("/api/batch", {"commands": []})
    assert response.status_code == status


async def test_a_key_that_was_accepted_expires_nevertheless() -> None:
    """Its owner is remembered, and not that it is valid. Of keys that are not valid nothing is kept."""
    keys = ApiKeys(Settings.model_validate({"api_keys": KEYS}))

    def caller_of(key: str) -> Caller:
        headers = {b"x-api-key": key.encode()}
        return keys.caller_of(ApiRequest("POST", "/api/info", b"", headers, str), "/api/info")[0]

    caller = caller_of(PAGES)
    assert caller_of(PAGES) is caller
    caller.expires_at = 1.0
    for key in (PAGES, EXPIRED, "wrong", ""):
        with pytest.raises(Unauthorized):
            caller_of(key)
    assert not {b"wrong", b""} & keys._found.keys()


async def test_the_log_names_an_expired_key(api: Served) -> None:
    with structlog.testing.capture_logs() as lines:
        await api.with_headers(**{"X-API-Key": EXPIRED}).post("/api/info", {})
    assert [line["error"] for line in lines] == ['the API key "expired" is expired']
    assert EXPIRED not in str(lines)


DENIED = 'permission denied: the API key "desk" may not call '


@pytest.mark.parametrize(
    ("method", "params", "refusal"),
    [
        ("publish", {"channel": "open:desk1", "data": 1}, ""),
        ("publish", {"channel": "sport", "data": 1}, ""),
        ("publish", {"channel": "$sport", "data": 1}, ""),
        ("publish", {"channel": "open:other", "data": 1}, "publish for that channel"),
        ("publish", {"channel": "$open:desk1", "data": 1}, "publish for that channel"),
        ("publish", {"channel": "xsport", "data": 1}, "publish for that channel"),
        ("history", {"channel": "open:desk1"}, ""),
        ("history", {"channel": "open:other"}, "history for that channel"),
        ("presence", {"channel": "open:other"}, "presence for that channel"),
        ("subscribe", {"user": "42", "channel": "open:desk1"}, ""),
        ("subscribe", {"user": "42", "channel": "open:other"}, "subscribe for that channel"),
        ("unsubscribe", {"user": "42", "channel": "open:desk1"}, ""),
        ("unsubscribe", {"user": "42", "channel": "open:other"}, "unsubscribe for that channel"),
        ("unsubscribe", {"user": "42"}, "unsubscribe for every channel at once"),
        ("presence_stats", {"channel": "open:desk1"}, "presence_stats"),
        ("history_remove", {"channel": "open:desk1"}, "history_remove"),
        ("disconnect", {"user": "42"}, "disconnect"),
        ("refresh", {"user": "42"}, "refresh"),
        ("info", {}, "info"),
        ("rpc", {"method": "double", "params": 1}, "rpc"),
        ("drain", {"node": "here"}, "drain"),
    ],
)
async def test_a_scope_applies_to_every_way_of_calling(
    api: Served, method: str, params: dict[str, Any], refusal: str
) -> None:
    """The path of the method, a command of a batch, and the legacy endpoint."""
    expected = {"code": 103, "message": DENIED + refusal} if refusal else None
    answer = await desk(api).call(method, **params)
    assert answer.get("error") == expected
    if method != "drain":
        reply = (await desk(api).call("batch", commands=[{method: params}]))["replies"][0]
        assert reply.get("error") == expected
        legacy = await desk(api).post("/api", json.dumps({"method": method, "params": params}).encode())
        assert legacy.json().get("error") == expected


async def test_a_broadcast_is_refused_channel_by_channel(api: Served) -> None:
    """Those that the scope permits are done."""
    channels = ["open:desk2", "open:other", "sport"]
    responses = (await desk(api).result("broadcast", channels=channels, data=1))["responses"]
    assert [response.get("error", {}).get("code") for response in responses] == [None, 103, None]
    assert (await api.result("history", channel="open:other"))["offset"] == 0


async def test_the_listed_channels_are_those_of_the_scope(api: Served) -> None:
    """The pattern of the request makes them fewer, and never more."""
    async with api.client() as client:
        for channel in ("open:desk7", "open:other7"):
            await client.call("subscribe", channel=channel)
        assert (await api.result("channels"))["channels"].keys() >= {"open:desk7", "open:other7"}
        for pattern in ("", "*", "open:*"):
            listed = (await desk(api).result("channels", pattern=pattern))["channels"]
            assert listed == {"open:desk7": {"num_clients": 1}}
        assert (await desk(api).result("channels", pattern="open:other*"))["channels"] == {}


async def test_a_refusal_by_scope_is_a_403_in_transport_error_mode(api: Served) -> None:
    headers = {"X-API-Key": DESK, "X-Centrifugo-Error-Mode": "transport"}
    response = await api.with_headers(**headers).post("/api/info", {})
    assert (response.status_code, response.json()["code"]) == (403, 103)


async def test_refusals_and_calls_name_the_key(api: Served) -> None:
    """The log and the metrics have its name. Nothing has the key."""
    with structlog.testing.capture_logs() as lines:
        await desk(api).call("info")
        await desk(api).post("/api/publish", b"[")
        await desk(api).call("publish", channel="sport", data=1)
    assert [(line["event"], line["key"]) for line in lines] == [
        ("api_call_refused", "desk"),
        ("api_request_refused", "desk"),
    ]
    page = api.node.metrics.page().decode()
    assert 'tocsin_api_calls_total{key="desk"}' in page
    assert DESK not in str(lines) + page


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({}, "must have at least one key"),
        ({"keys": ["a"], "channels": ["x"]}, "channels is set, but methods is not"),
        ({"keys": ["a"], "methods": ["batch"]}, "Input should be 'publish'"),
        ({"keys": ["sha256:abc"]}, "64 hexadecimal digits"),
        ({"keys": ["a"], "expires": "tomorrow"}, "a date or time such as"),
        ({"keys": [KEY]}, "[api] and [api_keys.x] have the same key"),
        ({"keys": [f"sha256:{sha256(KEY.encode()).hexdigest()}"]}, "have the same key"),
    ],
)
async def test_what_is_not_clear_keeps_the_server_from_starting(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=r".*") as raised:
        Settings.model_validate({**SETTINGS, "api_keys": {"x": keys}})
    assert sentence in str(raised.value)


async def test_two_names_with_one_key_are_found_by_their_hashes() -> None:
    assert shared_keys([("a", ["k", "l"]), ("b", ["m"])]) is None
    assert shared_keys([("a", ["k", "k"])]) is None
    hashed = f"sha256:{sha256(b'k').hexdigest()}"
    assert shared_keys([("a", ["k"]), ("b", [hashed])]) == ("a", "b")


async def test_idempotency_keys_of_different_channels_and_callers_stay_apart(api: Served) -> None:
    """The same key publishes once into each channel. The first result comes from any caller's repetition."""
    epochs = {}
    for channel in ("open:desk8", "open:desk9"):
        first = await desk(api).result("publish", channel=channel, data=1, idempotency_key="order")
        again = await api.result("publish", channel=channel, data=2, idempotency_key="order")
        assert first == again
        epochs[channel] = (await api.result("history", channel=channel, limit=-1))["publications"]
    assert [[entry["data"] for entry in found] for found in epochs.values()] == [[1], [1]]
    results = await asyncio.gather(
        *(api.result("publish", channel="open:desk10", data=n, idempotency_key="same") for n in range(5))
    )
    assert {result["offset"] for result in results} == {1}


async def test_a_key_of_another_api_does_not_matter_beside_a_valid_one(api: Served) -> None:
    """The first valid key is the caller's."""
    async with httpx.AsyncClient(base_url=api.url, trust_env=False, verify=NO_TLS) as http:
        response = await http.post(
            "/api/info", json={}, headers={"Authorization": f"apikey {DESK}", "X-API-Key": KEY}
        )
    assert response.json()["error"]["code"] == 103
