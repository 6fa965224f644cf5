"""Keys that verify tokens: read from secrets, PEM and JSON Web Keys (RFC 7517), and checked by loading them.

Each key has the algorithms that it may be used with. They come from its type, its curve and its `alg`, never
from a token. This module is pure; its errors complete the sentence "KEY must be …".
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tocsin_server.config.pem import CURVES, RSA_BITS, check_strength, public_key_pem

HMAC_ALGORITHMS = ("HS256", "HS384", "HS512")
PUBLIC_KEY_ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA")
PSS_ALGORITHMS = ("PS256", "PS384", "PS512")
"""An RSA key verifies them only if they are configured, or if its JSON Web Key has one as its `alg`."""

ALGORITHMS = (*HMAC_ALGORITHMS, *PUBLIC_KEY_ALGORITHMS, *PSS_ALGORITHMS)

KEY_ID_LIMIT = 256
"""How many characters a key id may have. Those of identity providers have up to about 60."""

_MODULUS_CHARACTERS = 2 * RSA_BITS.stop // 8
_SECRET_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_LOADING_ERRORS = (
    jwt.PyJWTError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    UnsupportedAlgorithm,
)
"""What libraries raise for the members of a JSON Web Key that have a wrong type or value."""


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key, the algorithms that it may be used with, and its key id; "" if it has none."""

    key: Any = field(repr=False)
    algorithms: frozenset[str]
    key_id: str = ""

    def limited_to(self, algorithms: Collection[str]) -> TokenKey:
        """The same key for the configured ones of its algorithms; without a list, for its usual ones."""
        usual = self.algorithms if len(self.algorithms) == 1 else self.algorithms - {*PSS_ALGORITHMS}
        return TokenKey(self.key, self.algorithms & {*algorithms} if algorithms else usual, self.key_id)


def secret_key(secret: str) -> TokenKey:
    """A secret as a key. Raises ValueError for a text that is a key of another kind."""
    try:
        key = jwt.get_algorithm_by_name("HS256").prepare_key(secret)
    except jwt.InvalidKeyError:
        raise ValueError("a secret, and neither a public key, a certificate nor a JSON Web Key") from None
    return TokenKey(key, frozenset(HMAC_ALGORITHMS))


def pem_key(pem: str) -> TokenKey:
    """A public key in the form that `pem.public_key_pem` returns."""
    key = load_pem_public_key(pem.encode())
    if isinstance(key, RSAPublicKey):
        return TokenKey(key, frozenset((*PUBLIC_KEY_ALGORITHMS[:3], *PSS_ALGORITHMS)))
    if isinstance(key, EllipticCurvePublicKey):
        return TokenKey(key, frozenset({CURVES[key.curve.name]}))
    return TokenKey(key, frozenset({"EdDSA"}))


def json_key(jwk: object, *, may_be_secret: bool = False) -> TokenKey:
    """A JSON Web Key. Raises ValueError that completes "the key is …".

    A key that can sign is refused, so that a private key is not left in a configuration. `may_be_secret`
    accepts secrets (`oct`).
    """
    if not isinstance(jwk, Mapping):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one error for all that is wrong
    key_id = jwk.get("kid", "")
    if not isinstance(key_id, str) or len(key_id) > KEY_ID_LIMIT:
        raise ValueError(f"without a valid key id: a string of at most {KEY_ID_LIMIT} characters")
    _check_use(jwk)
    is_secret = jwk.get("kty") == "oct"
    if is_secret and not may_be_secret:
        raise ValueError("a secret (oct)")
    if not is_secret and not _SECRET_MEMBERS.isdisjoint(jwk):
        raise ValueError("a private key")
    algorithms = _algorithms_of(jwk)
    key = _loaded(jwk, min(algorithms))
    return TokenKey(key, algorithms, key_id)


def _check_use(jwk: Mapping[str, Any]) -> None:
    """RFC 7517 §4.2, §4.3: the key is for signatures, and its owner lets others verify with it."""
    if jwk.get("use", "sig") != "sig":
        raise ValueError("not for signatures (use)")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("not for verifying (key_ops)")


def _algorithms_of(jwk: Mapping[str, Any]) -> frozenset[str]:
    kty, curve = jwk.get("kty"), jwk.get("crv")
    found: tuple[str, ...] = ()
    if kty == "oct":
        found = HMAC_ALGORITHMS
    elif kty == "RSA":
        found = (*PUBLIC_KEY_ALGORITHMS[:3], *PSS_ALGORITHMS)
    elif kty == "EC" and isinstance(curve, str) and curve in _CURVES:
        found = (_CURVES[curve],)
    elif kty == "OKP" and curve in ("Ed25519", "Ed448"):
        found = ("EdDSA",)
    if not found:
        raise ValueError("of a type or curve that Tocsin does not support")
    algorithm = jwk.get("alg")
    if algorithm is None:
        return frozenset(found)
    if algorithm not in found:
        raise ValueError("for an algorithm (alg) that Tocsin does not support or that does not fit its type")
    return frozenset({algorithm})


def _loaded(jwk: Mapping[str, Any], algorithm: str) -> Any:
    modulus, exponent = jwk.get("n"), jwk.get("e")
    if jwk.get("kty") == "RSA" and not (
        isinstance(modulus, str) and isinstance(exponent, str) and len(modulus) <= _MODULUS_CHARACTERS
    ):
        raise ValueError("incomplete, or too long")
    try:
        key = jwt.PyJWK(dict(jwk), algorithm).key
    except _LOADING_ERRORS:
        raise ValueError("incomplete, or has a member with a wrong value") from None
    try:
        check_strength(key)
    except ValueError as error:
        raise ValueError(f"too weak or too costly: it must be {error}") from None
    return key


def configured_key_texts(value: object) -> object:
    """The keys of the configuration as texts that `configured_key` reads, from one key or a list of them.

    A key is a public key in PEM, a JSON Web Key as a text or a table, or a set of them. Raises ValueError.
    """
    values = value if isinstance(value, list | tuple) else [value]
    return [text for one in values for text in _key_texts(one)]


def _key_texts(value: object) -> Iterator[str]:
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        if value.strip():
            yield public_key_pem(value)
        return
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise ValueError("public keys in PEM form, or JSON Web Keys") from None
    is_set = isinstance(found, Mapping) and isinstance(found.get("keys"), list)
    for jwk in found["keys"] if isinstance(found, Mapping) and is_set else [found]:
        try:
            json_key(jwk, may_be_secret=True)
        except ValueError as error:
            raise ValueError(f"JSON Web Keys that can be used, and not one that is {error}") from None
        yield json.dumps(jwk)


def configured_key(text: str) -> TokenKey:
    """A key of the configuration: one of the texts that `configured_key_texts` returns."""
    return json_key(json.loads(text), may_be_secret=True) if text.startswith("{") else pem_key(text)
