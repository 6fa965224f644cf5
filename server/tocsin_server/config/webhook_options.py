"""`[webhooks.NAME]`: where lifecycle events are sent as signed HTTP requests, and for how long."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from tocsin_server.config.event_options import EventType
from tocsin_server.config.issuer_options import is_loopback
from tocsin_server.config.values import (
    Duration,
    ExactString,
    Limit,
    Options,
    PositiveDuration,
    long_secret,
    string_list,
)

OWN_HEADERS = frozenset(
    {"content-type", "content-length", "host", "connection", "transfer-encoding", "expect", "upgrade"}
)
"""Headers that the node sets itself, or that change how the request is sent."""

OWN_PREFIX = "x-tocsin-"
_TOKEN_CHARACTERS = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


def webhook_url(value: str) -> str:
    """An address of http or https. Credentials belong into headers, where they are not shown."""
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    if value and (
        not host
        or parts.scheme not in ("http", "https")
        or parts.username is not None
        or parts.fragment
        or not (value.isascii() and value.isprintable())
        or " " in value
    ):
        raise ValueError("an https:// or http:// address without credentials and without a fragment")
    return value


def _header_name(value: str) -> str:
    name = value.lower()
    if not name or not set(name) <= _TOKEN_CHARACTERS:
        raise ValueError("that of an HTTP header")
    if name in OWN_HEADERS or name.startswith(OWN_PREFIX):
        raise ValueError("that of a header that the node does not set itself")
    return name


def _header_value(value: str) -> str:
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError("printable ASCII without a space at its ends")
    return value


def _status(value: int) -> int:
    if not 300 <= value <= 599 or value in (429, 503):
        raise ValueError("statuses from 300 to 599 other than 429 and 503, which ask to send again later")
    return value


DEFAULT_RETRY_SECONDS = 43_200.0
"""Half of the time that the event log keeps events by default: the log must not remove them before."""


class WebhookOptions(Options):
    """`[webhooks.NAME]`: one receiver of lifecycle events."""

    url: Annotated[str, AfterValidator(webhook_url)] = ""
    """Where requests are sent, with POST."""
    types: Annotated[tuple[EventType, ...], BeforeValidator(string_list)] = ()
    """The types of events that are sent. Empty: all."""
    channels: Annotated[tuple[ExactString, ...], BeforeValidator(string_list)] = ()
    """Globs: only events of these channels, and those without a channel. Empty: all."""
    secrets: Annotated[
        tuple[Annotated[ExactString, AfterValidator(long_secret)], ...], BeforeValidator(string_list)
    ] = Field(default=(), repr=False)
    """Keys of the signature. Requests have one signature for each, so that a new one can come first."""
    batch_size: int = Field(default=100, ge=1, le=1000)
    """How many events a request has at most."""
    batch_delay: Annotated[Duration, Field(le=60)] = 0.1
    """How long the first event waits for others, unless there are `batch_size`. 60 s at most."""
    timeout: PositiveDuration = 10
    """How long a complete answer may take. Later ones do not count."""
    retry_for: PositiveDuration = DEFAULT_RETRY_SECONDS
    """How long after it happened an event is sent again. Then it becomes a dead letter."""
    permanent_statuses: Annotated[
        tuple[Annotated[int, AfterValidator(_status)], ...], BeforeValidator(string_list)
    ] = (400, 413, 414, 415, 422)
    """Statuses that mean that an event will never be accepted. 410 always means that none will."""
    dead_letter_limit: Limit = 10_000
    """How many dead letters are kept. The oldest ones are dropped."""
    dead_letter_ttl: PositiveDuration = 2_592_000
    """How long a dead letter is kept."""
    static_headers: dict[
        Annotated[str, AfterValidator(_header_name)], Annotated[ExactString, AfterValidator(_header_value)]
    ] = Field(default_factory=dict, repr=False)
    """Further headers of each request, such as an Authorization."""
    tls_ca: str = ""
    """A file of certificates of authorities, in place of the well-known ones."""
    tls_certificate: str = ""
    """The file of the node's own certificate, for receivers that require one."""
    tls_key: str = ""
    """The file of its private key."""

    @property
    def host(self) -> str:
        """The host of the address."""
        return urlsplit(self.url).hostname or ""

    @property
    def shown_url(self) -> str:
        """The address without its query, which may hold a secret."""
        return self.url.partition("?")[0]

    @property
    def is_plain_elsewhere(self) -> bool:
        """Whether events travel to another machine without TLS."""
        return urlsplit(self.url).scheme == "http" and not is_loopback(self.host)
