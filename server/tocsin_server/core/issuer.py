"""One issuer of tokens: its keys, and what its tokens must say.

The mutable state is the keys that were fetched from the issuer's address, and the key ids that are known not
to be there. Only `IssuerKeys.replace_fetched` changes it; node/key_sets.py calls that.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.issuer_options import PLACEHOLDER, IssuerOptions
from tocsin_server.config.token_keys import TokenKey, configured_key, secret_key
from tocsin_server.core.signed_token import SignedToken

CHANNELS_LIMIT = 1000
"""How many channels the templates may make of one token. A connection may have fewer by far."""

_LISTS_WITH_SPACES = ("scope", "scp")
"""Claims that are lists with spaces between the items (RFC 8693 §4.2)."""

_STRUCTURE = frozenset(":#$*,?[]{}\\%&\"'<>")
"""What has a meaning in the name of a channel, in a pattern, or in the address of a stream."""


class IssuerKeys:
    """The keys of one issuer: those of the configuration, and those of its address."""

    def __init__(self, configured: Iterable[TokenKey], algorithms: Collection[str], url: str = "") -> None:
        self._algorithms = algorithms
        self._configured = tuple(key.limited_to(algorithms) for key in configured)
        self._fetched: dict[tuple[str, str], TokenKey] = {}
        self._fetched_ids: frozenset[str] = frozenset()
        self._absent: frozenset[str] = frozenset()
        self._was_fetched = False
        self.url = url
        """The address of the issuer's key set; empty if it has none."""

    @property
    def algorithms(self) -> frozenset[str]:
        """Those that some key may be used with, or may be once it is fetched."""
        keys = [*self._configured, *self._fetched.values()]
        found = frozenset[str]().union(*(key.algorithms for key in keys))
        return found | {*self._algorithms} if self.url else found

    @property
    def is_empty(self) -> bool:
        """Whether no token can be valid."""
        return not (self._configured or self.url)

    def candidates(self, token: SignedToken) -> Iterator[TokenKey]:
        """The keys that may have signed a token: those of its key id, and configured ones without an id.

        A token without a key id may be signed with any configured key, and with the only fetched key that
        fits its algorithm (OpenID Connect Core §10.1). So a set of many keys does not cost many signatures.
        """
        algorithm, key_id = token.algorithm, token.key_id
        for key in self._configured:
            if algorithm in key.algorithms and (not key_id or key.key_id in ("", key_id)):
                yield key
        if key_id and (algorithm, key_id) in self._fetched:
            yield self._fetched[algorithm, key_id]
        elif not key_id:
            fitting = {id(key): key for (name, _), key in self._fetched.items() if name == algorithm}
            if len(fitting) == 1:
                yield from fitting.values()

    def may_be_fetched(self, token: SignedToken) -> bool:
        """Whether the issuer's address may have a key for this token that is not known here."""
        if not self.url or (self._algorithms and token.algorithm not in self._algorithms):
            return False
        if token.algorithm.startswith("HS") or token.algorithm == "none":
            return False
        if not token.key_id:
            return not self._was_fetched
        if any(key.key_id == token.key_id for key in self._configured) or token.key_id in self._absent:
            return False
        return token.key_id not in self._fetched_ids

    def replace_fetched(self, keys: Iterable[TokenKey], wanted: Iterable[str] = ()) -> None:
        """Use these keys from now on. `wanted` are key ids for which the address was asked.

        Of several keys with one id and algorithm the first counts.
        """
        found: dict[tuple[str, str], TokenKey] = {}
        for key in keys:
            for algorithm in key.limited_to(self._algorithms).algorithms:
                found.setdefault((algorithm, key.key_id), key.limited_to(self._algorithms))
        self._fetched = found
        self._fetched_ids = frozenset(key_id for _, key_id in found)
        self._absent = frozenset(wanted) - self._fetched_ids
        self._was_fetched = True


class Issuer:
    """What the tokens of one issuer must say. Immutable, except its keys."""

    def __init__(self, name: str, options: IssuerOptions, keys: IssuerKeys, *, is_own: bool = False) -> None:
        self.name = name
        """The section of the configuration, for messages."""
        self.options = options
        self.keys = keys
        self.is_own = is_own
        """Whether its tokens are those of `[client]`, whose claims are used as they are."""
        self.leeway = options.leeway
        self._audiences = frozenset(options.audiences)
        self._templates = [(template, PLACEHOLDER.findall(template)) for template in options.channels]

    @classmethod
    def of_client(cls, client: ClientOptions) -> Issuer:
        """The issuer that `[client]` describes."""
        secrets = [client.token_hmac_secret] if client.token_hmac_secret else []
        keys = [secret_key(secret) for secret in (*secrets, *client.token_secrets)]
        texts = [client.token_public_key] if client.token_public_key else []
        keys += [configured_key(text) for text in (*texts, *client.token_keys)]
        options = IssuerOptions(
            issuer=client.token_issuer,
            audiences=(client.token_audience,) if client.token_audience else (),
            algorithms=client.token_algorithms,
            leeway=client.token_leeway,
            tocsin_claims=True,
        )
        return cls("client", options, IssuerKeys(keys, client.token_algorithms), is_own=True)

    @classmethod
    def of_section(cls, name: str, options: IssuerOptions) -> Issuer:
        """The issuer of `[issuers.NAME]`."""
        keys = [*map(secret_key, options.secrets), *map(configured_key, options.keys)]
        return cls(f"issuers.{name}", options, IssuerKeys(keys, options.algorithms, options.jwks_url))

    def accepts_audience(self, audience: str | Sequence[str]) -> bool:
        """Whether a token's `aud` names one that is configured."""
        if not self._audiences:
            return True
        return not self._audiences.isdisjoint([audience] if isinstance(audience, str) else audience)

    def problem_of(self, claims: Mapping[str, Any]) -> str:
        """What is wrong with the claims of a token, as a sentence's end; empty if nothing is."""
        for name, permitted in self.options.required_claims.items():
            if not set(map(str, _as_list(name, find_claim(claims, name)))) & set(permitted):
                return f"its claim {name} has none of the values that {self.name}.required_claims permits"
        return ""

    def user_of(self, claims: Mapping[str, Any]) -> str:
        """The user that a token names, with the issuer's prefix. Raises ValueError if it names none."""
        user = find_claim(claims, self.options.user_claim)
        if not isinstance(user, str) or not user:
            raise ValueError(f"its claim {self.options.user_claim} names no user")
        return self.options.user_prefix + user

    def channels_of(self, claims: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """The channels that the templates make of a token's claims, and the templates that left values out.

        Raises ValueError for too many.
        """
        found: dict[str, None] = {}
        incomplete: list[str] = []
        for template, names in self._templates:
            given = {name: _as_list(name, find_claim(claims, name)) for name in names}
            safe = {name: list(filter(is_safe, values)) for name, values in given.items()}
            if safe != given:
                incomplete.append(template)
            for chosen in itertools.product(*safe.values()):
                found[_filled(template, dict(zip(safe, chosen, strict=True)))] = None
                if len(found) > CHANNELS_LIMIT:
                    raise ValueError(f"its claims make more than {CHANNELS_LIMIT} channels")
        return list(found), incomplete


def _filled(template: str, values: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda placeholder: values[placeholder[1]], template)


def is_safe(value: str) -> bool:
    """Whether a claim's value can be a part of a channel's name without changing its structure."""
    return 0 < len(value) <= 255 and value.isascii() and value.isprintable() and _STRUCTURE.isdisjoint(value)


def find_claim(claims: Mapping[str, Any], name: str) -> Any:
    """The value of a claim; with dots in `name`, of a member of a claim. None if there is none."""
    if name in claims:
        return claims[name]
    outer, separator, rest = name.partition(".")
    inner = claims.get(outer) if separator else None
    return find_claim(inner, rest) if isinstance(inner, Mapping) else None


def _as_list(name: str, value: Any) -> list[str]:
    """The values of a claim as texts: those of a list, or the only one. Objects have none."""
    if isinstance(value, str) and name in _LISTS_WITH_SPACES:
        return value.split()
    values = value if isinstance(value, list) else [value]
    return [_as_text(item) for item in values if item is not None]


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else ""
