"""`[proxies.NAME]`: a back end that decides by HTTP what clients may do, and how the node calls it."""

import json
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from tocsin_server.config.values import (
    ExactString,
    Limit,
    OptionalLimit,
    Options,
    PositiveDuration,
    long_secret,
    string_list,
)

EVENT_PLACEHOLDER = "{event}"
"""What the name of an event replaces in a URL: `connect`, `sub_refresh` …"""

SIGNATURE_HEADER = "x-tocsin-signature"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A name of a header (RFC 9110 §5.6.2)."""

_OWN_HEADERS = {
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    SIGNATURE_HEADER,
}
"""Headers of a request to a back end that only the node sets."""


def proxy_url(value: str) -> str:
    """An http or https address, which may have the event's name in braces in its path or query."""
    if not value:
        return value
    try:
        parts = urlsplit(value.replace(EVENT_PLACEHOLDER, "event"))
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    is_clean = value.isascii() and value.isprintable() and " " not in value
    is_in_path = EVENT_PLACEHOLDER not in value.partition("://")[2].partition("/")[0]
    if (
        not host
        or parts.scheme not in ("http", "https")
        or parts.username is not None
        or parts.fragment
        or not is_clean
        or not is_in_path
        or set(value.replace(EVENT_PLACEHOLDER, "")) & {"{", "}"}
    ):
        raise ValueError(
            "an http:// or https:// address without credentials, such as "
            '"https://app.example/centrifugo/{event}"'
        )
    return value


def header_name(value: str) -> str:
    """The name of a header that a request to a back end may have, in lower case."""
    name = value.lower()
    if not _TOKEN.fullmatch(name) or name in _OWN_HEADERS:
        raise ValueError(f"names of headers, other than {', '.join(sorted(_OWN_HEADERS))}")
    return name


def header_table(value: object) -> object:
    """A table unchanged; the text of a JSON object, which the environment gives, read."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except ValueError:
            raise ValueError("a table of headers, or a JSON object as a text") from None
    if isinstance(value, dict):
        return {name.lower() if isinstance(name, str) else name: text for name, text in value.items()}
    return value


def header_value(value: str) -> str:
    """Printable ASCII, so that every back end reads the same."""
    if not value.isascii() or not value.isprintable():
        raise ValueError("printable ASCII, since a header carries it")
    return value


HeaderName = Annotated[str, AfterValidator(header_name)]


class ProxyOptions(Options):
    """`[proxies.NAME]`: how one back end is called. `[client]` and namespaces say what it decides."""

    url: Annotated[str, AfterValidator(proxy_url)] = ""
    """Where events are posted to; `{event}` in it is the event's name. Required."""
    timeout: PositiveDuration = 1
    """How long a call may take, from waiting for a connection to the last byte; retries included."""
    http_headers: Annotated[tuple[HeaderName, ...], BeforeValidator(string_list)] = ()
    """The headers of the client's request that are forwarded."""
    static_headers: Annotated[
        dict[HeaderName, Annotated[str, AfterValidator(header_value)]], BeforeValidator(header_table)
    ] = Field(default_factory=dict, repr=False)
    """Headers that each request has. They replace forwarded ones of the same name."""
    binary_encoding: bool = False
    """Payloads are sent in base64, so that they may be other than JSON."""
    connections: Limit = 64
    """Connections for each kind of event, at most. Further calls wait for one."""
    keep_alive: PositiveDuration = 4
    """How long an unused connection is kept. Less than the back end keeps it."""
    answer_limit_bytes: Limit = 1_048_576
    """Bytes of one answer, at most."""
    retries: OptionalLimit = 1
    """How often a call is made again that had no answer, where that is safe."""
    breaker_faults: OptionalLimit = 10
    """The circuit breaker opens after so many faults in a row, each of another client. 0: never."""
    breaker_pause: PositiveDuration = 5
    """How long an open circuit breaker refuses calls before it lets one through."""
    secret: Annotated[ExactString, AfterValidator(long_secret)] = Field(default="", repr=False)
    """The key of the signature that each request has. Empty: no signature."""
    tls_ca: str = ""
    """The file of the authorities that may have signed the back end's certificate. Empty: the system's."""
    tls_certificate: str = ""
    """The file of the certificate that the node shows the back end, and its chain. Empty: none."""
    tls_key: str = ""
    """The file of its private key."""

    @property
    def is_https(self) -> bool:
        """Whether the back end is called over TLS."""
        return self.url.startswith("https:")

    def url_of(self, event: str) -> str:
        """The address for an event by its name."""
        return self.url.replace(EVENT_PLACEHOLDER, event)
