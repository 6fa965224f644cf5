"""A node whose issuer has a key set at an address: fetching, rotation, faults of the issuer, and bad sets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from structlog.testing import capture_logs

from tests.server.node.fake_connection import FakeConnection, running
from tests.server.node.test_authorizer import ScriptedAuthorizer, approve_as_ada
from tests.server.served_node import until
from tests.support.identity_provider import IdentityProvider, public_jwk, sign
from tests.support.tokens import connection_token
from tocsin_server.core.events import Approval, Authorize
from tocsin_server.engine.nodes import SurveyRequest
from tocsin_server.node import key_set_request, key_sets
from tocsin_server.node.key_set_request import FetchFailed, fetch_key_set, new_client
from tocsin_server.node.node import Node
from tocsin_server.protocol.messages import ConnectRequest


@pytest.fixture
async def provider() -> AsyncIterator[IdentityProvider]:
    async with IdentityProvider().serving() as serving:
        yield serving


@asynccontextmanager
async def trusting(provider: IdentityProvider, **options: Any) -> AsyncIterator[Node]:
    """A node that accepts tokens of a provider, once it has its keys."""
    async with running(issuers={"idp": {**provider.section, **options}}) as node:
        await until(lambda: fetches(node, "fetched"))
        yield node


def fetches(node: Node, outcome: str) -> int:
    return node.metrics.key_set_fetches.counts["issuers.idp", outcome]


async def connect(node: Node, token: str) -> Any:
    """The user of a new connection with this token, or the code with which it is refused."""
    connection = FakeConnection(node)
    number = connection.send_command("connect", token=token)
    await until(lambda: connection.reply(number) or connection.closed_with)
    if connection.closed_with is not None:
        return connection.closed_with.code
    reply = connection.reply(number) or {}
    return reply["error"]["code"] if "error" in reply else connection.session.user


async def test_a_token_is_verified_with_a_key_of_the_set(provider: IdentityProvider) -> None:
    """Without a further fetch, however many connect."""
    async with trusting(provider) as node:
        assert [await connect(node, provider.token(user)) for user in ("ann", "bob")] == ["ann", "bob"]
        assert await connect(node, connection_token("cem")) == "cem"
        assert await connect(node, provider.token(aud="other")) == 3500
        assert len(provider.requests) == 1
        assert "GET /jwks HTTP/1.1" in provider.requests[0]


async def test_a_session_waits_while_the_key_is_being_fetched(provider: IdentityProvider) -> None:
    """It keeps the order of commands. Tokens of known keys do not wait."""
    provider.gate.clear()
    async with running(issuers={"idp": provider.section}) as node:
        connection = FakeConnection(node)
        first = connection.send_command("connect", token=provider.token())
        second = connection.send_command("subscribe", channel="open:1")
        assert await connect(node, connection_token("bob")) == "bob"
        assert connection.received == []
        provider.gate.set()
        await until(lambda: connection.reply(second))
        assert [message["id"] for message in connection.received[:2]] == [first, second]
        assert connection.session.user == "ann"


async def test_a_new_key_is_fetched_when_a_token_names_it(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So keys rotate without a restart. Many tokens cost one fetch."""
    monkeypatch.setattr(key_sets, "MIN_INTERVAL_SECONDS", 0.0)
    async with trusting(provider) as node:
        provider.keys = [public_jwk("RS256", "k1"), public_jwk("RS256", "k2")]
        tokens = [provider.token(f"u{number}", "k2") for number in range(20)]
        users = await asyncio.gather(*(connect(node, token) for token in tokens))
        assert users == [f"u{number}" for number in range(20)]
        assert len(provider.requests) == 2
        provider.keys = [public_jwk("RS256", "k2")]
        assert await connect(node, provider.token(key_id="k9")) == 3500
        assert await connect(node, provider.token(key_id="k1")) == 3500


async def test_unknown_keys_cause_fetches_at_a_bounded_rate(provider: IdentityProvider) -> None:
    """Between two fetches such a token is refused for the moment: the next fetch may find its key."""
    async with trusting(provider) as node:
        found = [await connect(node, provider.token(key_id=f"x{number}")) for number in range(30)]
        assert found == [3004] * 30
        assert len(provider.requests) == 1
        assert await connect(node, provider.token()) == "ann"


async def test_every_request_with_a_token_waits_for_its_key(provider: IdentityProvider) -> None:
    """Subscribe, refresh and sub_refresh. Without the key they have a temporary error; nothing is closed."""
    async with trusting(provider, tocsin_claims=True) as node:
        connection = FakeConnection(node)
        await connection.call("connect", token=provider.token())
        channel = "closed:1"
        calls = [
            ("subscribe", {"channel": channel, "token": provider.token(key_id="k2", channel=channel)}),
            ("refresh", {"token": provider.token(key_id="k3")}),
            ("sub_refresh", {"channel": channel, "token": provider.token(key_id="k4", channel=channel)}),
        ]
        await connection.call("subscribe", channel="open:1")
        for method, params in calls[:2]:
            reply = await connection.call(method, **params)
            assert (reply["error"]["code"], reply["error"]["temporary"]) == (100, True)
        (key_set,) = node._key_sets._sets.values()
        for number, (method, params) in enumerate(calls):
            provider.keys = [public_jwk("RS256", f"k{key}") for key in range(1, 3 + number)]
            key_set._may_fetch_at = 0.0
            reply = await connection.call(method, **params)
            assert method in reply, reply


async def test_the_last_keys_are_kept_while_the_issuer_fails(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node stays ready, and `nodes` and the log say what is wrong, until it is over."""
    monkeypatch.setattr(key_sets, "MIN_INTERVAL_SECONDS", 0.0)
    async with trusting(provider) as node:
        provider.status = "500 Internal Server Error"
        with capture_logs() as lines:
            assert await connect(node, provider.token(key_id="k2")) == 3004
        (failed,) = [line for line in lines if line["event"] == "key_set_fetch_failed"][:1]
        assert (failed["issuer"], failed["error"], failed["log_level"]) == (
            "issuers.idp",
            "status 500",
            "warning",
        )
        assert await connect(node, provider.token()) == "ann"
        assert not node.unready_reason
        (warning,) = (await node.node_info(SurveyRequest())).warnings
        assert "[issuers.idp]" in warning
        assert "the keys fetched before are used" in warning
        provider.status, provider.keys = "200 OK", [public_jwk("RS256", "k2")]
        await until(lambda: fetches(node, "fetched") == 2)
        assert await connect(node, provider.token(key_id="k2")) == "ann"
        assert (await node.node_info(SurveyRequest())).warnings == ()


async def test_a_node_starts_while_the_issuer_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokens are refused for the moment, so that their clients come back."""
    monkeypatch.setattr(key_sets, "MIN_INTERVAL_SECONDS", 0.01)
    provider = IdentityProvider()
    async with provider.serving():
        port = int(provider.issuer.rpartition(":")[2])
    async with running(issuers={"idp": provider.section}) as node:
        assert not node.unready_reason
        assert await connect(node, provider.token()) == 3004
        assert await connect(node, connection_token("bob")) == "bob"
        async with provider.serving(port):
            await until(lambda: fetches(node, "fetched"))
            assert await connect(node, provider.token()) == "ann"


@pytest.mark.parametrize(
    ("headers", "shortest", "longest"),
    [
        ({}, 3600, 3600),
        ({"Cache-Control": "public, max-age=900"}, 900, 900),
        ({"Cache-Control": "max-age=900", "Age": "300"}, 600, 600),
        ({"Cache-Control": "max-age=1"}, 60, 60),
        ({"Cache-Control": "max-age=999999999"}, 86400, 86400),
        ({"Cache-Control": "no-store, max-age=900"}, 60, 60),
        ({"Cache-Control": "s-max-age=5, max-age=99999999999999999999"}, 86400, 86400),
        ({"Cache-Control": "max-age=soon"}, 3600, 3600),
    ],
)
async def test_a_set_is_cached_as_its_headers_say(
    provider: IdentityProvider, headers: dict[str, str], shortest: float, longest: float
) -> None:
    """At least a minute, and at most a day."""
    provider.headers = headers
    async with trusting(provider) as node, new_client() as client:
        (key_set,) = node._key_sets._sets.values()
        assert shortest <= await key_set._fetch(client) <= longest


async def test_a_set_is_fetched_again_when_its_cache_expires(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that was withdrawn is refused from then on."""
    monkeypatch.setattr(key_sets, "CACHE_SECONDS", (0.05, 0.05))
    async with trusting(provider) as node:
        provider.keys = [public_jwk("ES256", "k2")]
        seen = fetches(node, "fetched")
        await until(lambda: fetches(node, "fetched") > seen + 1)
        assert await connect(node, provider.token()) in (3004, 3500)


async def test_a_node_runs_although_no_key_set_can_be_fetched_at_all(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Such as with a file of certificates that is none."""
    (tmp_path / "certificates").write_text("hush")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificates"))
    with capture_logs() as lines:
        async with running(issuers={"idp": provider.section}) as node:
            await until(lambda: [line for line in lines if line["event"] == "key_sets_failed"])
            assert await connect(node, connection_token("bob")) == "bob"
            assert not node.unready_reason


# ------------------------------------------------------------------------------------------------ bad answers


def many_keys(count: int) -> dict[str, Any]:
    return {"keys": [public_jwk("ES256", f"k{number}") for number in range(count)]}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"status": "404 Not Found"}, "status 404"),
        ({"status": "204 No Content"}, "status 204"),
        ({"body": b"<html>"}, "not JSON"),
        ({"body": b"[" * 100_000}, "not JSON"),
        ({"body": b"[]"}, "no list `keys`"),
        ({"body": b'{"keys":{}}'}, "no list `keys`"),
        ({"body": b'{"keys":[]}'}, "no key of the set can be used"),
        ({"body": b'{"keys":[5]}'}, "not a JSON object"),
        ({"body": b" " * 262_145}, "more than 262144 bytes"),
        ({"headers": {"Content-Encoding": "gzip"}}, "compressed"),
        ({"keys": [{"kty": "oct", "kid": "k1", "k": "c2VjcmV0" * 8}]}, "a secret"),
        ({"keys": [public_jwk("RS256", use="enc")]}, "use"),
        ({"keys": many_keys(101)["keys"]}, "has 101 keys"),
        ({"status": "302 Found", "headers": {"Location": "http://localhost:1/jwks"}}, "another host"),
        ({"status": "302 Found", "headers": {"Location": "//other.example/jwks"}}, "another host"),
        ({"status": "302 Found", "headers": {"Location": "file:///etc/passwd"}}, "another host"),
        ({"status": "302 Found", "headers": {"Location": "/again"}}, "more than 3 redirects"),
        ({"headers": {"Content-Length": "nonsense"}}, "RemoteProtocolError"),
    ],
)
async def test_a_bad_answer_is_refused_with_the_reason(
    provider: IdentityProvider, answer: dict[str, Any], reason: str
) -> None:
    for name, value in answer.items():
        setattr(provider, name, value)
    async with new_client() as client:
        with pytest.raises(FetchFailed, match=reason):
            await fetch_key_set(client, provider.jwks_url)
    assert len(provider.requests) <= 4


async def test_a_set_of_a_hundred_keys_is_accepted_and_bad_keys_in_it_are_ignored(
    provider: IdentityProvider,
) -> None:
    provider.keys = [*many_keys(98)["keys"], {"kty": "oct", "k": "AAAA"}, public_jwk("RS256", alg="HS256")]
    async with new_client() as client:
        found = await fetch_key_set(client, provider.jwks_url)
    assert (len(found.keys), len(found.ignored)) == (98, 2)


async def test_a_redirect_on_the_same_host_is_followed(provider: IdentityProvider) -> None:
    provider.status, provider.headers = "301 Moved Permanently", {"Location": "/jwks/"}
    async with new_client() as client:
        fetching = asyncio.create_task(fetch_key_set(client, provider.jwks_url))
        await until(lambda: provider.requests)
        provider.status, provider.headers = "200 OK", {}
        assert (await fetching).keys
    assert "GET /jwks/ " in provider.requests[-1]


async def test_an_answer_that_does_not_come_fails_in_time(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_set_request, "FETCH_SECONDS", 0.1)
    provider.gate.clear()
    async with new_client() as client:
        with pytest.raises(FetchFailed, match="no complete answer"):
            await fetch_key_set(client, provider.jwks_url)


async def test_a_secret_of_the_set_verifies_no_token(provider: IdentityProvider) -> None:
    """Nor does its RSA key as a secret."""
    provider.keys.append({"kty": "oct", "kid": "k2", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"})
    async with trusting(provider) as node:
        claims = {"iss": provider.issuer, "aud": "tocsin", "sub": "ann", "exp": time.time() + 60}
        forged = jwt.encode(claims, b"secret" * 6, "HS256", headers={"kid": "k2"})
        assert await connect(node, forged) == 3500


async def test_no_address_of_a_token_is_asked(provider: IdentityProvider) -> None:
    async with IdentityProvider().serving() as attacker, trusting(provider) as node:
        claims = {"iss": provider.issuer, "aud": "tocsin", "sub": "ann", "exp": time.time() + 60}
        for header in ({"jku": attacker.jwks_url}, {"x5u": attacker.jwks_url}):
            assert await connect(node, sign(claims, "ES256", "k9", **header)) in (3004, 3500)
        assert await connect(node, sign({**claims, "iss": attacker.issuer})) == 3500
        assert attacker.requests == []


# -------------------------------------------------------------------------------- an application's authorizer


async def test_an_authorizer_of_the_application_is_asked_as_well(provider: IdentityProvider) -> None:
    """Its claims need no key. Where it only approves, the token's claims count, and the key is waited for."""

    async def approve(authorize: Authorize) -> Approval:
        return Approval(authorize.request)

    async def user_with(decide: Callable[[Authorize], Awaitable[Any]]) -> Any:
        provider.gate.clear()
        authorizer = ScriptedAuthorizer(ConnectRequest, decide)
        async with running(authorizer=authorizer, issuers={"idp": provider.section}) as node:
            connecting = asyncio.create_task(connect(node, provider.token()))
            await until(lambda: authorizer.requests)
            if decide is approve:
                assert not connecting.done()
                provider.gate.set()
            return await connecting

    assert await user_with(approve_as_ada) == "ada"
    assert await user_with(approve) == "ann"
