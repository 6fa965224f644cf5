"""`[issuers.NAME]`: who else issues tokens, such as an identity provider, and what they must say."""

import ipaddress
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from tocsin_server.config.token_keys import configured_key_texts, secret_key
from tocsin_server.config.values import Duration, ExactString, Options, string_list

SECRET_BYTES = 32
"""HS256 requires a key at least as long as its hash (RFC 7518 §3.2)."""

Algorithm = Literal[
    "HS256", "HS384", "HS512",
    "RS256", "RS384", "RS512",
    "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512",
    "EdDSA",
]  # fmt: skip
Algorithms = Annotated[tuple[Algorithm, ...], BeforeValidator(string_list)]

PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


def token_secret(value: str) -> str:
    """A secret, and not the text of a key of another kind."""
    if value:
        secret_key(value)
    return value


def long_secret(value: str) -> str:
    """A secret that is long enough for every algorithm's least requirement."""
    if len(value.encode()) < SECRET_BYTES:
        raise ValueError(f"a secret of at least {SECRET_BYTES} bytes")
    return token_secret(value)


def key_set_url(value: str) -> str:
    """An address that only its owner can answer for: https, or http on this machine."""
    if not value:
        return value
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    if not host or not is_safe or parts.username is not None or parts.fragment or not value.isascii():
        raise ValueError("an https:// address without credentials; http:// only on this machine")
    return value


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def channel_template(value: str) -> str:
    """A channel whose placeholders are in braces, and not in its namespace, which a claim must not choose."""
    namespace, boundary, _ = value.partition(":")
    is_chosen = bool(boundary) and ("{" in namespace or "}" in namespace)
    if not value or is_chosen or set(PLACEHOLDER.sub("", value)) & {"{", "}"}:
        raise ValueError(
            'a channel such as "groups:{groups}": the names of claims in braces, and none in the namespace'
        )
    return value


ClaimValues = Annotated[tuple[str, ...], BeforeValidator(string_list), Field(min_length=1)]


class IssuerOptions(Options):
    """`[issuers.NAME]`: one issuer of tokens. A token belongs to the issuer that its `iss` names."""

    issuer: str = ""
    """The `iss` of its tokens. Required."""
    audiences: Annotated[tuple[str, ...], BeforeValidator(string_list)] = ()
    """A token must be for one of them (`aud`). Empty: any."""
    required_claims: dict[str, ClaimValues] = Field(default_factory=dict)
    """Other claims that a token must have, each with its permitted values."""
    algorithms: Algorithms = ()
    """The algorithms of its tokens. Empty: all that fit its keys, except PS."""
    secrets: Annotated[
        tuple[Annotated[ExactString, AfterValidator(long_secret)], ...], BeforeValidator(string_list)
    ] = Field(default=(), repr=False)
    """Keys for HS algorithms."""
    keys: Annotated[tuple[str, ...], BeforeValidator(configured_key_texts)] = Field(default=(), repr=False)
    """Public keys in PEM, or JSON Web Keys."""
    jwks_url: Annotated[str, AfterValidator(key_set_url)] = ""
    """The address of its key set."""
    user_claim: str = Field(default="sub", min_length=1)
    """The claim that is the user."""
    user_prefix: str = ""
    """What precedes the user of each of its tokens, so that no other issuer can name the same user."""
    channels: Annotated[
        tuple[Annotated[str, AfterValidator(channel_template)], ...], BeforeValidator(string_list)
    ] = ()
    """Channels to which the server subscribes a connection, with claims in braces."""
    tocsin_claims: bool = False
    """Whether Tocsin's own claims count, such as `channels`, `subs` and `info`, and subscription tokens."""
    leeway: Duration = 5
    """How far the clocks of this node and of the issuer may differ."""
