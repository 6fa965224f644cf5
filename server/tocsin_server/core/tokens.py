"""Connection and subscription tokens: JSON Web Tokens that an application signs (protocol §12).

The configuration fixes the keys and their algorithms; the token's header never does. Its `iss`, which is not
verified yet, chooses the issuer, and only keys of that issuer can verify it. Times are compared with the
`unix_now` that the caller passes, so this module has no clock.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.issuer_options import IssuerOptions
from tocsin_server.config.token_keys import ALGORITHMS, HMAC_ALGORITHMS
from tocsin_server.core.capabilities import ENTRIES_LIMIT, Capability, Right
from tocsin_server.core.issuer import Issuer
from tocsin_server.core.signed_token import SignedToken, take_apart
from tocsin_server.protocol.canonical import canonical, is_set
from tocsin_server.protocol.json_text import compact
from tocsin_server.protocol.messages import NO_JSON
from tocsin_server.protocol.payloads import Payload, payload_of

Seconds = Annotated[float, Meta(ge=0)]


class TokenInvalid(Exception):
    """The token is malformed, signed with another key, or has claims that are not valid."""


class TokenExpired(Exception):
    """The token is valid, but expired. The client may try with a fresh one."""


class KeysUnavailable(Exception):
    """Whether the token is valid is not known, because the issuer's keys could not be fetched yet."""


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


class ExpiringGrant(SubscriptionGrant, frozen=True):
    """The same from a hook, which may let the subscription expire."""

    payload: Payload = NO_JSON
    """What replaces `data`: it need not be JSON."""
    expire_at: float = 0
    """The unix second at which it expires; 0: never."""
    allow: tuple[Right, ...] = ()
    """What the subscriber may do in the channel besides."""


class StandardClaims(Struct, frozen=True):
    """The claims that every issuer's tokens have (RFC 7519 §4.1). Times are unix seconds."""

    exp: Seconds | None = None
    nbf: Seconds | None = None
    iat: float | None = None
    aud: str | list[str] = ""
    iss: str = ""
    jti: str = ""


class _Claims(StandardClaims, frozen=True):
    """Claims of both kinds of token."""

    expire_at: Seconds | None = None
    info: Raw = NO_JSON
    b64info: str = ""

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
        if self.subs is not None:
            return self.subs
        return {channel: SubscriptionGrant() for channel in self.channels} if self.channels else {}


class MappedClaims(ConnectionClaims, frozen=True):
    """What the claims of another issuer's token mean here."""

    incomplete: tuple[str, ...] = ()
    """The templates of channels that left out a value, because it cannot be a part of a channel's name."""


class SubscriptionClaims(_Claims, frozen=True, kw_only=True):
    """The claims of a subscription token: `sub` may subscribe to `channel`; `client`, if set, limits it."""

    channel: str
    sub: str = ""
    client: str = ""
    data: Raw = NO_JSON
    override: Override | None = None
    allow: tuple[Right, ...] = ()


Claims = TypeVar("Claims", bound=StandardClaims)


def issued_at(claims: StandardClaims) -> float:
    """Return when a token was issued, in unix seconds. One that does not say counts as the oldest."""
    return claims.iat if claims.iat is not None else 0.0


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


def embedded_data(payload: Raw, base64_payload: str) -> Payload:
    """The same for a claim that only the client itself receives: base64 may hold any bytes."""
    if not base64_payload:
        return embedded(payload, "")
    try:
        return payload_of(base64.b64decode(base64_payload, validate=True))
    except ValueError as error:
        raise TokenInvalid(str(error)) from None


class TokenVerifier:
    """Verifies tokens with the keys of their issuers."""

    def __init__(self, client: ClientOptions, issuers: Mapping[str, IssuerOptions] | None = None) -> None:
        self._own = Issuer.of_client(client)
        self._others = {
            options.issuer: Issuer.of_section(name, options) for name, options in (issuers or {}).items()
        }

    @property
    def issuers(self) -> Sequence[Issuer]:
        """All issuers; that of `[client]` is the first."""
        return [self._own, *self._others.values()]

    def leeway_for(self, claims: StandardClaims) -> float:
        """Return how far the clock of a token's issuer may differ, in seconds."""
        return self._others.get(claims.iss, self._own).leeway

    def issuer_to_ask(self, token: str) -> tuple[Issuer, str] | None:
        """Return the issuer whose address may have the token's key, and the key id; None if none has.

        Nothing of the token is verified. Never raises.
        """
        if not self._others:
            return None
        try:
            parts = take_apart(token)
            issuer = self._others.get(parts.issuer)
        except (ValueError, RecursionError):
            return None
        if issuer is None or not issuer.keys.may_be_fetched(parts):
            return None
        return issuer, parts.key_id or ""

    def connection(self, token: str, unix_now: float) -> ConnectionClaims:
        """Return the claims of a connection token.

        Raises TokenInvalid, TokenExpired or KeysUnavailable.
        """
        issuer, payload = self._verified(token)
        if not issuer.options.tocsin_claims:
            return self._mapped(issuer, payload, unix_now)
        claims = self._claims(issuer, payload, unix_now, ConnectionClaims)
        if claims.channel is not UNSET and is_set(claims.channel):
            raise TokenInvalid("a subscription token is not a connection token")
        if "" in claims.grants:
            raise TokenInvalid("the token grants a channel without a name")
        return claims if issuer.is_own else _with_mapping(issuer, payload, claims)

    def subscription(self, token: str, unix_now: float) -> SubscriptionClaims:
        """Return the claims of a subscription token. Raises TokenInvalid, TokenExpired or KeysUnavailable.

        The caller must compare its user, client and channel.
        """
        issuer, payload = self._verified(token)
        if not issuer.options.tocsin_claims:
            raise TokenInvalid(f"it is for a subscription, but {issuer.name}.tocsin_claims is false")
        claims = self._claims(issuer, payload, unix_now, SubscriptionClaims)
        if issuer.is_own:
            return claims
        user, _ = _mapping(issuer, payload)
        return msgspec.structs.replace(claims, sub=user)

    def _mapped(self, issuer: Issuer, payload: bytes, unix_now: float) -> MappedClaims:
        """The claims of an identity provider's token: its times, its user, and what the templates make."""
        claims = self._claims(issuer, payload, unix_now, StandardClaims)
        if claims.exp is None:
            raise TokenInvalid("it never expires: it has no exp")
        user, (channels, incomplete) = _mapping(issuer, payload)
        return MappedClaims(
            **msgspec.structs.asdict(claims), sub=user, channels=channels, incomplete=tuple(incomplete)
        )

    def _claims(self, issuer: Issuer, payload: bytes, unix_now: float, kind: type[Claims]) -> Claims:
        try:
            payload.decode()
            claims = _decode(payload, kind)
        except (ValueError, RecursionError) as error:
            raise TokenInvalid(str(error)) from None
        options = issuer.options
        if not issuer.accepts_audience(claims.aud):
            key = "client.token_audience" if issuer.is_own else f"{issuer.name}.audiences"
            raise TokenInvalid(f"aud is {_shown(claims.aud)}, not {key} ({', '.join(options.audiences)})")
        if options.issuer and claims.iss != options.issuer:
            raise TokenInvalid(f"iss is {_shown(claims.iss)}, not client.token_issuer ({options.issuer})")
        if claims.exp is not None and unix_now >= claims.exp + issuer.leeway:
            raise TokenExpired(f"expired {unix_now - claims.exp:.0f} s ago")
        if claims.nbf is not None and unix_now < claims.nbf - issuer.leeway:
            raise TokenNotYetValid(f"not valid for another {claims.nbf - unix_now:.0f} s")
        return claims

    def _verified(self, token: str) -> tuple[Issuer, bytes]:
        """The token's issuer and its payload, once its signature is verified."""
        if not self._others and self._own.keys.is_empty:
            raise TokenInvalid("neither client.token_hmac_secret nor client.token_public_key is set")
        try:
            parts = take_apart(token)
            named = parts.issuer if self._others else ""
        except (ValueError, RecursionError):
            raise TokenInvalid("it is no signed JSON Web Token") from None
        issuer = self._others.get(named, self._own)
        if parts.is_signed_with_any(issuer.keys.candidates(parts)):
            return issuer, parts.payload
        if issuer.keys.may_be_fetched(parts):
            raise KeysUnavailable(f"the key that signed it could not be fetched from {issuer.name}.jwks_url")
        raise TokenInvalid(_signature_reason(issuer, parts))


def _decode(payload: bytes, kind: type[Claims]) -> Claims:
    decoder: msgspec.json.Decoder[Claims] = _decoder(kind)
    try:
        return decoder.decode(payload)
    except msgspec.ValidationError:
        return decoder.decode(canonical(payload, kind))


@cache
def _decoder(kind: type[Claims]) -> msgspec.json.Decoder[Claims]:
    return msgspec.json.Decoder(kind)


def _mapping(issuer: Issuer, payload: bytes) -> tuple[str, tuple[list[str], list[str]]]:
    """The user, the channels, and the incomplete templates, that the section of an issuer makes of claims."""
    try:
        claims = msgspec.json.decode(payload, type=dict[str, Any])
        user, channels = issuer.user_of(claims), issuer.channels_of(claims)
    except (ValueError, RecursionError) as error:
        raise TokenInvalid(str(error)) from None
    if problem := issuer.problem_of(claims):
        raise TokenInvalid(problem)
    return user, channels


def _with_mapping(issuer: Issuer, payload: bytes, claims: ConnectionClaims) -> MappedClaims:
    """The claims of a token, with the user and the channels that the section of its issuer makes of them."""
    user, (channels, incomplete) = _mapping(issuer, payload)
    members = msgspec.structs.asdict(claims) | {"sub": user, "incomplete": tuple(incomplete)}
    if claims.subs is None:
        members["channels"] = [*claims.channels, *channels]
    else:
        members["subs"] = {channel: SubscriptionGrant() for channel in channels} | claims.subs
    return MappedClaims(**members)


def _signature_reason(issuer: Issuer, token: SignedToken) -> str:
    """Why no key verifies a token. Its header is not verified, so only known names are shown."""
    algorithm, keys = token.algorithm, issuer.keys
    if algorithm not in ALGORITHMS:
        return "its algorithm is not supported"
    if algorithm in keys.algorithms:
        if token.key_id and not any(keys.candidates(token)):
            return "no key of its issuer has its key id"
        return "no configured key verifies the signature"
    if issuer.is_own and keys.is_empty:
        return "its iss is that of no configured issuer"
    if issuer.is_own and not issuer.options.algorithms:
        key = "token_hmac_secret" if algorithm in HMAC_ALGORITHMS else "token_public_key"
        return f"it is signed with {algorithm}, but client.{key} is not set"
    return f"it is signed with {algorithm}, which {issuer.name} does not permit"


def _shown(claim: str | list[str]) -> str:
    """A claim whose signature is valid, shortened."""
    return (claim if isinstance(claim, str) else ", ".join(claim))[:100] or "not set"
