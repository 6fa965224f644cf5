"""Keys of tokens: which JSON Web Keys are accepted, and with which algorithms each may be used."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from tests.support.identity_provider import PRIVATE_KEYS, public_jwk
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.token_keys import configured_key, json_key, pem_key, secret_key

RS = {"RS256", "RS384", "RS512"}
PS = {"PS256", "PS384", "PS512"}
LONG_EXPONENT = base64.urlsafe_b64encode((2**70 + 1).to_bytes(9, "big")).decode()


def pem(key: PrivateKeyTypes) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
def test_the_alg_of_a_key_is_its_only_algorithm(algorithm: str) -> None:
    assert json_key(public_jwk(algorithm)).algorithms == {algorithm}
    assert json_key(public_jwk(algorithm)).limited_to(()).algorithms == {algorithm}


@pytest.mark.parametrize(
    ("algorithm", "usual"),
    [("RS256", RS), ("ES256", {"ES256"}), ("ES384", {"ES384"}), ("ES512", {"ES512"}), ("EdDSA", {"EdDSA"})],
)
def test_without_alg_the_type_and_curve_of_a_key_determine_its_algorithms(
    algorithm: str, usual: set[str]
) -> None:
    """In PEM as well. PS algorithms count only if they are configured."""
    for key in (json_key(public_jwk(algorithm, alg=None)), pem_key(pem(PRIVATE_KEYS[algorithm]))):
        assert key.limited_to(()).algorithms == usual
        assert key.limited_to(["PS256", "HS256", "ES384"]).algorithms == (key.algorithms & {"PS256", "ES384"})


def weak_jwk(bits: int) -> dict[str, Any]:
    public = rsa.generate_private_key(65537, bits).public_key()
    return jwt.get_algorithm_by_name("RS256").to_jwk(public, as_dict=True) | {"key_ops": ["verify"]}


@pytest.mark.parametrize(
    ("jwk", "reason"),
    [
        ("no object", "not a JSON object"),
        ([], "not a JSON object"),
        ({}, "of a type or curve"),
        ({"kty": "oct", "k": "aGVsbG8"}, "a secret"),
        (public_jwk("RS256", kid=5), "valid key id"),
        (public_jwk("RS256", "k" * 257), "valid key id"),
        (public_jwk("RS256", use="enc"), "use"),
        (public_jwk("RS256", key_ops=["encrypt"]), "key_ops"),
        (public_jwk("RS256", key_ops="verify"), "key_ops"),
        (public_jwk("RS256", d="AQAB"), "a private key"),
        (public_jwk("RS256", alg="HS256"), "alg"),
        (public_jwk("RS256", alg="none"), "alg"),
        (public_jwk("RS256", alg="RSA-OAEP"), "alg"),
        (public_jwk("RS256", alg=["RS256"]), "alg"),
        (public_jwk("ES256", alg="ES384"), "alg"),
        (public_jwk("ES256", crv="secp256k1"), "type or curve"),
        (public_jwk("ES256", crv=["P-256"]), "type or curve"),
        (public_jwk("ES256", crv="P-384", alg="ES384"), "wrong value"),
        (public_jwk("ES256", x="AAAA"), "wrong value"),
        (public_jwk("ES256", y=None), "wrong value"),
        (public_jwk("ES256", x=5), "wrong value"),
        (public_jwk("ES256", x=public_jwk("ES256")["y"]), "wrong value"),
        (public_jwk("EdDSA", crv="X25519"), "type or curve"),
        (public_jwk("EdDSA", x="AA"), "wrong value"),
        (public_jwk("RS256", n=None), "incomplete"),
        (public_jwk("RS256", n="A" * 100_000), "too long"),
        (public_jwk("RS256", e=65537), "incomplete"),
        (public_jwk("RS256", e="A"), "wrong value"),
        (public_jwk("RS256", e=LONG_EXPONENT), "short exponent"),
        (weak_jwk(1024), "2048"),
    ],
    ids=range(30),
)
def test_a_key_that_cannot_be_used_is_refused_with_the_reason(jwk: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        json_key(jwk)


def test_a_key_is_configured_as_pem_as_a_text_as_a_table_or_in_a_set() -> None:
    """One of them, or several in a list."""
    written = [
        pem(PRIVATE_KEYS["ES384"]).replace("\n", "\\n"),
        json.dumps(public_jwk("ES256")),
        public_jwk("EdDSA", "k2"),
        {"keys": [public_jwk("RS256", "k3"), {"kty": "oct", "kid": "k4", "k": "c2VjcmV0" * 8}]},
    ]
    keys = [configured_key(text) for text in ClientOptions.model_validate({"token_keys": written}).token_keys]
    assert [key.key_id for key in keys] == ["", "k1", "k2", "k3", "k4"]
    (one,) = ClientOptions.model_validate({"token_keys": written[1]}).token_keys
    assert configured_key(one).algorithms == {"ES256"}


@pytest.mark.parametrize("value", ["hush", "{", 5, {"keys": [5]}, [public_jwk("RS256", d="AQAB")]])
def test_a_configured_key_that_cannot_be_used_is_an_error(value: object) -> None:
    with pytest.raises(ValidationError):
        ClientOptions.model_validate({"token_keys": value})


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256K1())], ids=["RSA", "EC"]
)
def test_a_weak_key_and_one_of_another_curve_are_refused_in_pem(key: PrivateKeyTypes) -> None:
    with pytest.raises(ValidationError):
        ClientOptions(token_public_key=pem(key))


def test_a_public_key_is_no_secret() -> None:
    """A back end that mixes the two up is told, and no token can be forged with the public key."""
    for text in (pem(PRIVATE_KEYS["RS256"]), json.dumps(public_jwk("ES256"))):
        with pytest.raises(ValueError, match="neither a public key"):
            secret_key(text)
        with pytest.raises(ValidationError):
            ClientOptions(token_hmac_secret=text)
