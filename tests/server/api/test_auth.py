"""Keys of the HTTP API: three places to show one, and nothing said to whoever has none."""

import httpx
import pytest

from tests.server.api.conftest import KEY, Served, served

pytestmark = pytest.mark.asyncio(loop_scope="module")

INFO = "/api/info"


async def _status(api: Served, headers: dict[str, str], path: str = INFO) -> tuple[int, bytes]:
    async with httpx.AsyncClient(base_url=api.url, trust_env=False) as stranger:
        response = await stranger.post(path, json={}, headers=headers)
    return response.status_code, response.content


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({"X-API-Key": KEY}, INFO),
        ({"x-api-key": "another key"}, INFO),
        ({"Authorization": f"apikey {KEY}"}, INFO),
        ({"Authorization": f"ApiKey {KEY}"}, INFO),
        ({}, f"{INFO}?api_key=the%20key"),
        ({"X-API-Key": KEY}, f"{INFO}?api_key=wrong"),
        ({"Authorization": "Bearer of.the.proxy"}, f"{INFO}?api_key=the+key"),
    ],
)
async def test_one_right_key_is_enough(api: Served, headers: dict[str, str], path: str) -> None:
    """Any of the configured keys, in any of the three places, whatever stands in the others."""
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
        ({}, f"{INFO}?api_key="),
        ({}, f"{INFO}?api_key=%ff%ed%a0%80"),
        ({}, "/api"),
        ({}, "/api/batch"),
    ],
)
async def test_without_a_right_key_nothing_is_said(api: Served, headers: dict[str, str], path: str) -> None:
    """401 with an empty body, on every path."""
    assert await _status(api, headers, path) == (401, b"")


@pytest.mark.parametrize("shown", ["", "x"])
async def test_without_configured_keys_nobody_is_admitted(shown: str) -> None:
    """No key configured is not the same as no key needed."""
    async with served(api={}) as closed:
        assert await _status(closed, {"X-API-Key": shown}) == (401, b"")


async def test_an_open_api_needs_no_key() -> None:
    """`[api] insecure`, with or without keys."""
    async with served(api={"insecure": True, "keys": [KEY]}) as opened:
        assert (await _status(opened, {}))[0] == 200


async def test_a_body_is_not_read_for_nothing(api: Served) -> None:
    """Whoever has no key is answered before the body comes, however large it says it is."""
    head = b"POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
    assert (await api.raw(head)).startswith(b"HTTP/1.1 401 ")
