"""One request for a key set (RFC 7517 §5): limited in time and size, and only to the configured host."""

from __future__ import annotations

import asyncio
import re
from typing import Any, NamedTuple

import httpx
import msgspec

from tocsin_server.config.token_keys import TokenKey, json_key

FETCH_SECONDS = 5.0
"""The limit for one fetch, redirects included."""

BODY_LIMIT_BYTES = 262_144
"""A key of 4096 bits with its certificates is about 4 KB."""

KEYS_LIMIT = 100
"""How many keys a set may have. Those of identity providers have up to about 20."""

REDIRECTS_LIMIT = 3

_HEADERS = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=(\d{1,9})")
_NOT_STORED = re.compile(r"(?:^|[\s,])no-(?:store|cache)\b")


class FetchFailed(Exception):
    """The key set could not be fetched. The message says why, for the operator."""


class FetchedKeySet(NamedTuple):
    """The keys of a set that can verify signatures."""

    keys: list[TokenKey]
    ignored: list[str]
    """Why other keys of the set are not used: one reason for each."""
    max_age: float | None
    """How many seconds the set may be cached, as its headers say; None if they do not."""


def new_client() -> httpx.AsyncClient:
    """Return a client for `fetch_key_set`. Making it reads the certificates of authorities."""
    return httpx.AsyncClient(timeout=FETCH_SECONDS, headers=_HEADERS)


async def fetch_key_set(client: httpx.AsyncClient, url: str) -> FetchedKeySet:
    """Fetch a key set. Raises FetchFailed."""
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            headers, body = await _get(client, httpx.URL(url))
    except (TimeoutError, httpx.TimeoutException):
        raise FetchFailed(f"no complete answer within {FETCH_SECONDS:g} s") from None
    except httpx.HTTPError as error:
        raise FetchFailed(f"{type(error).__name__}: {error}"[:200]) from None
    return read_key_set(body, headers)


async def _get(client: httpx.AsyncClient, url: httpx.URL) -> tuple[httpx.Headers, bytes]:
    origin = (url.scheme, url.host, url.port)
    for _ in range(REDIRECTS_LIMIT + 1):
        async with client.stream("GET", url) as response:
            if not response.has_redirect_location:
                return response.headers, await _body(response)
            url = url.join(response.headers["location"])
            if (url.scheme, url.host, url.port) != origin:
                raise FetchFailed("the answer redirects to another host")
    raise FetchFailed(f"more than {REDIRECTS_LIMIT} redirects")


async def _body(response: httpx.Response) -> bytes:
    if response.status_code != httpx.codes.OK:
        raise FetchFailed(f"status {response.status_code}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise FetchFailed("the answer is compressed, which was not requested")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            raise FetchFailed(f"more than {BODY_LIMIT_BYTES} bytes")
    return bytes(body)


def read_key_set(body: bytes, headers: httpx.Headers) -> FetchedKeySet:
    """Read a key set and how long it may be cached. Raises FetchFailed if it has no key that can be used."""
    try:
        decoded: Any = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        raise FetchFailed("the answer is not JSON") from None
    members = decoded.get("keys") if isinstance(decoded, dict) else None
    if not isinstance(members, list):
        raise FetchFailed("the answer is no key set: it has no list `keys`")
    if len(members) > KEYS_LIMIT:
        raise FetchFailed(f"the set has {len(members)} keys, but may have {KEYS_LIMIT}")
    keys: list[TokenKey] = []
    ignored: list[str] = []
    for member in members:
        try:
            keys.append(json_key(member))
        except ValueError as error:
            ignored.append(str(error))
    if not keys:
        raise FetchFailed(f"no key of the set can be used{f': {ignored[0]}' if ignored else ''}")
    return FetchedKeySet(keys, ignored, _max_age(headers))


def _max_age(headers: httpx.Headers) -> float | None:
    """RFC 9111 §5.2.2, less the time that the answer has spent in caches on its way (§5.1)."""
    cache_control = headers.get("cache-control", "").lower()
    if _NOT_STORED.search(cache_control):
        return 0.0
    found = _MAX_AGE.search(cache_control)
    if found is None:
        return None
    age = headers.get("age", "")
    return max(0.0, float(found[1]) - (float(age) if re.fullmatch(r"\d{1,9}", age) else 0))
