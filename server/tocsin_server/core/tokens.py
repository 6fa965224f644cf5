"""Connection and subscription tokens: JSON Web Tokens that an application signs (protocol §12).

The configuration fixes the keys and their algorithms; the token's header never does. Times are compared with
the `unix_now` that the caller passes, so this module has no clock.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import jwt
import msgspec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from tocsin_server.config.client_options import ClientOptions
from tocsin_server.core.capabilities import ENTRIES_LIMIT, Capability, Right
from tocsin_server.protocol.canonical import canonical, is_set
from tocsin_server.protocol.json import compact
from tocsin_server.protocol.messages import NO_JSON

HMAC_ALGORITHMS = ("HS256", "HS384", "HS512")
PUBLIC_KEY_ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA")

Seconds = Annotated[float, Meta(ge=0)]


class TokenInvalid(Exception):
    """The token is malformed, signed with another key, or has claims that are not valid."""


class TokenExpired(Exception):
    """The token is valid, but expired. The client may try with a fresh one."""


class TokenNotYetValid(TokenExpired):
    """The token is valid, but only from its `nbf` on."""


class Flag(Struct, frozen=True):
    """A boolean that may be absent: `{"value": true}`."""

    value: bool = False


class Override(Struct, frozen=True):
    """Channel options that a token or an API call sets for one subscription."""

    presence: Flag | None = None
    join_leave: Flag | None = None
    force_recovery: Flag | None = None
    force_positioning: Flag | None = None
    force_push_join_leave: Flag | None = None


class SubscriptionGrant(Struct, frozen=True):
    """A server-side subscription that a connection token grants."""

    info: Raw = NO_JSON
    b64info: str = ""
    data: Raw = NO_JSON
    b64data: str = ""
    override: Override | None = None


class _Claims(Struct, frozen=True):
    """Claims of both kinds of token. Times are unix seconds."""

    exp: Seconds | None = None
    nbf: Seconds | None = None
    expire_at: Seconds | None = None
    aud: str | list[str] = ""
    iss: str = ""
    info: Raw = NO_JSON
    b64info: str = ""

    def is_for(self, audience: str, issuer: str) -> bool:
        """Whether the token names the configured audience and issuer; an empty one is not checked."""
        audiences = [self.aud] if isinstance(self.aud, str) else self.aud
        return (not audience or audience in audiences) and (not issuer or issuer == self.iss)

    @property
    def expires_at(self) -> float | None:
        """When the connection or subscription expires, in unix seconds; None for never.

        `expire_at`, if set, replaces `exp`; 0 means never.
        """
        return (self.expire_at or None) if self.expire_at is not None else self.exp


class ConnectionClaims(_Claims, frozen=True):
    """The claims of a connection token. An empty `sub` is an anonymous user."""

    sub: str = ""
    channel: Raw | UnsetType = UNSET
    channels: Sequence[str] = ()
    subs: dict[str, SubscriptionGrant] | None = None
    caps: Annotated[tuple[Capability, ...], Meta(max_length=ENTRIES_LIMIT)] = ()

    @property
    def grants(self) -> dict[str, SubscriptionGrant]:
        """The server-side subscriptions, by channel. `subs` takes precedence over `channels`."""
        return (
            self.subs
            if self.subs is not None
            else {channel: SubscriptionGrant() for channel in self.channels}
        )


class SubscriptionClaims(_Claims, frozen=True, kw_only=True):
    """The claims of a subscription token: `sub` may subscribe to `channel`; `client`, if set, limits it."""

    channel: str
    sub: str = ""
    client: str = ""
    data: Raw = NO_JSON
    override: Override | None = None
    allow: tuple[Right, ...] = ()


Claims = TypeVar("Claims", bound=_Claims)


def embedded(payload: Raw, base64_payload: str) -> Raw:
    """Return a claim's JSON payload, given as JSON or in base64; NO_JSON if both are empty or null.

    Raises TokenInvalid if the base64 holds no JSON.
    """
    if not base64_payload:
        return compact(payload) if is_set(payload) else NO_JSON
    try:
        return compact(base64.b64decode(base64_payload, validate=True))
    except ValueError as error:
        raise TokenInvalid(str(error)) from None


class TokenVerifier:
    """Verifies tokens with the configured keys."""

    def __init__(self, options: ClientOptions) -> None:
        self._jws = jwt.PyJWS()
        self._keys: list[tuple[Any, list[str]]] = []
        if options.token_hmac_secret:
            self._keys.append((options.token_hmac_secret, [*HMAC_ALGORITHMS]))
        if options.token_public_key:
            self._keys.append(
                (load_pem_public_key(options.token_public_key.encode()), [*PUBLIC_KEY_ALGORITHMS])
            )
        self._audience = options.token_audience
        self._issuer = options.token_issuer
        self._leeway = options.token_leeway

    def connection(self, token: str, unix_now: float) -> ConnectionClaims:
        """Return the claims of a connection token. Raises TokenInvalid or TokenExpired."""
        claims = self._claims(token, unix_now, ConnectionClaims)
        if claims.channel is not UNSET and is_set(claims.channel):
            raise TokenInvalid("a subscription token is not a connection token")
        if "" in claims.grants:
            raise TokenInvalid("the token grants a channel without a name")
        return claims

    def subscription(self, token: str, unix_now: float) -> SubscriptionClaims:
        """Return the claims of a subscription token. Raises TokenInvalid or TokenExpired.

        The caller must compare its user, client and channel.
        """
        return self._claims(token, unix_now, SubscriptionClaims)

    def _claims(self, token: str, unix_now: float, kind: type[Claims]) -> Claims:
        payload = self._verified(token)
        try:
            payload.decode()
            claims = _decode(payload, kind)
        except (ValueError, RecursionError) as error:
            raise TokenInvalid(str(error)) from None
        if not claims.is_for(self._audience, ""):
            raise TokenInvalid(f"aud is {_shown(claims.aud)}, not client.token_audience ({self._audience})")
        if not claims.is_for("", self._issuer):
            raise TokenInvalid(f"iss is {_shown(claims.iss)}, not client.token_issuer ({self._issuer})")
        if claims.exp is not None and unix_now >= claims.exp + self._leeway:
            raise TokenExpired(f"expired {unix_now - claims.exp:.0f} s ago")
        if claims.nbf is not None and unix_now < claims.nbf - self._leeway:
            raise TokenNotYetValid(f"not valid for another {claims.nbf - unix_now:.0f} s")
        return claims

    def _verified(self, token: str) -> bytes:
        reason = "" if self._keys else "neither client.token_hmac_secret nor client.token_public_key is set"
        for key, algorithms in self._keys:
            try:
                payload: bytes = self._jws.decode(token, key, algorithms=algorithms)
            except jwt.InvalidAlgorithmError:
                reason = reason or _algorithm_reason(token)
            except (jwt.InvalidSignatureError, jwt.InvalidKeyError):
                reason = "no configured key verifies the signature"
            except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
                reason = "it is no signed JSON Web Token"
            else:
                return payload
        raise TokenInvalid(reason)


def _decode(payload: bytes, kind: type[Claims]) -> Claims:
    try:
        return msgspec.json.decode(payload, type=kind)
    except msgspec.ValidationError:
        return msgspec.json.decode(canonical(payload, kind), type=kind)


def _algorithm_reason(token: str) -> str:
    """Why a token's algorithm is refused. Its header is not verified, so only known names are shown."""
    try:
        algorithm = jwt.get_unverified_header(token).get("alg")
    except jwt.PyJWTError:
        algorithm = None
    if algorithm in HMAC_ALGORITHMS:
        return f"it is signed with {algorithm}, but client.token_hmac_secret is not set"
    if algorithm in PUBLIC_KEY_ALGORITHMS:
        return f"it is signed with {algorithm}, but client.token_public_key is not set"
    return "its algorithm is not supported"


def _shown(claim: str | list[str]) -> str:
    """A claim whose signature is valid, shortened."""
    return (claim if isinstance(claim, str) else ", ".join(claim))[:100] or "not set"
