"""Several issuers and keys: which key verifies a token, and what its claims mean."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from tests.support.identity_provider import PRIVATE_KEYS, public_jwk, sign
from tests.support.tokens import SECRET, connection_token
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.issuer_options import IssuerOptions
from tocsin_server.config.token_keys import json_key
from tocsin_server.core.issuer import is_safe
from tocsin_server.core.tokens import (
    ConnectionClaims,
    KeysUnavailable,
    MappedClaims,
    TokenExpired,
    TokenInvalid,
    TokenVerifier,
)

NOW = 1_900_000_000.0
IDP = "https://id.example"
URL = "https://id.example/keys"
OTHER_SECRET = "another secret, which is long enough too"
CLAIMS = {"iss": IDP, "aud": "tocsin", "sub": "ann", "exp": NOW + 60}


def verifier(client: dict[str, Any] | None = None, **options: Any) -> TokenVerifier:
    """A verifier with the secret of the tests, and with an issuer that has one RSA key."""
    section = {"issuer": IDP, "audiences": ["tocsin"], "keys": [public_jwk("RS256")], **options}
    return TokenVerifier(
        ClientOptions.model_validate(client or {"token_hmac_secret": SECRET}),
        {"idp": IssuerOptions.model_validate(section)},
    )


def user_of(token: str, checked: TokenVerifier | None = None) -> str:
    return (checked or verifier()).connection(token, NOW).sub


def by_hand(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    """A token that a library refuses to make, signed with HS256."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = hmac.digest(secret, b".".join(parts), hashlib.sha256)
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def refused(token: str, checked: TokenVerifier | None = None) -> str:
    """Why a token is refused."""
    with pytest.raises(TokenInvalid) as caught:
        (checked or verifier()).connection(token, NOW)
    return str(caught.value)


# ----------------------------------------------------------------------------------------------- several keys


def test_a_secret_can_be_replaced_while_both_are_accepted() -> None:
    both = TokenVerifier(ClientOptions(token_hmac_secret=SECRET, token_secrets=(OTHER_SECRET,)))
    for secret in (SECRET, OTHER_SECRET):
        assert user_of(connection_token("ann", secret=secret), both) == "ann"
    assert "signature" in refused(connection_token("ann", secret=SECRET * 2), both)


def test_a_key_id_chooses_the_key() -> None:
    """Two keys of different types may have one id, because the algorithm belongs to the key too."""
    checked = TokenVerifier(
        ClientOptions.model_validate(
            {"token_keys": [public_jwk("RS256", "a"), public_jwk("ES256", "a"), public_jwk("EdDSA", "b")]}
        )
    )
    for algorithm, key_id in [("RS256", "a"), ("ES256", "a"), ("EdDSA", "b"), ("EdDSA", None), ("RS256", "")]:
        assert user_of(sign({"sub": "ann"}, algorithm, key_id), checked) == "ann"
    for algorithm, key_id in [("RS256", "b"), ("EdDSA", "a"), ("EdDSA", "c")]:
        assert (
            refused(sign({"sub": "ann"}, algorithm, key_id), checked) == "no key of its issuer has its key id"
        )


def test_the_algorithms_can_be_restricted() -> None:
    """To those that cost little to verify."""
    keys = {"token_hmac_secret": SECRET, "token_keys": [public_jwk("RS256", alg=None), public_jwk("ES512")]}
    restricted = TokenVerifier(ClientOptions.model_validate({**keys, "token_algorithms": ["HS256", "PS256"]}))
    assert user_of(connection_token("ann"), restricted) == "ann"
    assert user_of(sign({"sub": "ann"}, "PS256"), restricted) == "ann"
    for algorithm in ("RS256", "ES512"):
        reason = refused(sign({"sub": "ann"}, algorithm), restricted)
        assert reason == f"it is signed with {algorithm}, which client does not permit"
    usual = TokenVerifier(ClientOptions.model_validate(keys))
    assert "PS256" in refused(sign({"sub": "ann"}, "PS256"), usual)


# --------------------------------------------------------------------------------------------------- issuers


def test_a_token_belongs_to_the_issuer_that_it_names() -> None:
    assert user_of(sign(CLAIMS)) == "ann"
    assert user_of(connection_token("ann")) == "ann"
    assert user_of(connection_token("ann", iss="https://other.example")) == "ann"


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (
            connection_token("ann", iss=IDP, aud="tocsin", exp=NOW + 60),
            "HS256, which issuers.idp does not permit",
        ),
        (sign({**CLAIMS, "iss": "https://other.example"}), "client.token_public_key is not set"),
        (sign({**CLAIMS, "iss": [IDP]}), "no signed JSON Web Token"),
        (sign({**CLAIMS, "aud": "other"}), "aud is other, not issuers.idp.audiences (tocsin)"),
        (sign({**CLAIMS, "aud": None}), "aud is not set"),
        (sign({**CLAIMS, "exp": None}), "it never expires"),
        (sign({**CLAIMS, "sub": None}), "its claim sub names no user"),
        (sign({**CLAIMS, "sub": ""}), "its claim sub names no user"),
        (sign(CLAIMS, "ES256"), "ES256, which issuers.idp does not permit"),
        (sign(CLAIMS, key_id="k2"), "no key of its issuer has its key id"),
    ],
)
def test_a_key_of_one_issuer_does_not_verify_tokens_of_another(token: str, reason: str) -> None:
    assert reason in refused(token)


def test_a_token_of_an_unknown_issuer_is_refused_where_client_has_no_keys() -> None:
    checked = verifier({"allow_anonymous": True})
    assert refused(connection_token("ann", iss="other"), checked) == "its iss is that of no configured issuer"


def test_times_are_compared_with_the_leeway_of_the_issuer() -> None:
    late = sign({**CLAIMS, "exp": NOW - 20})
    assert user_of(late, verifier(leeway=30)) == "ann"
    with pytest.raises(TokenExpired):
        user_of(late)
    with pytest.raises(TokenExpired):
        user_of(sign({**CLAIMS, "nbf": NOW + 20}))
    assert verifier(leeway=30).leeway_for(ConnectionClaims(iss=IDP)) == 30
    assert verifier(leeway=30).leeway_for(ConnectionClaims(iss="other")) == 5


# -------------------------------------------------------------------------------------------------- confusion


def public_key_bytes() -> list[bytes]:
    pem = PRIVATE_KEYS["RS256"].public_key().public_bytes
    text = pem(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = pem(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return [text, text.strip(), der, json.dumps(public_jwk("RS256")).encode()]


@pytest.mark.parametrize("algorithm", ["HS256", "none", "None", "", None, 5, "RS256", "PS256", "ES256"])
def test_no_header_makes_a_public_key_a_secret(algorithm: Any) -> None:
    """And no key an unsigned token's."""
    for secret in (*public_key_bytes(), b"", b"k1"):
        token = by_hand({"alg": algorithm, "kid": "k1"}, CLAIMS, secret)
        assert refused(token)
        assert refused(token.rpartition(".")[0] + ".")


@pytest.mark.parametrize(
    "header",
    [
        {"jku": "http://127.0.0.1:1/keys"},
        {"x5u": "http://127.0.0.1:1/cert"},
        {"jwk": public_jwk("ES256")},
        {"x5c": ["MIIB"]},
    ],
)
def test_keys_and_addresses_in_a_header_are_never_used(header: dict[str, Any]) -> None:
    """A token with the configured key is valid beside them; one with the key of the header is not."""
    assert user_of(sign(CLAIMS, **header)) == "ann"
    assert refused(sign(CLAIMS, "ES256", None, **header))
    assert refused(sign(CLAIMS, "ES256", "k1", **header))


@pytest.mark.parametrize(
    "key_id", ["../../etc/passwd", "k1\0", "K1", " k1", "k1' OR 1=1", "k" * 256, "http://x/"]
)
def test_a_key_id_is_only_compared(key_id: str) -> None:
    assert refused(sign(CLAIMS, key_id=key_id)) == "no key of its issuer has its key id"


@pytest.mark.parametrize("key_id", ["k" * 257, 5, ["k1"], {"k": 1}, True])
def test_a_key_id_that_is_long_or_no_text_is_refused(key_id: Any) -> None:
    assert refused(by_hand({"alg": "HS256", "kid": key_id}, CLAIMS, b"x")) == "it is no signed JSON Web Token"


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token.replace(".", "..", 1),
        lambda token: token + "A",
        lambda token: token + "====",
        lambda token: token + " ",
        lambda token: token.replace(".", "=.", 1) if len(token.split(".")[0]) % 4 == 0 else f"={token}",
        lambda token: token[:-1] + ("B" if token[-1] == "A" else "A"),
        lambda token: token.rpartition(".")[0] + ".é",
        lambda token: token.replace("-", "+").replace("_", "/") + "/",
    ],
)
def test_a_changed_token_is_invalid(change: Any) -> None:
    """Also where a lenient decoder would read the same bytes."""
    assert refused(change(connection_token("ann")))


def test_a_signature_is_written_in_one_way() -> None:
    """In the alphabet of base64url, and with the last bits zero."""
    tokens = (connection_token("ann", n=number) for number in range(1000))
    token = next(one for one in tokens if set(one.rpartition(".")[2][:-1]) & {"-", "_"})
    head, _, signature = token.rpartition(".")
    assert user_of(token) == "ann"
    assert refused(f"{head}.{signature.replace('-', '+').replace('_', '/')}")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert refused(f"{head}.{signature[:-1]}{alphabet[alphabet.index(signature[-1]) ^ 1]}")


@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_no_text_makes_the_verifier_fail(text: str) -> None:
    checked = verifier(jwks_url=URL)
    for token in (text, f"{text}.{text}.{text}", f"{sign(CLAIMS).split('.')[0]}.{text}.{text}"):
        checked.issuer_to_ask(token)
        with pytest.raises((TokenInvalid, KeysUnavailable)):
            checked.connection(token, NOW)


# ------------------------------------------------------------------------------------------------ claims


def test_tocsin_s_claims_of_an_identity_provider_are_ignored() -> None:
    """Its users may be able to set claims of these names, such as attributes of their profile."""
    given_claims = {"channels": ["a"], "subs": {"b": {}}, "info": 1, "channel": "c", "expire_at": 0}
    claims = verifier().connection(sign({**CLAIMS, **given_claims}), NOW)
    assert (claims.grants, bytes(claims.info), claims.expires_at) == ({}, b"", NOW + 60)
    with pytest.raises(TokenInvalid, match="tocsin_claims is false"):
        verifier().subscription(sign({**CLAIMS, "channel": "c"}), NOW)


def test_tocsin_s_claims_of_a_back_end_count() -> None:
    own = verifier(tocsin_claims=True, user_prefix="b:", channels=["extra"])
    token = sign({**CLAIMS, "channels": ["a"], "info": {"x": 1}, "expire_at": 0})
    claims = own.connection(token, NOW)
    assert (claims.sub, set(claims.grants), claims.expires_at) == ("b:ann", {"a", "extra"}, None)
    claims = own.connection(sign({**CLAIMS, "subs": {"extra": {"info": 5}}, "channels": ["a"]}), NOW)
    assert (set(claims.grants), bytes(claims.grants["extra"].info)) == ({"extra"}, b"5")
    subscription = own.subscription(sign({**CLAIMS, "channel": "c"}), NOW)
    assert (subscription.sub, subscription.channel) == ("b:ann", "c")
    assert "subscription token" in refused(sign({**CLAIMS, "channel": "c"}), own)


@pytest.mark.parametrize(
    ("claim", "claims", "user"),
    [
        ("client_id", {"client_id": "web"}, "web"),
        ("https://tocsin.example/user", {"https://tocsin.example/user": "7"}, "7"),
        ("profile.id", {"profile": {"id": "7"}}, "7"),
        ("profile.id", {"profile.id": "8", "profile": {"id": "7"}}, "8"),
        ("profile.id", {"profile": "7"}, ""),
        ("oid", {"oid": 7}, ""),
        ("oid", {"oid": ["7"]}, ""),
    ],
)
def test_another_claim_can_be_the_user(claim: str, claims: dict[str, Any], user: str) -> None:
    token, checked = sign({**CLAIMS, **claims}), verifier(user_claim=claim)
    if user:
        assert user_of(token, checked) == user
    else:
        assert refused(token, checked) == f"its claim {claim} names no user"


@pytest.mark.parametrize(
    ("claims", "is_valid"),
    [
        ({"token_use": "access", "client_id": "web"}, True),
        ({"token_use": "access", "client_id": ["other", "web"]}, True),
        ({"token_use": "id", "client_id": "web"}, False),
        ({"client_id": "web"}, False),
        ({"token_use": "access", "client_id": "we"}, False),
        ({"token_use": "access", "client_id": {"web": 1}}, False),
    ],
)
def test_a_token_must_have_the_required_claims(claims: dict[str, Any], is_valid: bool) -> None:
    checked = verifier(audiences=[], required_claims={"token_use": "access", "client_id": ["web", "app"]})
    if is_valid:
        assert user_of(sign({**CLAIMS, **claims}), checked) == "ann"
    else:
        assert "issuers.idp.required_claims" in refused(sign({**CLAIMS, **claims}), checked)


@pytest.mark.parametrize(
    ("templates", "claims", "channels"),
    [
        (["news"], {}, ["news"]),
        (["g:{groups}"], {"groups": ["a", "b", "a"]}, ["g:a", "g:b"]),
        (["g:{groups}"], {"groups": "a"}, ["g:a"]),
        (["g:{groups}"], {"groups": []}, []),
        (["g:{groups}"], {}, []),
        (["g:{groups}"], {"groups": {"a": 1}}, []),
        (["g:{scope}"], {"scope": "read write"}, ["g:read", "g:write"]),
        (["g:{other}"], {"other": "read write"}, ["g:read write"]),
        (["r:{realm_access.roles}"], {"realm_access": {"roles": ["x"]}}, ["r:x"]),
        (["t:{tid}.{n}"], {"tid": "T", "n": [1, 2]}, ["t:T.1", "t:T.2"]),
        (["t:{sub}{sub}"], {}, ["t:annann"]),
        (["p:{is_admin}"], {"is_admin": True}, ["p:true"]),
    ],
)
def test_templates_make_channels_of_claims(
    templates: list[str], claims: dict[str, Any], channels: list[str]
) -> None:
    found = verifier(channels=templates).connection(sign({**CLAIMS, **claims}), NOW)
    assert list(found.grants) == channels


@pytest.mark.parametrize(
    "value",
    [
        "a:b",
        "#bob",
        "$a",
        "*",
        "a,b",
        "a?",
        "[a]",
        "{sub}",
        "a&channel=b",
        "a\nb",
        "a\0",
        "é",
        "",
        "a" * 256,
        "\\",
    ],
)
def test_a_claim_cannot_change_the_structure_of_a_channel(value: str) -> None:
    """Such a value makes no channel. The others do, and the operator is told."""
    claims = verifier(channels=["g:{groups}", "news"]).connection(
        sign({**CLAIMS, "groups": [value, "ok"]}), NOW
    )
    assert list(claims.grants) == ["g:ok", "news"]
    assert isinstance(claims, MappedClaims)
    assert claims.incomplete == ("g:{groups}",)
    assert not is_safe(value)


def test_templates_make_a_bounded_number_of_channels() -> None:
    """Two long lists make no million."""
    many = [str(number) for number in range(1000)]
    checked = verifier(channels=["g:{a}-{b}"])
    assert len(checked.connection(sign({**CLAIMS, "a": many, "b": "x"}), NOW).grants) == 1000
    assert "more than 1000 channels" in refused(sign({**CLAIMS, "a": many, "b": ["x", "y"]}), checked)


# ----------------------------------------------------------------------------------------------- fetched keys


def fetching() -> TokenVerifier:
    """A verifier whose issuer has an address, and one configured key beside it."""
    return verifier(jwks_url=URL, keys=[public_jwk("ES256", "own")])


def replace(checked: TokenVerifier, *jwks: dict[str, Any], wanted: tuple[str, ...] = ()) -> None:
    checked.issuers[1].keys.replace_fetched(map(json_key, jwks), wanted)


def test_a_token_waits_for_a_key_that_is_not_known() -> None:
    checked = fetching()
    token = sign(CLAIMS)
    found = checked.issuer_to_ask(token)
    assert found is not None
    assert (found[0].name, found[1]) == ("issuers.idp", "k1")
    with pytest.raises(KeysUnavailable):
        checked.connection(token, NOW)
    replace(checked, public_jwk("RS256"))
    assert checked.issuer_to_ask(token) is None
    assert user_of(token, checked) == "ann"


@pytest.mark.parametrize(
    "token",
    [
        "hush",
        connection_token("ann"),
        sign({**CLAIMS, "iss": "https://other.example"}),
        sign(CLAIMS, "ES256", "own"),
        connection_token("ann", iss=IDP),
        by_hand({"alg": "none", "kid": "k9"}, CLAIMS, b""),
    ],
)
def test_no_key_is_fetched_for_a_token_that_it_would_not_help(token: str) -> None:
    assert fetching().issuer_to_ask(token) is None


def test_an_address_is_not_asked_again_for_a_key_that_it_does_not_have() -> None:
    """Until its set is fetched again."""
    checked, token = fetching(), sign(CLAIMS, key_id="k2")
    replace(checked, public_jwk("RS256"), wanted=("k2",))
    assert checked.issuer_to_ask(token) is None
    assert refused(token, checked) == "no key of its issuer has its key id"
    replace(checked, public_jwk("RS256"))
    assert checked.issuer_to_ask(token) is not None


def test_a_key_that_the_set_no_longer_has_verifies_nothing() -> None:
    """The configured ones stay."""
    checked = fetching()
    replace(checked, public_jwk("RS256"))
    replace(checked, public_jwk("EdDSA", "k2"), wanted=("k1",))
    assert refused(sign(CLAIMS), checked)
    assert user_of(sign(CLAIMS, "EdDSA", "k2"), checked) == "ann"
    assert user_of(sign(CLAIMS, "ES256", "own"), checked) == "ann"


def test_a_token_without_a_key_id_fits_only_a_set_with_one_key_for_it() -> None:
    """A set of many keys does not cost as many signatures (OpenID Connect Core §10.1)."""
    checked, token = fetching(), sign(CLAIMS, key_id=None)
    replace(checked, public_jwk("RS256", "a"), public_jwk("EdDSA", "b"))
    assert user_of(token, checked) == "ann"
    replace(checked, public_jwk("RS256", "a"), public_jwk("RS256", "b"))
    assert refused(token, checked)


def test_the_first_of_two_keys_with_one_id_counts() -> None:
    checked, modulus = fetching(), public_jwk("RS256")["n"]
    replace(checked, public_jwk("RS256"), public_jwk("RS256", n=f"{modulus[:50]}AAAA{modulus[54:]}"))
    assert user_of(sign(CLAIMS), checked) == "ann"
