"""Signed requests to the HTTP API: what is signed, for how long, and that each is accepted once."""

import asyncio
import gzip
import hmac
import secrets
import time
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import pytest_asyncio
import structlog

from tests.server.api.conftest import Served, served
from tests.support.api import NO_TLS
from tocsin.api import publish
from tocsin.errors import Unauthorized
from tocsin.publisher import AsyncPublisher, Publisher
from tocsin_server.api import signatures
from tocsin_server.api.signatures import SeenSignatures, Signature

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY, HASHED = "the key of the back end", "a key that is kept as its hash"
KEYS = {
    "backend": {"keys": ["its next key", KEY], "methods": ["publish", "info"]},
    "hashed": {"keys": [f"sha256:{sha256(HASHED.encode()).hexdigest()}"]},
    "expired": {"keys": ["an expired key"], "expires": "2020-01-01"},
}
NOT_SIGNED = 'it is not signed with the API key "backend"'
MALFORMED = ("The signature is malformed.", "its signature is malformed")
OTHER_BODY = "The body is not the one that was signed."
NO_NAME = "its signature names no key of [api_keys]"
BODY = b'{"channel": "plain", "data": 1}'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api() -> AsyncIterator[Served]:
    """The API of a node with named keys."""
    async with served(api_keys=KEYS) as running:
        yield running


def authorization(
    path: str = "/api/publish", body: bytes = BODY, *, key: str = KEY, age: float = 0, **replaced: str
) -> str:
    """The header of a signed request; `replaced` are parts that differ from what was signed."""
    parts = {
        "key": "backend",
        "time": str(int(time.time() - age)),
        "nonce": secrets.token_hex(8),
        "digest": sha256(body).hexdigest(),
    }
    text = "\n".join(("tocsin-hmac-sha256", "POST", path, parts["time"], parts["nonce"], parts["digest"]))
    parts["signature"] = hmac.new(key.encode(), text.encode(), sha256).hexdigest()
    parts |= replaced
    return "tocsin-hmac-sha256 " + ", ".join(f"{name}={value}" for name, value in parts.items())


async def send(
    api: Served, header: str, path: str = "/api/publish", body: bytes = BODY, **headers: str
) -> httpx.Response:
    """Send a request without any key."""
    async with httpx.AsyncClient(base_url=api.url, trust_env=False, verify=NO_TLS) as http:
        return await http.post(path, content=body, headers={"Authorization": header, **headers})


async def test_a_signed_request_is_that_of_its_key(api: Served) -> None:
    """With each key of the name, within the scope of the name, and for compressed bodies."""
    assert (await send(api, authorization())).json() == {"result": {}}
    assert (await send(api, authorization(key="its next key"))).json() == {"result": {}}
    quoted = authorization().replace("key=backend", 'key="backend"')
    assert (await send(api, quoted)).status_code == 200
    body = gzip.compress(BODY)
    response = await send(api, authorization(body=body), body=body, **{"Content-Encoding": "gzip"})
    assert response.json() == {"result": {}}
    refused = await send(api, authorization("/api/history"), "/api/history")
    assert refused.json()["error"]["code"] == 103
    legacy = b'{"method": "publish", "params": {"channel": "plain", "data": 1}}'
    assert (await send(api, authorization("/api", legacy), "/api", legacy)).text == '{"result":{}}'


@pytest.mark.parametrize(
    ("header", "body", "text", "reason"),
    [
        (lambda: authorization(key="wrong"), BODY, "", NOT_SIGNED),
        (lambda: authorization("/api/info"), BODY, "", NOT_SIGNED),
        (lambda: authorization(time="1"), BODY, "", NOT_SIGNED),
        (lambda: authorization(nonce="x"), BODY, "", NOT_SIGNED),
        (
            lambda: authorization(digest=sha256(b"{}").hexdigest()),
            b"{}",
            "",
            'it is not signed with the API key "backend"',
        ),
        (lambda: authorization(key="another"), BODY, "", NOT_SIGNED),
        (lambda: authorization() + "0", BODY, "", NOT_SIGNED),
        (
            lambda: authorization().replace("key=backend", "key=other"),
            BODY,
            "",
            "its signature names no key of [api_keys]",
        ),
        (
            lambda: authorization(key=HASHED).replace("key=backend", "key=hashed"),
            BODY,
            "",
            'the API key "hashed" is configured as a hash, which verifies no signature',
        ),
        (
            lambda: authorization(key="an expired key").replace("key=backend", "key=expired"),
            BODY,
            "",
            'the API key "expired" is expired',
        ),
        (
            authorization,
            b"{}",
            "The body is not the one that was signed.",
            "The body is not the one that was signed.",
        ),
        (
            lambda: authorization().replace("nonce", "nonc"),
            BODY,
            "The signature is malformed.",
            "its signature is malformed",
        ),
        (lambda: authorization(time="soon"), BODY, *MALFORMED),
        (lambda: authorization(nonce="x" * 129), BODY, *MALFORMED),
        (
            lambda: authorization() + ", key=backend",
            BODY,
            "The signature is malformed.",
            "its signature is malformed",
        ),
        (lambda: "tocsin-hmac-sha256", BODY, *MALFORMED),
    ],
)
async def test_a_request_that_is_not_signed_right_is_refused(
    api: Served, header: Callable[[], str], body: bytes, text: str, reason: str
) -> None:
    """The log has the reason. The response has it where it helps no attacker."""
    with structlog.testing.capture_logs() as lines:
        response = await send(api, header(), body=body)
    assert (response.status_code, response.text) == (401, text)
    assert [line["error"] for line in lines] == [reason]
    assert "signature=" not in str(lines)


@pytest.mark.parametrize(("age", "status"), [(30, 200), (-30, 200), (90, 401), (-90, 401)])
async def test_the_time_must_be_within_the_window(api: Served, age: float, status: int) -> None:
    response = await send(api, authorization(age=age))
    assert response.status_code == status
    assert "differs from that of the server by" in response.text or status == 200


async def test_a_signature_is_accepted_once(api: Served) -> None:
    """Also if its copies arrive together, or are written in capitals."""
    header = authorization()
    responses = await asyncio.gather(*(send(api, header) for _ in range(5)))
    assert sorted(response.status_code for response in responses) == [200, 401, 401, 401, 401]
    head, _, signature = header.rpartition("=")
    response = await send(api, f"{head}={signature.upper()}")
    assert (response.status_code, response.text) == (401, "The signature was used before.")


async def test_signatures_are_remembered_for_as_long_as_they_are_valid() -> None:
    """From one window before a request's time to one after it; and never more than so many."""
    seen = SeenSignatures(60)
    for now in (0.0, 59.0, 119.0):
        assert seen.add("a", now) is (now == 0.0)
    assert seen.add("b", 119.0)
    for now in (120.0, 180.0, 239.0):
        assert seen.add("b", now) is False
    assert seen.add("a", 480.0)
    assert seen.add("b", 480.0)


async def test_there_is_room_for_a_bounded_number_of_signatures(
    monkeypatch: pytest.MonkeyPatch, api: Served
) -> None:
    """A request above it is refused with error 111, until there is room again."""
    monkeypatch.setattr(signatures, "SEEN_LIMIT", 2)
    seen = SeenSignatures(60)
    assert [seen.add(text, 1000) for text in "abc"] == [True, True, None]
    assert [seen.add(text, 1120) for text in "cda"] == [True, True, False]
    monkeypatch.setattr(signatures, "SEEN_LIMIT", 0)
    response = await send(api, authorization())
    assert (response.json()["error"]["code"], response.headers["Retry-After"]) == (111, "60")


def _publisher(kind: type[Any], api: Served, **options: Any) -> Any:
    return kind(api.url, KEY, **{"key_name": "backend", **options})


async def test_the_python_publishers_sign(api: Served) -> None:
    """Each attempt has a signature of its own; the key itself never travels."""
    async with _publisher(AsyncPublisher, api) as publisher:
        await publisher.publish("plain", 1)
        await publisher.send(publish("plain", 2))
    with _publisher(Publisher, api) as plain:
        await asyncio.to_thread(plain.publish, "plain", 3)
    with _publisher(Publisher, api) as plain:
        requests = [plain._endpoint.request(publish("plain", 4)) for _ in range(2)]
    assert requests[0]["headers"]["Authorization"] != requests[1]["headers"]["Authorization"]
    assert KEY not in str(requests)
    async with _publisher(AsyncPublisher, api, key_name="other") as publisher:
        with pytest.raises(Unauthorized):
            await publisher.publish("plain", 1)


async def test_the_publisher_s_error_has_the_server_s_sentence(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as that of a clock that is wrong."""
    monkeypatch.setattr("tocsin.publisher.time", SimpleNamespace(time=lambda: 1000.0))
    async with _publisher(AsyncPublisher, api) as publisher:
        with pytest.raises(Unauthorized, match="differs from that of the server"):
            await publisher.publish("plain", 1)


@pytest.mark.parametrize("name", ["a b", "a,b", 'a"b', "ü", "x" * 65])
async def test_a_name_that_a_header_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="the name of a key"):
        Publisher("http://localhost:8000", KEY, key_name=name)


async def test_a_signature_needs_a_key() -> None:
    with pytest.raises(ValueError, match="needs the key"):
        Publisher("http://localhost:8000", key_name="backend")


@pytest.mark.parametrize("credentials", ["", "key", "key=a", ",", "key=a, key=a", "a=b,c=d,e=f,g=h,i=j"])
async def test_credentials_that_are_not_complete_are_not_read(credentials: str) -> None:
    assert Signature.read(credentials) is None
