"""`[api_keys.NAME]`: named keys of the HTTP API, and what a caller with one of them may do."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tocsin_server.config.values import ExactString, OptionalLimit, Options, api_key, string_list

HASH_PREFIX = "sha256:"

ApiMethod = Literal[
    "publish",
    "broadcast",
    "presence",
    "presence_stats",
    "history",
    "history_remove",
    "channels",
    "info",
    "drain",
    "rpc",
    "disconnect",
    "unsubscribe",
    "subscribe",
    "refresh",
    "revoke_token",
    "invalidate_user_tokens",
    "webhooks",
    "dead_letters",
    "replay_dead_letters",
    "discard_dead_letters",
]
"""Every method of the HTTP API except `batch`, whose commands are checked one by one."""


def key_digest(key: str) -> bytes:
    """Return the SHA-256 of a key that is configured as it is, or as `sha256:` and its hash."""
    if key.startswith(HASH_PREFIX):
        return bytes.fromhex(key.removeprefix(HASH_PREFIX))
    return sha256(key.encode()).digest()


def _moment(value: object) -> object:
    """A TOML date or time as text. A date means its beginning; without an offset it is UTC."""
    return value.isoformat() if isinstance(value, date) else value


def _expiry(value: str) -> str:
    """A time in ISO 8601, or an empty string."""
    try:
        if value:
            datetime.fromisoformat(value)
    except ValueError:
        raise ValueError('a date or time such as "2027-01-31" or "2027-01-31T12:00:00Z"') from None
    return value


Keys = Annotated[tuple[Annotated[ExactString, AfterValidator(api_key)], ...], BeforeValidator(string_list)]
"""Keys as they are, or as `sha256:` and their hash in hexadecimal."""


class ApiKeyOptions(Options):
    """`[api_keys.NAME]`: keys with a name, and what a caller with one of them may do."""

    keys: Keys = Field(default=(), repr=False)
    """Each is valid, so that a new one can come before the old one goes."""
    methods: Annotated[tuple[ApiMethod, ...], BeforeValidator(string_list)] = ()
    """Empty: every method."""
    channels: Annotated[tuple[ExactString, ...], BeforeValidator(string_list)] = ()
    """Globs of channel names. Empty: every channel."""
    expires: Annotated[str, BeforeValidator(_moment), AfterValidator(_expiry)] = ""
    """When the keys become invalid. Empty: never."""
    calls_per_second: OptionalLimit = 0
    """Replaces `api.calls_per_second`, unless it is 0."""

    @property
    def expires_at(self) -> float | None:
        """The unix second at which the keys become invalid; None for never."""
        if not self.expires:
            return None
        moment = datetime.fromisoformat(self.expires)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.channels and not self.methods:
            raise ValueError(
                "channels is set, but methods is not: name the methods, because some of them, such as "
                "disconnect, concern no channel"
            )
        return self


def shared_keys(sections: Iterable[tuple[str, Iterable[str]]]) -> tuple[str, str] | None:
    """Return the names of two sections that have the same key, whose rights would be unclear; else None."""
    owners: dict[bytes, str] = {}
    for name, keys in sections:
        for digest in map(key_digest, keys):
            owner = owners.setdefault(digest, name)
            if owner != name:
                return owner, name
    return None
