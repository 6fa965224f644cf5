r"""Public keys in PEM form: read as people and tools write them, and checked by loading them.

An environment variable often has a key on one line: with `\n` in place of line breaks, or with spaces.
"""

from __future__ import annotations

import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

RSA_BITS = range(2048, 8193)
"""Shorter keys are too weak (NIST SP 800-131A); a signature of a longer one takes milliseconds to verify."""

CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
"""The algorithm of each curve (RFC 7518 §3.4)."""

_EXPONENT_BITS = 64
_BLOCK = re.compile(r"-----BEGIN ([A-Z ]+)-----(.*?)-----END \1-----", re.DOTALL)
_LINE_BREAK = re.compile(r"\\[rn]|\s")
_LABELS = {"PUBLIC KEY", "RSA PUBLIC KEY"}
_OTHER_LABELS = {
    "CERTIFICATE": 'not a certificate: "openssl x509 -pubkey -noout" prints its public key',
    "PRIVATE KEY": 'not a private key: "openssl pkey -pubout" prints its public key',
}
_KINDS = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey


def public_key_pem(text: str) -> str:
    """Return a public key with its line breaks. Raises ValueError that completes "KEY must be …"."""
    blocks = _BLOCK.findall(text)
    if not blocks or _BLOCK.sub("", text).strip("\\rn \r\n\t"):
        raise ValueError(
            'a public key in PEM form, from "-----BEGIN PUBLIC KEY-----" to "-----END PUBLIC KEY-----"'
        )
    if len(blocks) > 1:
        raise ValueError(f"one public key, and not {len(blocks)}")
    label, body = blocks[0]
    if label not in _LABELS:
        other = next(
            (advice for name, advice in _OTHER_LABELS.items() if label.endswith(name)), "nothing else"
        )
        raise ValueError(f"a public key in PEM form, {other}")
    lines = re.findall(".{1,64}", _LINE_BREAK.sub("", body))
    pem = "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])
    _check(pem)
    return pem


def _check(pem: str) -> None:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("a complete public key in PEM form, as openssl writes it") from None
    if not isinstance(key, _KINDS):
        raise ValueError("a public key for RS, ES or EdDSA signatures")  # noqa: TRY004 - pydantic expects it
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name not in CURVES:
        raise ValueError(f"a key of the curve P-256, P-384 or P-521, and not {key.curve.name}")
    check_strength(key)


def check_strength(key: object) -> None:
    """Raise ValueError for an RSA key that is too weak, or with which verifying takes too long."""
    if isinstance(key, RSAPublicKey) and (
        key.key_size not in RSA_BITS or key.public_numbers().e.bit_length() > _EXPONENT_BITS
    ):
        raise ValueError(f"an RSA key of {RSA_BITS[0]} to {RSA_BITS[-1]} bits with a short exponent")
