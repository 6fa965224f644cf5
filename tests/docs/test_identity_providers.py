"""docs/tokens.md: the configuration of each identity provider, with keys and tokens of its shape.

The keys come from a real HTTP server of this machine, under the path of the page's address.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.docs.examples import page
from tests.server.node.fake_connection import FakeConnection, running
from tests.server.served_node import until
from tests.support.identity_provider import IdentityProvider, public_jwk, sign

CONFIG = page("tokens.md").config
NOW = int(time.time())
TIMES = {"iat": NOW, "exp": NOW + 3600}
X5C: dict[str, Any] = {"x5t": "Zm9v", "x5c": ["MIIDDTCCAfWgAwIBAgIJ"]}


class Shape(NamedTuple):
    """The keys and tokens of a provider, as it documents them, and what they must mean."""

    keys: list[dict[str, Any]]
    claims: dict[str, Any]
    user: str
    channels: set[str]
    others: list[dict[str, Any]]
    """Claims of its tokens for another purpose, which differ in these members. None: left out."""
    algorithm: str = "RS256"
    header: Mapping[str, Any] = MappingProxyType({})


SHAPES = {
    "auth0": Shape(
        [public_jwk("RS256", **X5C), public_jwk("RS256", "next", **X5C)],
        {
            "iss": "https://YOUR-TENANT.eu.auth0.com/",
            "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
            "aud": ["https://tocsin.example", "https://YOUR-TENANT.eu.auth0.com/userinfo"],
            "azp": "my_client_id",
            "scope": "openid profile",
            "permissions": ["read", "read:news"],
        },
        "auth0|5f7c8ec7c33c6c004bbafe82",
        {"permissions:read"},
        [{"aud": "my_client_id"}, {"aud": "https://YOUR-TENANT.eu.auth0.com/userinfo"}],
        header={"typ": "at+jwt"},
    ),
    "keycloak": Shape(
        [public_jwk("RS256", **X5C), public_jwk("RS256", "enc", alg="RSA-OAEP", use="enc")],
        {
            "iss": "https://keycloak.example/realms/main",
            "aud": ["tocsin", "account"],
            "sub": "f0b4c9a2-3c1c-4c55-9d53-8c3b4b1a2f11",
            "jti": "onrtro:5e2a",
            "typ": "Bearer",
            "azp": "web",
            "sid": "a1",
            "realm_access": {"roles": ["default-roles-main", "editor"]},
            "resource_access": {"account": {"roles": ["view-profile"]}},
            "scope": "openid email profile",
            "preferred_username": "ann",
        },
        "f0b4c9a2-3c1c-4c55-9d53-8c3b4b1a2f11",
        {"roles:default-roles-main", "roles:editor"},
        [{"typ": "ID", "aud": "tocsin"}, {"typ": "Refresh"}, {"aud": "account"}],
    ),
    "cognito": Shape(
        [public_jwk("RS256", "a"), public_jwk("RS256")],
        {
            "iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_EXAMPLE",
            "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "cognito:groups": ["staff", "eu/berlin"],
            "client_id": "YOUR-APP-CLIENT-ID",
            "origin_jti": "b1",
            "event_id": "c1",
            "token_use": "access",
            "scope": "aws.cognito.signin.user.admin",
            "auth_time": NOW,
            "jti": "d1",
            "username": "ann",
        },
        "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        {"groups:staff", "groups:eu/berlin"},
        [
            {"token_use": "id", "client_id": None, "aud": "YOUR-APP-CLIENT-ID"},
            {"client_id": "ANOTHER-APP"},
        ],
    ),
    "entra": Shape(
        [public_jwk("RS256", alg=None, issuer="https://login.microsoftonline.com/{tenantid}/v2.0", **X5C)],
        {
            "aud": "YOUR-API-CLIENT-ID",
            "iss": "https://login.microsoftonline.com/YOUR-TENANT-ID/v2.0",
            "nbf": NOW,
            "azp": "web",
            "azpacr": "1",
            "name": "Ann",
            "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
            "preferred_username": "ann@example.com",
            "roles": ["Editor"],
            "scp": "access_as_user",
            "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
            "tid": "YOUR-TENANT-ID",
            "uti": "fqiBqXLPj0eQa82S-IYFAA",
            "ver": "2.0",
        },
        "690222be-ff1a-4d56-abd1-7e4f7d38e474",
        {"roles:Editor"},
        [
            {"aud": "00000003-0000-0000-c000-000000000000"},
            {"iss": "https://login.microsoftonline.com/OTHER-TENANT/v2.0"},
            {"oid": None},
        ],
    ),
    "firebase": Shape(
        [public_jwk("RS256"), public_jwk("RS256", "b")],
        {
            "name": "Ann",
            "picture": "https://example.com/ann.png",
            "iss": "https://securetoken.google.com/YOUR-PROJECT",
            "aud": "YOUR-PROJECT",
            "auth_time": NOW,
            "user_id": "uid1",
            "sub": "uid1",
            "email": "ann@example.com",
            "email_verified": True,
            "firebase": {"identities": {"email": ["ann@example.com"]}, "sign_in_provider": "password"},
            "team": "red",
        },
        "firebase:uid1",
        {"teams:red"},
        [
            {"aud": "OTHER-PROJECT", "iss": "https://securetoken.google.com/OTHER-PROJECT"},
            {"aud": "OTHER-PROJECT"},
            {"sub": ""},
        ],
    ),
    "supabase": Shape(
        [public_jwk("ES256", ext=True, key_ops=["verify"])],
        {
            "aal": "aal1",
            "amr": [{"method": "password", "timestamp": NOW}],
            "app_metadata": {"provider": "email", "providers": ["email"], "teams": ["red", "blue"]},
            "aud": "authenticated",
            "email": "ann@example.com",
            "iss": "https://YOUR-PROJECT.supabase.co/auth/v1",
            "is_anonymous": False,
            "phone": "",
            "role": "authenticated",
            "session_id": "5a",
            "sub": "4d6f5f2e-0a37-4c4f-9e3c-3d1c9a7b1b11",
            "user_metadata": {"channels": ["admin"]},
        },
        "4d6f5f2e-0a37-4c4f-9e3c-3d1c9a7b1b11",
        {"teams:red", "teams:blue"},
        [{"role": "service_role", "sub": None}, {"role": "anon"}, {"aud": "other"}],
        algorithm="ES256",
    ),
}


def test_the_page_has_a_configuration_for_every_provider() -> None:
    assert set(CONFIG["issuers"]) == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
async def test_a_token_of_the_provider_connects_its_user_and_others_do_not(name: str) -> None:
    """Others: ID tokens, tokens for other applications, forged ones, and Tocsin's claims in any of them."""
    shape = SHAPES[name]
    claims = {**TIMES, **shape.claims}
    async with IdentityProvider().serving() as provider:
        provider.keys = shape.keys
        path = urlsplit(CONFIG["issuers"][name]["jwks_url"]).path
        section = {**CONFIG["issuers"][name], "jwks_url": provider.issuer + path}
        async with running(issuers={name: section}, namespaces=CONFIG["namespaces"]) as node:
            connection = FakeConnection(node)
            token = sign({**claims, "channels": ["admin"]}, shape.algorithm, **shape.header)
            reply = await connection.call("connect", token=token)
            assert connection.session.user == shape.user
            assert set(reply["connect"]["subs"]) == shape.channels
            for other in shape.others:
                assert await is_refused(node, sign({**claims, **other}, shape.algorithm))
            forging = "ES512" if shape.algorithm == "RS256" else "RS256"
            assert await is_refused(node, sign(claims, forging))
            assert await is_refused(node, sign({**claims, "exp": NOW - 60}, shape.algorithm), code=109)
        assert provider.requests[0].startswith(f"GET {path} ")


async def is_refused(node: Any, token: str, code: int = 3500) -> bool:
    connection = FakeConnection(node)
    number = connection.send_command("connect", token=token)
    await until(lambda: connection.reply(number) or connection.closed_with)
    reply = connection.reply(number)
    found = reply["error"]["code"] if reply else connection.closed_with and connection.closed_with.code
    return bool(found == code)
