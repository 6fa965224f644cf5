"""The options of a node as values: what can be set, its default, and what makes a value wrong.

Pure, so that the core may hold them. Where they are read from is `config.py`'s business. A field's validator
completes the sentence "KEY must be …"; a section's own says the whole of it.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

NAMESPACE_PATTERN = r"^[-a-zA-Z0-9_]{2,}$"
"""What a namespace may be called (protocol §13)."""

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_PLAIN_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _seconds(value: object) -> object:
    """Seconds of a number or of a text such as `5m` or `1h30m`."""
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str):
        if _PLAIN_NUMBER.fullmatch(text):  # the environment knows only texts
            return float(text)
        if _DURATION.fullmatch(text):
            return sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))
    elif isinstance(text, int | float) and not isinstance(text, bool):
        return text
    raise ValueError('a number of seconds, or a text such as "250ms", "300s", "5m" or "720h"')


def _text(seconds: float) -> str:
    return f"{seconds:.12g} s"


def _texts(value: object) -> object:
    """A list as it is; a text from the environment at its commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _origin_pattern(value: str) -> str:
    scheme, found, host = value.partition("://")
    if value not in ("*", "self") and not (scheme and found and host and "/" not in host):
        raise ValueError(
            '"*", "self", or origins with their scheme and no path, such as "https://*.example.com"'
        )
    return value


_HOST = r"(?:\[[0-9a-fA-F:.]+\]|[^/@?#,:\[\]]+)(?::\d{1,5})?"
_ENGINE_URL = re.compile(
    rf"memory://|rediss?://(?:[^/@]*@)?{_HOST}(?:/\d*)?(?:\?.+)?"
    rf"|redis\+sentinel://(?:[^/@]*@)?{_HOST}(?:,{_HOST})*/[^/?]+(?:/\d*)?(?:\?.+)?"
    rf"|rediss?\+cluster://(?:[^/@]*@)?{_HOST}(?:,{_HOST})*/?(?:\?.+)?"
)


def _engine_url(value: str) -> str:
    if not _ENGINE_URL.fullmatch(value):
        raise ValueError(
            '"memory://", "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]", the same with "rediss://" for '
            'TLS, "redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/SERVICE[/DATABASE]", or '
            '"redis+cluster://[USER:PASSWORD@]HOST[:PORT],…", with "rediss+cluster://" for TLS'
        )
    return value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"a regular expression ({error})") from error
    return value


def _public_key(value: str) -> str:
    if value and not re.match(r"\s*-----BEGIN (RSA )?PUBLIC KEY-----\s", value):
        raise ValueError('a public key in PEM form, beginning with "-----BEGIN PUBLIC KEY-----"')
    return value


def _api_key(value: str) -> str:
    if not value or not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError("printable ASCII without a space at its ends, since it travels in a header")
    return value


Duration = Annotated[float, BeforeValidator(_seconds), Field(ge=0, allow_inf_nan=False)]
"""Seconds; may be written with a unit."""
PositiveDuration = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
Limit = Annotated[int, Field(ge=1)]
"""A bound that cannot be switched off: what waits for a peer is always bounded."""
OptionalLimit = Annotated[int, Field(ge=0)]
"""A bound, or 0 for none."""


class Options(BaseModel):
    """A section of the configuration: never changes once read, and knows no keys but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ServerOptions(Options):
    """`[server]`: where the node listens, and how it leaves."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    """0 lets the system choose."""
    name: str = ""
    """What the node is called in `info`; empty: `hostname_port`."""
    allowed_origins: Annotated[
        tuple[Annotated[str, AfterValidator(_origin_pattern)], ...], BeforeValidator(_texts)
    ] = ()
    """Origins (globs) of pages that may connect; empty: none. A client that sends no Origin always may.

    "self" stands for pages that come from the host and port they connect to.
    """
    drain_seconds: Duration = 10
    """Over how long a stopping node spreads the departure of its clients."""


class EngineOptions(Options):
    """`[engine]`: where shared state lives, which several nodes need a Redis for."""

    url: Annotated[str, AfterValidator(_engine_url)] = Field(default="memory://", repr=False)
    prefix: str = Field(default="tocsin", pattern=r"^[-a-zA-Z0-9_.]+$")
    """What the names of all keys in the engine begin with."""


class ClientOptions(Options):
    """`[client]`: who may connect; limits and timings of a connection. The defaults are protocol §17's."""

    insecure: bool = False
    """Every client may do everything, without a token. For development."""
    allow_anonymous: bool = False
    """A client without a token may connect, as user ""."""
    token_hmac_secret: str = Field(default="", repr=False)
    """Key of HS256, HS384 and HS512 tokens; empty: none is accepted."""
    token_public_key: Annotated[str, AfterValidator(_public_key)] = ""
    """PEM key of RS and ES tokens; empty: none is accepted."""
    token_audience: str = ""
    """What a token's `aud` must be; empty: anything."""
    token_issuer: str = ""
    """What a token's `iss` must be; empty: anything."""
    ping_interval: PositiveDuration = 25
    pong_timeout: PositiveDuration = 8
    stale_timeout: PositiveDuration = 10
    """How long a connection may exist before its connect command."""
    expired_close_delay: Duration = 25
    """How long after its token's expiry a client may still refresh."""
    channel_limit: Limit = 128
    channel_length_limit: Limit = 255
    queue_limit_bytes: Limit = 1_048_576
    """What may wait for one peer; past it the peer is closed as slow (3008)."""
    message_limit_bytes: Limit = 65_536
    """Size of one incoming message; past it the peer is closed (1009)."""
    history_limit: Limit = 300
    """Publications that one history page or one recovery may hold."""
    user_connection_limit: OptionalLimit = 0
    personal_channel: bool = False
    """Subscribe each user to `#<user>` on connect."""
    personal_channel_namespace: str = ""
    personal_channel_single_connection: bool = False
    """A user's new connection closes the others (3504)."""

    @model_validator(mode="after")
    def _pong_comes_before_the_next_ping(self) -> Self:
        if self.pong_timeout >= self.ping_interval:
            raise ValueError(
                f"pong_timeout is {_text(self.pong_timeout)}, but must be less than ping_interval "
                f"({_text(self.ping_interval)}), so that each pong has one ping to answer"
            )
        return self


class ApiOptions(Options):
    """`[api]`: who may use the HTTP API."""

    keys: Annotated[tuple[Annotated[str, AfterValidator(_api_key)], ...], BeforeValidator(_texts)] = Field(
        default=(), repr=False
    )
    """Empty: the API refuses everybody."""
    insecure: bool = False
    """Anybody may use the API, without a key. For development."""
    error_mode: Literal["result", "transport"] = "result"
    """Errors in the body of a 200, or as HTTP status (protocol §14)."""
    body_limit_bytes: Limit = 1_048_576
    """Size of a request; like `queue_limit_bytes`, since a larger publication would close its readers."""


class ChannelOptions(Options):
    """`[channels]` and each `[namespaces.X]`: what a channel keeps, tells and allows (protocol §13)."""

    presence: bool = False
    join_leave: bool = False
    force_push_join_leave: bool = False
    history_size: OptionalLimit = 0
    """Publications kept; 0: the channel has no log."""
    history_ttl: Duration = 0
    """How long they are kept after the last one."""
    history_meta_ttl: PositiveDuration = 30 * 86400
    """How long the top position outlives the last use of the channel."""
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
    """The users after the last `#` of a channel's name may subscribe."""
    channel_regex: Annotated[str, AfterValidator(_regex)] = ""
    """What the channel's name after its namespace must match."""
    publication_data_format: Literal["", "json", "json_object"] = ""
    """What a publication's data must be; empty: anything but nothing."""

    @property
    def keeps_history(self) -> bool:
        """Whether the channel has a log, and with it positions."""
        return self.history_size > 0 and self.history_ttl > 0

    @model_validator(mode="after")
    def _history_is_whole(self) -> Self:
        if (self.history_size > 0) != (self.history_ttl > 0):
            raise ValueError(
                f"history_size is {self.history_size} and history_ttl is {_text(self.history_ttl)}, "
                "but history needs both, or neither"
            )
        if self.force_recovery and not self.keeps_history:
            raise ValueError("force_recovery is true, but recovery needs history_size and history_ttl")
        if self.history_meta_ttl < self.history_ttl:
            raise ValueError(
                f"history_meta_ttl is {_text(self.history_meta_ttl)}, but must be at least history_ttl "
                f"({_text(self.history_ttl)}), so that no log outlives its position"
            )
        return self
