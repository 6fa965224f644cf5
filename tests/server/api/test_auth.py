"""Keys of the HTTP API: the places for a key, and the response without a valid one."""

import httpx
import pytest
import structlog

from tests.server.api.conftest import KEY, Served, served
from tests.support.api import NO_TLS

pytestmark = pytest.mark.asyncio(loop_scope="module")

INFO = "/api/info"


async def _status(api: Served, headers: dict[str, str], path: str = INFO) -> tuple[int, bytes]:
    async with httpx.AsyncClient(base_url=api.url, trust_env=False, verify=NO_TLS) as other:
        response = await other.post(path, json={}, headers=headers)
    return response.status_code, response.content


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({"X-API-Key": KEY}, INFO),
        ({"x-api-key": "another key"}, INFO),
        ({"Authorization": f"apikey {KEY}"}, INFO),
        ({"Authorization": f"ApiKey {KEY}"}, INFO),
        ({"X-API-Key": KEY}, f"{INFO}?api_key=wrong"),
        ({"Authorization": "Bearer of.the.proxy", "X-API-Key": KEY}, INFO),
    ],
)
async def test_one_valid_key_is_enough(api: Served, headers: dict[str, str], path: str) -> None:
    """Any configured key is valid in any of the places. Invalid keys beside it do not matter."""
    assert (await _status(api, headers, path))[0] == 200


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({}, INFO),
        ({"X-API-Key": ""}, INFO),
        ({"X-API-Key": KEY[:-1]}, INFO),
        ({"X-API-Key": KEY + "s"}, INFO),
        ({"Authorization": KEY}, INFO),
        ({"Authorization": "apikey"}, INFO),
        ({"Authorization": f"Bearer {KEY}"}, INFO),
        ({}, "/api"),
        ({}, "/api/batch"),
    ],
)
async def test_a_request_without_a_valid_key_is_refused(
    api: Served, headers: dict[str, str], path: str
) -> None:
    """Every path responds with 401 and an empty body."""
    assert await _status(api, headers, path) == (401, b"")


@pytest.mark.parametrize("key", ["the%20key", "wrong", "", "%ff%ed%a0%80"])
async def test_a_key_in_the_address_is_refused_with_a_sentence(api: Served, key: str) -> None:
    """Whether it is valid or not. Neither the response nor the log has it."""
    with structlog.testing.capture_logs() as lines:
        status, body = await _status(api, {}, f"{INFO}?api_key={key}")
    assert status == 401
    assert body.decode().endswith("send it in the header X-API-Key.")
    assert [line["path"] for line in lines if line["event"] == "api_request_refused"] == [INFO]
    assert "the key" not in str(lines)


async def test_a_key_in_the_address_can_be_allowed() -> None:
    async with served(api={"keys": [KEY], "allow_key_in_address": True}) as api:
        assert (await _status(api, {}, f"{INFO}?api_key=the+key"))[0] == 200
        assert (await _status(api, {"Authorization": "Bearer x"}, f"{INFO}?api_key=the%20key"))[0] == 200
        assert await _status(api, {}, f"{INFO}?api_key=wrong") == (401, b"")
        assert await _status(api, {}, f"{INFO}?api_key=%ff%ed%a0%80") == (401, b"")


@pytest.mark.parametrize("key", ["", "x"])
async def test_without_configured_keys_every_request_is_refused(key: str) -> None:
    """An API without keys is closed, not open."""
    async with served(api={}) as closed:
        assert await _status(closed, {"X-API-Key": key}) == (401, b"")


async def test_an_insecure_api_needs_no_key() -> None:
    """`[api] insecure` also overrides configured keys."""
    async with served(api={"insecure": True, "keys": [KEY]}) as opened:
        assert (await _status(opened, {}))[0] == 200


async def test_the_body_of_a_refused_request_is_not_read(api: Served) -> None:
    """The response comes before the body, which may be large."""
    head = b"POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
    assert (await api.raw(head)).startswith(b"HTTP/1.1 401 ")


async def test_why_a_request_is_refused_is_logged() -> None:
    """Without the key. A request with a sentence in its response has the same sentence in the log."""
    refusals = []
    for api_options, headers, body in (
        ({}, {"X-API-Key": "hush"}, b"{}"),
        ({"keys": [KEY]}, {"X-API-Key": "hush"}, b"{}"),
        ({"keys": [KEY]}, {"X-API-Key": ""}, b"{}"),
        ({"keys": [KEY]}, {}, b"[]"),
        ({"keys": [KEY], "body_limit_bytes": 10}, {}, b" " * 11),
    ):
        async with served(api=api_options) as api:
            with structlog.testing.capture_logs() as lines:
                await api.with_headers(**headers).post("/api/info", body)
        refusals += [line for line in lines if line["event"] == "api_request_refused"]
    assert [(line["status"], line["error"]) for line in refusals] == [
        (401, "api.keys is not set"),
        (401, "its API key is not valid"),
        (401, "it has no API key"),
        (400, "The request's body is not a JSON object."),
        (413, "The request's body is larger than 10 bytes ([api] body_limit_bytes)."),
    ]
    assert {line["path"] for line in refusals} == {"/api/info"}
