"""The URL of an engine: the only place that knows its grammar.

    memory://
    redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]
    rediss://…                            the same over TLS; options ssl_ca_certs, ssl_certfile, ssl_keyfile,
                                          ssl_cert_reqs (required, none), ssl_check_hostname (true, false)
    unix://[USER:PASSWORD@]/PATH[?db=DATABASE]
                                          a Redis at a Unix socket; redis+unix:// means the same
    redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/SERVICE[/DATABASE]
                                          options sentinel_username, sentinel_password: for the Sentinels
    redis+cluster://[USER:PASSWORD@]HOST[:PORT],…
    rediss+sentinel://… rediss+cluster://…
                                          the same over TLS, to the Sentinels too; also the options of rediss

Username and password are percent-encoded. So is the path of a socket.

The module is pure. `engine/redis/connections/address.py` makes connections from a URL.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

MEMORY_URL = "memory://"

_REDIS_PORT = 6379
_SENTINEL_PORT = 26379
_UNIX_SCHEMES = {"unix", "redis+unix"}
_SENTINEL_SCHEMES = {"redis+sentinel", "rediss+sentinel"}
_REDIS_SCHEMES = {
    *("redis", "rediss", "redis+cluster", "rediss+cluster"),
    *_UNIX_SCHEMES,
    *_SENTINEL_SCHEMES,
}
_TLS_OPTIONS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}
_VALUES = {"ssl_cert_reqs": ("required", "none"), "ssl_check_hostname": ("true", "false")}
"""The options that have few values."""
_SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}
_HOST = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^/@?#,:\[\]]+)(?::\d{1,5})?")
_ALL_FORMS = (
    '"memory://", "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]", the same with "rediss://" for '
    'TLS, "redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/SERVICE[/DATABASE]", or '
    '"redis+cluster://[USER:PASSWORD@]HOST[:PORT],…", with "rediss+…" for TLS, '
    'or "unix://[USER:PASSWORD@]/PATH[?db=DATABASE]"'
)


@dataclass(frozen=True)
class RedisUrl:
    """What the URL of a Redis deployment says. Its representation holds no password."""

    scheme: str
    hosts: list[tuple[str, int]]
    """The Redis server itself, the Sentinels, or some servers of the cluster. Empty with `socket_path`."""
    credentials: Mapping[str, str] = field(repr=False)
    """`username` and `password`, as far as the URL has them."""
    database: int
    service: str
    """The name by which the Sentinels know the master; empty without Sentinels."""
    options: Mapping[str, str] = field(repr=False)
    """The TLS options, and those of the Sentinels, by their names in the URL."""
    socket_path: str = ""
    """The Unix socket of the server. Empty if it has a host."""

    @property
    def is_tls(self) -> bool:
        """Whether connections to Redis use TLS."""
        return self.scheme.startswith("rediss")

    @property
    def is_cluster(self) -> bool:
        """Whether the hosts are servers of a Redis Cluster."""
        return self.scheme.endswith("+cluster")


def parse_redis_url(url: str) -> RedisUrl:
    """Read the URL of a Redis deployment.

    Raises ValueError with a message that completes the sentence "engine.url must be …". The message shows
    only the scheme and the names of options, because the rest of the URL may hold a password.
    """
    try:
        return _parsed(url)
    except ValueError as error:
        raise ValueError(_escaping_advice(url) or str(error)) from None


def _parsed(url: str) -> RedisUrl:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(_ALL_FORMS) from None
    if parts.scheme not in _REDIS_SCHEMES or parts.fragment:
        raise ValueError(_ALL_FORMS)
    if parts.scheme in _UNIX_SCHEMES:
        return _unix_url(parts)
    hosts, credentials = _hosts(parts), _credentials(parts)
    service, database = _path(parts)
    return RedisUrl(parts.scheme, hosts, credentials, database, service, _options(parts))


def _escaping_advice(url: str) -> str:
    """What is expected in place of characters that end a password in a URL; empty if there are none."""
    scheme, _, rest = url.partition("://")
    before_options, _, options = rest.partition("?")
    names = {name for name, _ in parse_qsl(options, keep_blank_values=True)}
    if names and names <= _TLS_OPTIONS | _SENTINEL_OPTIONS:
        rest = before_options
    credentials, at, _ = rest.rpartition("@")
    characters = [character for character in "@#?/[]" if character in credentials]
    if scheme not in _REDIS_SCHEMES or not at or not characters:
        return ""
    escapes = " and ".join(
        f'"{quote(character, safe="")}" in place of "{character}"' for character in characters
    )
    return f"a {scheme}:// URL whose password has {escapes}"


def check_engine_url(url: str) -> str:
    """Return a valid URL of any engine unchanged. Raises ValueError like `parse_redis_url`."""
    if url != MEMORY_URL:
        parse_redis_url(url)
    return url


def _unix_url(parts: SplitResult) -> RedisUrl:
    socket_path = unquote(parts.path)
    options = _options(parts)
    database = options.pop("db", "0")
    if parts.netloc.rpartition("@")[2] or not socket_path.strip("/"):
        raise ValueError(
            f"a {parts.scheme}:// URL with the path of a socket, as in {parts.scheme}:///run/redis.sock"
        )
    if not (database.isascii() and database.isdecimal()):
        raise ValueError(f"a {parts.scheme}:// URL whose option db is the number of a database")
    return RedisUrl(parts.scheme, [], _credentials(parts), int(database), "", options, socket_path)


def _hosts(parts: SplitResult) -> list[tuple[str, int]]:
    default_port = _SENTINEL_PORT if parts.scheme in _SENTINEL_SCHEMES else _REDIS_PORT
    hosts = []
    texts = parts.netloc.rpartition("@")[2].split(",")
    if not all(texts) or (len(texts) > 1 and parts.scheme in ("redis", "rediss")):
        several = ", or several with commas" if "+" in parts.scheme else ""
        raise ValueError(f"a {parts.scheme}:// URL with the host after the scheme{several}")
    for text in texts:
        try:
            one = urlsplit(f"//{text}")
            hosts.append((one.hostname or "", one.port or default_port))
        except ValueError:
            raise ValueError(f"a {parts.scheme}:// URL with a valid port, or with none") from None
        if not _HOST.fullmatch(text):
            raise ValueError(_ALL_FORMS)
    return hosts


def _credentials(parts: SplitResult) -> dict[str, str]:
    before_hosts = parts.netloc.rpartition("@")[0]
    if "@" in before_hosts:
        raise ValueError(_ALL_FORMS)
    user, _, password = before_hosts.partition(":")
    found = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in found.items() if value}


def _path(parts: SplitResult) -> tuple[str, int]:
    """The service and the database that the path names."""
    path = parts.path.removeprefix("/")
    service = ""
    if parts.scheme in _SENTINEL_SCHEMES:
        service, _, path = path.partition("/")
        if not service:
            raise ValueError(f"a {parts.scheme}:// URL that names the service, as in …/mymaster")
    if path and parts.scheme.endswith("+cluster"):
        raise ValueError(f"a {parts.scheme}:// URL that ends with its hosts: a cluster has no databases")
    if path and not (path.isascii() and path.isdecimal()):
        raise ValueError(f"a {parts.scheme}:// URL that ends with the number of a database, or without one")
    return unquote(service), int(path or 0)


def _options(parts: SplitResult) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    known: set[str] = {"db"} if parts.scheme in _UNIX_SCHEMES else set()
    if parts.scheme in _SENTINEL_SCHEMES:
        known |= _SENTINEL_OPTIONS
    if parts.scheme.startswith("rediss"):
        known |= _TLS_OPTIONS
    if unknown := sorted(options.keys() - known):
        raise ValueError(f"a {parts.scheme}:// URL without the unknown option {', '.join(unknown)}")
    for name, value in options.items():
        if not value:
            raise ValueError(f"a {parts.scheme}:// URL whose option {name} has a value")
        if name in _VALUES and value not in _VALUES[name]:
            raise ValueError(f"a {parts.scheme}:// URL whose option {name} is {' or '.join(_VALUES[name])}")
    return options
