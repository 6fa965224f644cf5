"""The options of a node as values: every key, its default, and what makes a value invalid.

The modules of options are pure, because the core holds options; `loading.py` reads them. Here are the
sections `[server]`, `[engine]` and `[api]`. `[client]`, `[limits]` and `[channels]` have modules of their
own, and `values.py` has the kinds of values. The message of a field's validator completes the sentence "KEY
must be …". The message of a section's validator is a whole sentence.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tocsin_server.config.api_key_options import Keys
from tocsin_server.config.engine_url import MEMORY_URL, check_engine_url
from tocsin_server.config.values import (
    Duration,
    ExactString,
    Limit,
    OptionalLimit,
    Options,
    PositiveDuration,
    host_list,
    long_secret,
    origin_pattern,
    proxy_network,
    string_list,
)


class ServerOptions(Options):
    """`[server]`: where the node listens, and how it drains."""

    host: Annotated[str, BeforeValidator(host_list)] = "127.0.0.1"
    """What to listen on: addresses, host names, unix sockets or passed sockets, with commas between them."""
    port: int = Field(default=8000, ge=0, le=65535)
    """With 0 the system chooses a free port."""
    name: str = ""
    """The name of the node in `info`. Empty: `hostname_port`."""
    allowed_origins: Annotated[
        tuple[Annotated[str, AfterValidator(origin_pattern)], ...], BeforeValidator(string_list)
    ] = ()
    """Origins (globs) of the pages that may connect. Empty: none. A client without an Origin always may.

    "self" means pages that come from the host and port they connect to.
    """
    trusted_proxies: Annotated[
        tuple[Annotated[str, AfterValidator(proxy_network)], ...], BeforeValidator(string_list)
    ] = ()
    """Addresses and networks of proxies that say where a request comes from, and "unix". Empty: none."""
    proxy_header: Literal["X-Forwarded-For", "Forwarded"] = "X-Forwarded-For"
    """The header in which the trusted proxies say it."""
    proxy_protocol: bool = False
    """Every connection begins with a header of the PROXY protocol, and comes from a trusted proxy."""
    tls_certificate: str = ""
    """The file of the certificate and its chain, in PEM form. Empty: no TLS."""
    tls_key: str = ""
    """The file of its private key."""
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
    memory_limit: float = Field(default=0.95, gt=0, le=1)
    """The part of Redis' maxmemory from which on no histories begin and no presence entries are added."""
    control_secret: Annotated[ExactString, AfterValidator(long_secret)] = Field(default="", repr=False)
    """Key of the signatures of control commands and surveys, the same on all nodes. Empty: a key in Redis."""

    @property
    def is_in_memory(self) -> bool:
        """Whether the engine lives in the node's own process, so that no other node can share it."""
        return self.url == MEMORY_URL


class ApiOptions(Options):
    """`[api]`: which callers may use the HTTP API."""

    keys: Keys = Field(default=(), repr=False)
    """Keys that may do everything. Without any, and without `[api_keys]`, the API refuses every caller."""
    allow_key_in_address: bool = False
    """A key may also be in the address, as `?api_key=`, where proxies and browsers write it to logs."""
    insecure: bool = False
    """Every caller may use the API without a key. For development."""
    error_mode: Literal["result", "transport"] = "result"
    """Errors in the body of a 200, or as HTTP status (docs/protocol.md §14)."""
    body_limit_bytes: Limit = 1_048_576
    """Bytes of one request."""
    calls_per_second: OptionalLimit = 0
    """Calls of one key per second, on average. 0: any number."""
    calls_burst: Limit = 10_000
    """Calls of one key at once, after a pause, where `calls_per_second` is set."""
    concurrent_requests: Limit = 100
    """Requests of one key that run at a time. Further ones wait, before bodies above 64 KiB are read."""
    signature_window: PositiveDuration = 60
    """How far the time of a signed request and the clock of this node may differ."""
