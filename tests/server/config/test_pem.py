"""Public keys in the forms in which files, variables and tools have them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pydantic import ValidationError

from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.pem import public_key_pem

RSA = rsa.generate_private_key(65537, 2048)
KEYS: list[PrivateKeyTypes] = [
    RSA,
    ec.generate_private_key(ec.SECP256R1()),
    ed25519.Ed25519PrivateKey.generate(),
]


def pem(key: PrivateKeyTypes, public_format: PublicFormat = PublicFormat.SubjectPublicKeyInfo) -> str:
    return key.public_key().public_bytes(Encoding.PEM, public_format).decode()


@pytest.mark.parametrize("key", KEYS, ids=lambda key: type(key).__name__)
@pytest.mark.parametrize(
    "written",
    [
        str,
        lambda text: text.replace("\n", "\\n"),
        lambda text: text.replace("\n", "\\r\\n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", " "),
        lambda text: text.replace("\n", ""),
        lambda text: f"\n  {text}\n\n",
        lambda text: text.replace("\n", "\n    "),
    ],
    ids=["as openssl", "\\n", "\\r\\n", "CRLF", "spaces", "one line", "padded", "indented"],
)
def test_a_key_is_read_however_its_lines_are_broken(key: PrivateKeyTypes, written: object) -> None:
    """As `.env` files, YAML and Windows have it."""
    assert callable(written)
    assert ClientOptions(token_public_key=written(pem(key))).token_public_key == pem(key)


def test_a_key_may_be_in_the_older_form() -> None:
    """PKCS #1, "BEGIN RSA PUBLIC KEY"."""
    text = pem(RSA, PublicFormat.PKCS1)
    assert public_key_pem(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hush", 'from "-----BEGIN PUBLIC KEY-----" to "-----END PUBLIC KEY-----"'),
        (pem(RSA).replace("-----END", ""), 'from "-----BEGIN PUBLIC KEY-----"'),
        (pem(RSA) + "more", 'from "-----BEGIN PUBLIC KEY-----"'),
        (pem(RSA) * 2, "one public key, and not 2"),
        (pem(RSA)[:200] + pem(RSA)[260:], "a complete public key in PEM form"),
        (pem(RSA).replace("PUBLIC KEY", "CERTIFICATE"), "openssl x509 -pubkey -noout"),
        (
            RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "not a private key",
        ),
        (pem(dsa.generate_private_key(1024)), "a public key for RS, ES or EdDSA signatures"),
        (pem(x25519.X25519PrivateKey.generate()), "a public key for RS, ES or EdDSA signatures"),
    ],
    ids=["garbage", "no end", "appendix", "two", "cut", "certificate", "private", "DSA", "X25519"],
)
def test_another_text_is_refused_with_what_is_expected(text: str, expected: str) -> None:
    """Also a key that only looks like one: `tocsin serve` would not start with it."""
    with pytest.raises(ValidationError, match="value_error") as caught:
        ClientOptions(token_public_key=text)
    assert expected in str(caught.value)
