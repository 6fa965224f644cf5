"""Tokens (protocol §12): signatures, validity in time, and claims."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from tests.support.tokens import SECRET, connection_token, subscription_token
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.core.tokens import (
    ConnectionClaims,
    Flag,
    Override,
    TokenExpired,
    TokenInvalid,
    TokenNotYetValid,
    TokenVerifier,
    embedded,
)
from tocsin_server.protocol.messages import NO_JSON

NOW = 1_900_000_000.0
LONG_SECRET = SECRET * 2
KEYS: dict[str, PrivateKeyTypes] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
OTHER_RSA = rsa.generate_private_key(65537, 2048)


def pem(key: PrivateKeyTypes) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def verifier(**options: Any) -> TokenVerifier:
    return TokenVerifier(ClientOptions(**{"token_hmac_secret": SECRET, "token_leeway": 0, **options}))


def claims(token: str, **options: Any) -> ConnectionClaims:
    return verifier(**options).connection(token, NOW)


def signed(payload: bytes, header: dict[str, Any] | None = None) -> str:
    """Return a token with these bytes as its claims and a valid signature."""
    return jwt.PyJWS().encode(payload, SECRET, algorithm="HS256", headers=header)


def b64(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


# ------------------------------------------------------------------------------------------------- signatures


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_one_secret_verifies_all_hmac_lengths(algorithm: str) -> None:
    """The application chooses the length."""
    token = connection_token("ada", secret=LONG_SECRET, algorithm=algorithm)
    assert claims(token, token_hmac_secret=LONG_SECRET).sub == "ada"


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_public_key_verifies_its_own_family_of_algorithms(algorithm: str) -> None:
    """Alone, and beside a secret."""
    key = KEYS[algorithm]
    token = jwt.encode({"sub": "ada"}, key, algorithm=algorithm)  # type: ignore[arg-type]  # any private key
    for secret in (SECRET, ""):
        assert claims(token, token_hmac_secret=secret, token_public_key=pem(key)).sub == "ada"


@pytest.mark.parametrize("algorithm", KEYS)
@pytest.mark.parametrize("configured", KEYS)
def test_a_key_does_not_verify_another_family_of_algorithms(algorithm: str, configured: str) -> None:
    """The token's header does not matter."""
    token = jwt.encode({"sub": "ada"}, KEYS[algorithm], algorithm=algorithm)  # type: ignore[arg-type]
    if algorithm != configured:
        with pytest.raises(TokenInvalid):
            claims(token, token_public_key=pem(KEYS[configured]))


def test_a_token_signed_with_another_key_is_invalid() -> None:
    """With another secret, and with another key pair."""
    other = jwt.encode({"sub": "ada"}, OTHER_RSA, algorithm="RS256")
    for token in (connection_token("ada", secret=LONG_SECRET), other):
        with pytest.raises(TokenInvalid):
            claims(token, token_public_key=pem(KEYS["RS256"]))


def test_without_a_configured_key_every_token_is_invalid() -> None:
    """A token signed with an empty secret too."""
    empty = _by_hand({"alg": "HS256"}, b'{"sub":"ada"}', secret=b"")
    for token in (connection_token("ada"), empty):
        with pytest.raises(TokenInvalid):
            claims(token, token_hmac_secret="")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, 5, ["HS256"], {"HS256": 1}])
def test_an_unsigned_token_is_invalid(algorithm: Any) -> None:
    """Keys and algorithms come from the configuration only, never from a token's header."""
    for secret in (b"", SECRET.encode()):
        token = _by_hand({"alg": algorithm}, b'{"sub":"ada"}', secret)
        with pytest.raises(TokenInvalid):
            claims(token, token_public_key=pem(KEYS["RS256"]))
        with pytest.raises(TokenInvalid):
            claims(token.rpartition(".")[0] + ".")


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_public_key_is_not_accepted_as_a_secret(algorithm: str) -> None:
    """HS256 signed with the public key: the algorithm confusion attack."""
    public = pem(KEYS[algorithm])
    for secret in (public, public.strip(), public + "\n"):
        token = _by_hand({"alg": "HS256"}, b'{"sub":"ada"}', secret.encode())
        for hmac_secret in (SECRET, ""):
            with pytest.raises(TokenInvalid):
                claims(token, token_hmac_secret=hmac_secret, token_public_key=public)


def _by_hand(header: dict[str, Any], payload: bytes, secret: bytes) -> str:
    """Return a token that a library refuses to make, signed as HS256."""
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (json.dumps(header).encode(), payload)]
    signature = hmac.digest(secret, b".".join(parts), hashlib.sha256)
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def test_a_token_made_by_hand_is_valid() -> None:
    """It proves that the forgeries of other tests fail only for what is forged."""
    assert claims(_by_hand({"alg": "HS256"}, b'{"sub":"ada"}', SECRET.encode())).sub == "ada"


@given(st.text() | st.lists(st.binary(max_size=20), max_size=4).map(lambda parts: ".".join(map(b64, parts))))
def test_every_other_text_is_an_invalid_token(token: str) -> None:
    """It raises TokenInvalid and no other error."""
    with pytest.raises(TokenInvalid):
        claims(token, token_public_key=pem(KEYS["RS256"]))


@pytest.mark.parametrize(
    ("header", "is_valid"),
    [
        ({"typ": "anything", "kid": "k1", "cty": 5}, True),
        ({"x": "y" * 50_000}, True),
        ({"kid": 5}, False),
        ({"crit": ["x"], "x": 1}, False),
        ({"crit": 5}, False),
        ({"b64": False}, False),
        ({"b64": False, "crit": ["b64"]}, False),
    ],
)
def test_an_unknown_header_field_is_ignored_unless_it_is_critical(
    header: dict[str, Any], is_valid: bool
) -> None:
    """A verifier must refuse a critical header field that it does not know (RFC 7515 §4.1.11)."""
    token = _by_hand({"alg": "HS256", **header}, b'{"sub":"ada"}', SECRET.encode())
    if is_valid:
        assert claims(token).sub == "ada"
    else:
        with pytest.raises(TokenInvalid):
            claims(token)


def test_a_deeply_nested_header_is_invalid() -> None:
    """The header is decoded before the signature is verified."""
    deep = base64.urlsafe_b64encode(b'{"a":' * 100_000).rstrip(b"=").decode()
    with pytest.raises(TokenInvalid):
        claims(f"{deep}.e30.x")


@pytest.mark.parametrize(
    ("token", "options", "reason"),
    [
        (connection_token("ada", secret=LONG_SECRET), {}, "no configured key verifies the signature"),
        ("hush", {}, "it is no signed JSON Web Token"),
        ("", {}, "it is no signed JSON Web Token"),
        (
            connection_token("ada"),
            {"token_hmac_secret": ""},
            "neither client.token_hmac_secret nor client.token_public_key is set",
        ),
        (
            connection_token("ada"),
            {"token_hmac_secret": "", "token_public_key": pem(OTHER_RSA)},
            "it is signed with HS256, but client.token_hmac_secret is not set",
        ),
        (
            jwt.encode({"sub": "ada"}, OTHER_RSA, algorithm="RS256"),
            {},
            "it is signed with RS256, but client.token_public_key is not set",
        ),
        (
            jwt.encode({"sub": "ada"}, OTHER_RSA, algorithm="RS256"),
            {"token_public_key": pem(KEYS["RS256"])},
            "no configured key verifies the signature",
        ),
        (
            connection_token("ada", aud=["them", "others"]),
            {"token_audience": "us"},
            "aud is them, others, not client.token_audience (us)",
        ),
        (connection_token("ada"), {"token_issuer": "app"}, "iss is not set, not client.token_issuer (app)"),
        (signed(b'{"sub":42}'), {}, "Expected `str`, got `int` - at `$.sub`"),
        (connection_token("ada", exp=NOW - 60), {}, "expired 60 s ago"),
        (connection_token("ada", nbf=NOW + 60), {}, "not valid for another 60 s"),
    ],
)
def test_the_exception_says_why_a_token_is_refused(token: str, options: dict[str, Any], reason: str) -> None:
    """For the operator, so it holds neither the token nor the secret."""
    with pytest.raises((TokenInvalid, TokenExpired)) as caught:
        claims(token, **options)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    "header", [{"alg": "none"}, {"alg": "hush"}, {"alg": "RS256", "kid": 5}, {"alg": ["RS256"]}]
)
def test_an_unknown_algorithm_is_not_shown(header: dict[str, Any]) -> None:
    """The header of a token is not verified, so that anything may be in it."""
    with pytest.raises(TokenInvalid) as caught:
        claims(_by_hand(header, b'{"sub":"ada"}', b"x"))
    assert "hush" not in str(caught.value)
    assert str(caught.value)


# ----------------------------------------------------------------------------------------------------- claims


@pytest.mark.parametrize(
    ("payload", "is_expired"),
    [
        ({"exp": NOW}, True),
        ({"exp": NOW - 0.5}, True),
        ({"exp": NOW + 0.5}, False),
        ({"exp": 0}, True),
        ({"exp": 2**53, "expire_at": 1e300}, False),
        ({"nbf": NOW + 0.5}, True),
        ({"nbf": NOW}, False),
        ({"exp": NOW + 60, "nbf": NOW + 30}, True),
        ({"iat": NOW + 1_000_000, "jti": "x", "meta": {"a": 1}}, False),
    ],
)
def test_a_token_is_valid_from_nbf_until_exp(payload: dict[str, Any], is_expired: bool) -> None:
    """By the caller's clock. Claims about its creation do not matter."""
    token = connection_token("ada", **payload)
    if is_expired:
        with pytest.raises(TokenExpired):
            claims(token)
    else:
        assert claims(token).sub == "ada"


def test_a_forged_token_is_invalid_rather_than_expired() -> None:
    """TokenExpired would say that a fresher forgery is accepted."""
    with pytest.raises(TokenInvalid):
        claims(connection_token("ada", secret=LONG_SECRET, exp=NOW - 1))
    with pytest.raises(TokenInvalid):
        claims(connection_token("ada", aud="others", exp=NOW - 1), token_audience="us")


@pytest.mark.parametrize(
    ("payload", "expires_at"),
    [
        ({}, None),
        ({"exp": NOW + 60}, NOW + 60),
        ({"exp": NOW + 60, "expire_at": NOW + 5}, NOW + 5),
        ({"exp": NOW + 60, "expire_at": 0}, None),
        ({"expire_at": NOW + 5}, NOW + 5),
    ],
)
def test_a_connection_expires_at_exp_unless_expire_at_is_set(
    payload: dict[str, Any], expires_at: float | None
) -> None:
    """`expire_at` is independent of `exp`; 0 means never."""
    assert claims(connection_token("ada", **payload)).expires_at == expires_at


@pytest.mark.parametrize(
    ("payload", "is_valid"),
    [
        ({"aud": "us", "iss": "app"}, True),
        ({"aud": ["others", "us"], "iss": "app"}, True),
        ({"aud": "others", "iss": "app"}, False),
        ({"aud": ["others"], "iss": "app"}, False),
        ({"aud": [], "iss": "app"}, False),
        ({"iss": "app"}, False),
        ({"aud": "us"}, False),
        ({"aud": "us", "iss": "other"}, False),
        ({"aud": "u", "iss": "app"}, False),
    ],
)
def test_audience_and_issuer_are_checked_where_configured(payload: dict[str, Any], is_valid: bool) -> None:
    """Elsewhere every value is accepted."""
    token = connection_token("ada", **payload)
    assert claims(token).sub == "ada"
    if is_valid:
        assert claims(token, token_audience="us", token_issuer="app").sub == "ada"
    else:
        with pytest.raises(TokenInvalid):
            claims(token, token_audience="us", token_issuer="app")


@pytest.mark.parametrize(
    "payload",
    [
        {"sub": 42},
        {"sub": ["ada"]},
        {"exp": "soon"},
        {"exp": True},
        {"exp": -1},
        {"nbf": [1]},
        {"expire_at": {}},
        {"aud": 5},
        {"aud": [5]},
        {"iss": {}},
        {"channels": "news"},
        {"channels": [1]},
        {"channels": [""]},
        {"subs": ["news"]},
        {"subs": {"news": 5}},
        {"subs": {"": {}}},
        {"subs": {"news": {"override": {"presence": True}}}},
        {"b64info": 5},
        {"channel": "news"},
        {"channel": ""},
        {"channel": 5},
        {"channel": {}},
    ],
)
def test_claims_of_a_wrong_type_or_range_are_invalid(payload: dict[str, Any]) -> None:
    """Wrong types, negative times, and the `channel` of a subscription token."""
    with pytest.raises(TokenInvalid):
        claims(signed(json.dumps(payload).encode()))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b'{"sub":"ada"',
        b'{"sub":"\xff"}',
        b'{"info":"\xed\xa0\x80"}',
        b'{"sub":"ada"} {"sub":"bob"}',
        b'{"a":' * 100_000,
        b'{"info":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_a_payload_that_is_not_a_json_object_in_utf8_is_invalid(payload: bytes) -> None:
    """Its signature is valid."""
    with pytest.raises(TokenInvalid):
        claims(signed(payload))


def test_a_huge_token_is_valid() -> None:
    """The transport limits its size."""
    token = connection_token("ada", info={"x": "y" * 60_000}, channels=[f"c{n}" for n in range(1_000)])
    assert len(claims(token).grants) == 1_000


def test_subs_replace_channels() -> None:
    """Also where `subs` is empty."""
    both = claims(connection_token("ada", channels=["a"], subs={"b": {"info": 1}}))
    assert set(both.grants) == {"b"}
    assert bytes(both.grants["b"].info) == b"1"
    assert claims(connection_token("ada", channels=["a"], subs={})).grants == {}
    assert set(claims(connection_token("ada", channels=["a", "a"])).grants) == {"a"}


# ---------------------------------------------------------------------------------------- subscription tokens


def test_a_subscription_token_names_its_user_channel_and_client() -> None:
    """It also carries data, options and an expiry."""
    token = subscription_token(
        "ada", "news", client="c1", data={"x": 1}, override={"force_recovery": {"value": True}}, exp=NOW + 9
    )
    claimed = verifier().subscription(token, NOW)
    assert (claimed.sub, claimed.channel, claimed.client, bytes(claimed.data)) == (
        "ada",
        "news",
        "c1",
        b'{"x":1}',
    )
    assert claimed.override == Override(force_recovery=Flag(value=True))
    assert claimed.expires_at == NOW + 9
    with pytest.raises(TokenExpired):
        verifier().subscription(token, NOW + 9)


@pytest.mark.parametrize("payload", [{"sub": "ada"}, {"sub": "ada", "channel": None}, {"channel": 5}])
def test_a_subscription_token_must_name_its_channel(payload: dict[str, Any]) -> None:
    """So a connection token is not a subscription token."""
    with pytest.raises(TokenInvalid):
        verifier().subscription(signed(json.dumps(payload).encode()), NOW)


# ---------------------------------------------------------------------------------------------------- leeway


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({"exp": NOW - 4}, None),
        ({"exp": NOW - 6}, TokenExpired),
        ({"nbf": NOW + 4, "exp": NOW + 60}, None),
        ({"nbf": NOW + 6, "exp": NOW + 60}, TokenNotYetValid),
        ({"iat": NOW + 600}, None),
    ],
)
def test_times_are_compared_with_a_leeway(payload: dict[str, Any], error: type[Exception] | None) -> None:
    """Five seconds by default: the clocks of two machines differ (RFC 7519 §4.1.4)."""
    leeway = ClientOptions().token_leeway
    assert leeway == 5
    token = connection_token("ada", **payload)
    if error is None:
        assert claims(token, token_leeway=leeway).sub == "ada"
    else:
        with pytest.raises(error):
            claims(token, token_leeway=leeway)


# ----------------------------------------------------------------------------------------------- null claims


@pytest.mark.parametrize(
    "name",
    ["sub", "exp", "nbf", "expire_at", "aud", "iss", "info", "b64info", "channel", "channels", "subs", "jti"],
)
def test_a_null_claim_counts_as_absent(name: str) -> None:
    """Libraries of many languages write it for a member that is not set."""
    given = claims(signed(json.dumps({"sub": "ada", name: None}).encode()))
    absent = claims(signed(json.dumps({"sub": "ada"} if name != "sub" else {}).encode()))
    for claim in ("sub", "exp", "nbf", "expire_at", "aud", "iss", "b64info", "grants"):
        assert getattr(given, claim) == getattr(absent, claim)
    assert embedded(given.info, given.b64info) is NO_JSON


def test_a_null_member_of_a_grant_counts_as_absent() -> None:
    """Without options the channel is granted as it is."""
    grants = {
        "a": None,
        "b": {"info": None, "override": None},
        "c": {"override": {"presence": {"value": None}}},
    }
    claimed = claims(signed(json.dumps({"subs": grants}).encode()))
    assert set(claimed.grants) == {"a", "b", "c"}
    assert claimed.grants["c"].override == Override(presence=Flag(value=False))


def test_a_null_member_does_not_change_other_claims() -> None:
    """Info is kept byte for byte, with its own nulls."""
    claimed = claims(signed(b'{"sub":"ada","aud":null,"info":{ "a" : null, "b" : 1.0 }}'))
    assert bytes(embedded(claimed.info, claimed.b64info)) == b'{ "a" : null, "b" : 1.0 }'


# --------------------------------------------------------------------------------------------------- payloads


@pytest.mark.parametrize(
    "info", [b"1.0", b"false", b'"\\u00e9"', b'{ "b" : 1,  "a" : 1e2 }', b'{"a":1,"a":2}']
)
def test_info_is_kept_byte_for_byte(info: bytes) -> None:
    """In both forms, JSON and base64. The server does not parse it."""
    raw = claims(signed(b'{"info": %s }' % info))
    encoded = claims(signed(b'{"b64info":"%s"}' % b64(info).encode()))
    assert bytes(embedded(raw.info, raw.b64info)) == info
    assert bytes(embedded(encoded.info, encoded.b64info)) == info


def test_only_line_breaks_are_removed_from_info() -> None:
    """They are allowed only between JSON tokens, and would divide a message in two."""
    info = b'{\r\n  "a": "\\n"\n}'
    raw = claims(signed(b'{"info":%s}' % info))
    for payload in (embedded(raw.info, ""), embedded(NO_JSON, b64(info))):
        assert bytes(payload) == b'{  "a": "\\n"}'


def test_absent_info_is_the_constant_for_no_json() -> None:
    """Messages leave it out by its identity."""
    claimed = claims(connection_token("ada"))
    assert embedded(claimed.info, claimed.b64info) is NO_JSON


@pytest.mark.parametrize(
    "text", ["!!!", "e30", "e30=x", b64(b"{"), b64(b"\xff"), b64(b'"\xff"'), b64(b" "), "é"]
)
def test_base64_that_holds_no_json_is_invalid(text: str) -> None:
    """A wrong alphabet, wrong padding, or a content that is not JSON."""
    with pytest.raises(TokenInvalid):
        embedded(NO_JSON, text)
