"""The options of a node as values: every key, its default, and what makes a value invalid.

This module is pure, because the core holds options; `loading.py` reads them. The message of a field's
validator completes the sentence "KEY must be …". The message of a section's validator is a whole sentence.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from tocsin_server.config.engine_url import MEMORY_URL, check_engine_url
from tocsin_server.config.pem import public_key_pem

NAMESPACE_PATTERN = r"^[-a-zA-Z0-9_]{2,}$"
"""Valid names of a namespace (docs/protocol.md §13)."""

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_PLAIN_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _seconds(value: object) -> object:
    """The seconds in a number, or in a string such as `5m` or `1h30m`."""
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str):
        if _PLAIN_NUMBER.fullmatch(text):  # a string, because environment variables are strings
            return float(text)
        if _DURATION.fullmatch(text):
            return sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))
    elif isinstance(text, int | float) and not isinstance(text, bool):
        return text
    raise ValueError('a number of seconds, or a string such as "250ms", "300s", "5m" or "720h"')


def _in_seconds(seconds: float) -> str:
    return f"{seconds:.12g} s"


def _list(value: object) -> object:
    """A list unchanged; a string, which the environment gives, split at its commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_EXACT_ORIGINS = ("*", "self", "null", "file://")
"""`null` is the origin of sandboxed frames and of some local pages, `file://` that of others."""


def _origin_pattern(value: str) -> str:
    scheme, found, host = value.partition("://")
    is_origin = scheme and found and host and "/" not in host and value.isascii()
    if value not in _EXACT_ORIGINS and not is_origin:
        raise ValueError(
            '"*", "self", or origins as browsers send them, in ASCII and without a path, such as '
            '"https://*.example.com", "null" or "file://"'
        )
    return value.removesuffix(_DEFAULT_PORTS.get(scheme.lower(), ""))  # browsers omit it


UNIX_PREFIX = "unix:"
FD_PREFIX = "fd:"
SYSTEMD_HOST = "systemd"


def is_passed_or_unix(host: str) -> bool:
    """Whether a host is a unix socket or a socket that another process passes, which have no port."""
    return host == SYSTEMD_HOST or host.startswith((UNIX_PREFIX, FD_PREFIX))


def _hosts(value: object) -> object:
    """Several hosts, from a list, as one string with commas between them."""
    names = _list(value)
    if value == [] or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return value
    for name in names:
        is_unix, is_fd = name.startswith(UNIX_PREFIX), name.startswith(FD_PREFIX)
        is_wrong = (is_unix and not name.startswith(f"{UNIX_PREFIX}/")) or (
            is_fd and not name.removeprefix(FD_PREFIX).isdecimal()
        )
        if not name or is_wrong:
            names = ()
    if not names:
        raise ValueError('addresses or host names, "unix:/PATH", "fd:NUMBER" or "systemd"')
    return ",".join(names)


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"a regular expression ({error})") from error
    return value


def _public_key(value: str) -> str:
    return public_key_pem(value) if value else value


def _api_key(value: str) -> str:
    if not value or not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError("printable ASCII without a space at its ends, since a header carries it")
    return value


_ExactString = Annotated[str, StringConstraints(strip_whitespace=False)]
"""A string in which white space counts, also at its ends."""
Duration = Annotated[float, BeforeValidator(_seconds), Field(ge=0, allow_inf_nan=False)]
"""Seconds, which may be written with a unit."""
PositiveDuration = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
Limit = Annotated[int, Field(ge=1)]
"""A bound that cannot be switched off: everything that is queued for a client is bounded."""
OptionalLimit = Annotated[int, Field(ge=0)]
"""A bound, or 0 for no bound."""


class Options(BaseModel):
    """A section of the configuration. It is immutable and refuses unknown keys.

    White space around a string does not count: a file with a secret often ends with a line break.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True
    )


class ServerOptions(Options):
    """`[server]`: where the node listens, and how it drains."""

    host: Annotated[str, BeforeValidator(_hosts)] = "127.0.0.1"
    """What to listen on: addresses, host names, unix sockets or passed sockets, with commas between them."""
    port: int = Field(default=8000, ge=0, le=65535)
    """With 0 the system chooses a free port."""
    name: str = ""
    """The name of the node in `info`. Empty: `hostname_port`."""
    allowed_origins: Annotated[
        tuple[Annotated[str, AfterValidator(_origin_pattern)], ...], BeforeValidator(_list)
    ] = ()
    """Origins (globs) of the pages that may connect. Empty: none. A client without an Origin always may.

    "self" means pages that come from the host and port they connect to.
    """
    drain_seconds: Duration = 10
    """How long a draining node takes to disconnect its clients, one after the other."""
    keep_alive_timeout: PositiveDuration = 75
    """How long an idle HTTP connection stays open. Longer than that of the proxies before the node."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Each of the hosts."""
        return tuple(self.host.split(","))


class EngineOptions(Options):
    """`[engine]`: where channels are kept. Several nodes need a Redis."""

    url: Annotated[str, AfterValidator(check_engine_url)] = Field(default=MEMORY_URL, repr=False)
    prefix: str = Field(default="tocsin", pattern=r"^[-a-zA-Z0-9_.]+$")
    """The prefix of all keys in Redis."""

    @property
    def is_in_memory(self) -> bool:
        """Whether the engine lives in the node's own process, so that no other node can share it."""
        return self.url == MEMORY_URL


class ClientOptions(Options):
    """`[client]`: which clients may connect, and a connection's limits and timings.

    The defaults are those of docs/protocol.md §17. `contradictions.py` checks that limits agree.
    """

    insecure: bool = False
    """Every client may do everything without a token. For development."""
    allow_anonymous: bool = False
    """A client without a token may connect. Its user is ""."""
    token_hmac_secret: str = Field(default="", repr=False)
    """Key of tokens signed with HS256, HS384 or HS512. Empty: they are refused."""
    token_public_key: Annotated[str, AfterValidator(_public_key)] = ""
    """PEM key of tokens signed with RS or ES algorithms. Empty: they are refused."""
    token_audience: str = ""
    """The required `aud` of a token. Empty: any."""
    token_issuer: str = ""
    """The required `iss` of a token. Empty: any."""
    token_leeway: Duration = 5
    """How far the clocks of this node and of the token's issuer may differ, for `exp`, `nbf`, `expire_at`."""
    ping_interval: PositiveDuration = 25
    pong_timeout: PositiveDuration = 8
    stale_timeout: PositiveDuration = 10
    """How long a connection may exist without a connect command."""
    expired_close_delay: Duration = 25
    """How long after its token's expiry a client may still refresh it."""
    channel_limit: Limit = 128
    channel_length_limit: Limit = 255
    queue_limit_bytes: Limit = 2_097_152
    """Bytes that may be queued for one client. Above it the client is disconnected as slow (3008).

    Above `api.body_limit_bytes`, because a publication of that size would disconnect its subscribers.
    """
    message_limit_bytes: Limit = 524_288
    """Bytes of one incoming message. Above it the client is disconnected (1009).

    An SDK sends the subscribe commands of all its `channel_limit` channels in one message.
    """
    history_limit: Limit = 300
    """Publications in one history page or one recovery, at most."""
    user_connection_limit: OptionalLimit = 0
    personal_channel: bool = False
    """On connect, each user is subscribed to `#<user>`."""
    personal_channel_namespace: str = ""
    personal_channel_single_connection: bool = False
    """A user's new connection closes the others (3504)."""

    @model_validator(mode="after")
    def _pong_is_due_before_the_next_ping(self) -> Self:
        if self.pong_timeout >= self.ping_interval:
            raise ValueError(
                f"pong_timeout is {_in_seconds(self.pong_timeout)}, but must be less than ping_interval "
                f"({_in_seconds(self.ping_interval)}), so that each pong answers one ping"
            )
        return self


class ApiOptions(Options):
    """`[api]`: which callers may use the HTTP API."""

    keys: Annotated[tuple[Annotated[_ExactString, AfterValidator(_api_key)], ...], BeforeValidator(_list)] = (
        Field(default=(), repr=False)
    )
    """Empty: the API refuses every caller."""
    insecure: bool = False
    """Every caller may use the API without a key. For development."""
    error_mode: Literal["result", "transport"] = "result"
    """Errors in the body of a 200, or as HTTP status (docs/protocol.md §14)."""
    body_limit_bytes: Limit = 1_048_576
    """Bytes of one request."""


class ChannelOptions(Options):
    """`[channels]` and `[namespaces.X]`: features and permissions of channels (docs/protocol.md §13)."""

    presence: bool = False
    join_leave: bool = False
    force_push_join_leave: bool = False
    history_size: OptionalLimit = 0
    """Publications kept in history. With 0 the channel has no history."""
    history_ttl: Duration = 0
    """How long history is kept after the newest publication."""
    history_meta_ttl: PositiveDuration = 30 * 86400
    """How long the top position is kept after the last use of the channel."""
    force_positioning: bool = False
    allow_positioning: bool = False
    force_recovery: bool = False
    allow_recovery: bool = False
    force_recovery_mode: Literal["stream", "cache"] = "stream"
    auto_cache_recover: bool = False
    allow_subscribe_for_client: bool = False
    allow_subscribe_for_anonymous: bool = False
    allow_publish_for_client: bool = False
    allow_publish_for_subscriber: bool = False
    allow_publish_for_anonymous: bool = False
    allow_history_for_client: bool = False
    allow_history_for_subscriber: bool = False
    allow_history_for_anonymous: bool = False
    allow_presence_for_client: bool = False
    allow_presence_for_subscriber: bool = False
    allow_presence_for_anonymous: bool = False
    allow_user_limited_channels: bool = False
    """Users named after the last `#` of a channel's name may subscribe without a token."""
    channel_regex: Annotated[_ExactString, AfterValidator(_regex)] = ""
    """A pattern that a channel's name after its namespace must match. Empty: any name."""
    publication_data_format: Literal["", "json", "json_object"] = ""
    """The required form of a publication's data. Empty: any JSON value."""

    @property
    def keeps_history(self) -> bool:
        """Whether the channel has history, and with it positions."""
        return self.history_size > 0 and self.history_ttl > 0

    @model_validator(mode="after")
    def _history_is_complete(self) -> Self:
        if (self.history_size > 0) != (self.history_ttl > 0):
            raise ValueError(
                f"history_size is {self.history_size} and history_ttl is {_in_seconds(self.history_ttl)}, "
                "but history needs both or neither"
            )
        if self.force_recovery and not self.keeps_history:
            raise ValueError("force_recovery is true, but recovery needs history_size and history_ttl")
        if self.history_meta_ttl < self.history_ttl:
            raise ValueError(
                f"history_meta_ttl is {_in_seconds(self.history_meta_ttl)}, but must be at least history_ttl "
                f"({_in_seconds(self.history_ttl)}), so that no history outlives its position"
            )
        return self
