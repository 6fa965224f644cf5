"""CPU of deciding about a connection token, beside libraries alone. The contenders take turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import jwt
import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from tests.support.identity_provider import PRIVATE_KEYS, public_jwk, sign
from tests.support.tokens import SECRET, connection_token
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.issuer_options import IssuerOptions
from tocsin_server.core.revocations import Revocation, Revocations
from tocsin_server.core.tokens import ConnectionClaims, TokenVerifier

NOW = time.time()
TURNS = 20
CALLS = 200


class TokenCosts(NamedTuple):
    """Microseconds for each token."""

    secret: float
    """`TokenVerifier`, with a secret."""
    pyjwt: float
    """PyJWT and msgspec alone, with the same secret."""
    issuer: float
    """`TokenVerifier`, with an RSA key of an issuer, chosen among 20 by its key id."""
    rsa: float
    """Verifying the RSA signature alone."""
    revoked: float
    """Looking a token up in 100,000 revocations."""


def token_costs() -> TokenCosts:
    """Measure all of them in turns, and take each one's fastest turn."""
    token = connection_token("ann", exp=NOW + 3600, iat=NOW, jti="t1", info={"name": "Ann"})
    claims = {"iss": "idp", "aud": "tocsin", "sub": "ann", "exp": NOW + 3600, "groups": ["a", "b"]}
    issued = sign(claims, key_id="k7")
    keys = [public_jwk("RS256", f"k{number}") for number in range(20)]
    options = IssuerOptions.model_validate(
        {"issuer": "idp", "audiences": ["tocsin"], "keys": keys, "channels": ["groups:{groups}"]}
    )
    own = TokenVerifier(ClientOptions(token_hmac_secret=SECRET))
    others = TokenVerifier(ClientOptions(token_hmac_secret=SECRET), {"idp": options})
    library = jwt.PyJWS()
    signed, _, signature = issued.rpartition(".")
    raw_signature = jwt.utils.base64url_decode(signature)
    public = PRIVATE_KEYS["RS256"].public_key()
    known = Revocations()
    for number in range(100_000):
        known.add(Revocation(NOW + 3600, token_id=f"r{number}"), NOW)

    def with_library() -> object:
        payload = library.decode(token, SECRET, algorithms=["HS256", "HS384", "HS512"])
        return msgspec.json.decode(payload, type=ConnectionClaims)

    def rsa() -> object:
        return public.verify(raw_signature, signed.encode(), padding.PKCS1v15(), hashes.SHA256())

    return TokenCosts(
        *_microseconds(
            lambda: own.connection(token, NOW),
            with_library,
            lambda: others.connection(issued, NOW),
            rsa,
            lambda: known.covers("t1", "ann", NOW, NOW),
        )
    )


def _microseconds(*contenders: Callable[[], object]) -> list[float]:
    best = [float("inf")] * len(contenders)
    for _ in range(TURNS):
        for index, contender in enumerate(contenders):
            began = time.process_time()
            for _ in range(CALLS):
                contender()
            best[index] = min(best[index], (time.process_time() - began) / CALLS * 1e6)
    return best
