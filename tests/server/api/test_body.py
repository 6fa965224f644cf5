"""The forms of a request's body: compression, encodings, byte order marks, null members."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.server.api.conftest import KEY, Served, served

Name = Callable[[str], str]

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = json.dumps({"channel": "plain", "data": "x" * 100}).encode()


def bare_deflate(body: bytes) -> bytes:
    """Without the header of zlib, as some libraries understand "deflate"."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


@pytest.mark.parametrize("path", ["/api/publish", "/api"])
@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", bare_deflate),
        ("identity", bytes),
    ],
)
async def test_a_compressed_body_is_decompressed(api: Served, path: str, coding: str, compress: Any) -> None:
    """On every endpoint, with the codings of RFC 9110 that the standard library has."""
    body = BODY if path != "/api" else json.dumps({"method": "publish", "params": json.loads(BODY)}).encode()
    response = await api.with_headers(**{"Content-Encoding": coding}).post(path, compress(body))
    assert (response.status_code, response.json()) == (200, {"result": {}})


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress"])
async def test_another_content_coding_is_a_415(api: Served, coding: str) -> None:
    """The response says which codings there are (RFC 9110 §15.5.16)."""
    response = await api.with_headers(**{"Content-Encoding": coding}).post("/api/publish", BODY)
    assert response.status_code == 415
    assert response.text == 'The Content-Encoding of a request must be "gzip", "deflate" or absent.'
    assert response.headers["Accept-Encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    "body",
    [BODY, gzip.compress(BODY)[:-9], gzip.compress(BODY) + b"x", b""],
    ids=["not compressed", "cut off", "with an appendix", "empty"],
)
async def test_a_broken_compressed_body_is_a_400(api: Served, body: bytes) -> None:
    response = await api.with_headers(**{"Content-Encoding": "gzip"}).post("/api/publish", body)
    assert response.status_code == 400
    assert response.text.startswith("The request's body is not gzip: ")


async def test_the_limit_applies_to_the_decompressed_body() -> None:
    """A megabyte of zeros has a thousand bytes compressed."""
    async with served(api={"keys": [KEY], "body_limit_bytes": 5000}) as small:
        for size, status in ((4000, 200), (1_000_000, 413)):
            body = json.dumps({"channel": "plain", "data": "x" * size}).encode()
            compressed = gzip.compress(body)
            assert len(compressed) < 5000
            response = await small.with_headers(**{"Content-Encoding": "gzip"}).post(
                "/api/publish", compressed
            )
            assert response.status_code == status


@pytest.mark.parametrize("path", ["/api/publish", "/api"])
async def test_a_byte_order_mark_is_ignored(api: Served, path: str) -> None:
    """Libraries of Windows write one before UTF-8 (RFC 8259 §8.1)."""
    body = BODY if path != "/api" else json.dumps({"method": "publish", "params": json.loads(BODY)}).encode()
    response = await api.post(path, b"\xef\xbb\xbf" + body)
    assert (response.status_code, response.json()) == (200, {"result": {}})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
async def test_another_encoding_is_named(api: Served, encoding: str) -> None:
    response = await api.post("/api/publish", BODY.decode().encode(encoding))
    assert response.status_code == 400
    assert response.text.startswith("The request's body is not UTF-8, but UTF-")


@pytest.mark.parametrize(
    ("method", "params"),
    [
        (
            "publish",
            {
                "data": 1,
                "b64data": None,
                "tags": None,
                "skip_history": None,
                "idempotency_key": None,
                "version": None,
                "version_epoch": None,
                "delta": None,
            },
        ),
        ("history", {"limit": None, "since": None, "reverse": None}),
        (
            "subscribe",
            {"user": "u", "client": None, "session": None, "expire_at": None, "recover_since": None},
        ),
        ("unsubscribe", {"user": "u", "client": None}),
        ("disconnect", {"user": "u", "client": None, "whitelist": None, "disconnect": None}),
        ("refresh", {"user": "u", "expired": None, "expire_at": None, "info": None}),
        ("channels", {"pattern": None}),
    ],
)
async def test_a_null_member_counts_as_absent(
    api: Served, channel: Name, method: str, params: dict[str, Any]
) -> None:
    """By itself, in a batch, and in a command of the legacy endpoint."""
    params = {"channel": channel("open"), **params}
    assert "result" in await api.call(method, **params)
    (reply,) = (await api.call("batch", commands=[{method: params}], parallel=None))["replies"]
    assert method in reply
    legacy = await api.post("/api", {"id": None, "method": method, "params": params})
    assert "result" in legacy.json()


async def test_null_params_of_the_legacy_endpoint_count_as_absent(api: Served) -> None:
    response = await api.post("/api", {"method": "info", "params": None})
    assert "result" in response.json()


async def test_a_null_payload_is_published(api: Served, channel: Name) -> None:
    """For a publication null is a value, as for any JSON."""
    name = channel("open")
    await api.result("publish", channel=name, data=None, tags=None)
    page = await api.result("history", channel=name, limit=1)
    assert page["publications"][0]["data"] is None


@pytest.mark.parametrize("number", [b"55.0", b"5.5e1", b"55"])
async def test_a_whole_number_may_have_a_fraction(api: Served, channel: Name, number: bytes) -> None:
    """JSON Schema's `integer` includes 55.0."""
    body = b'{"channel": "%s", "limit": %s}' % (channel("open").encode(), number)
    assert "result" in (await api.post("/api/history", body)).json()


async def test_a_fraction_is_no_whole_number(api: Served, channel: Name) -> None:
    code, message = await api.error("history", channel=channel("open"), limit=5.5)
    assert (code, message) == (107, "bad request: expected `int`, got `float` at `$.limit`")
