"""The checks of `tocsin doctor` for which the server's package is needed: configuration, machine, Redis.

Each finding is a dict with `level` ("ok", "warning" or "error"), `check`, `text` and `fix`, as the client's
package prints it. The two packages meet only by the entry point of `findings`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import io
import resource
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tocsin_server.config.api_key_options import HASH_PREFIX
from tocsin_server.config.contradictions import contradictions
from tocsin_server.config.errors import ConfigError
from tocsin_server.config.issuer_options import is_loopback
from tocsin_server.config.loading import Settings, load_settings
from tocsin_server.config.tls_files import expiry_of, tls_file_problems
from tocsin_server.config.weak_secrets import KEY_BYTES, SECRET_BYTES, weakness
from tocsin_server.engine.factory import create_engine
from tocsin_server.errors import EngineError
from tocsin_server.node.node import Node

Finding = dict[str, str]

OTHER_FILES = 256
"""File descriptors that a node needs besides its connections."""

BACKLOG = 1024
"""The least length of the kernel's queue of connections to accept: a crowd reconnects at once."""

CERTIFICATE_DAYS = 14

HOW_TO_MAKE_ONE = "openssl rand -base64 48 makes one"
STRONG = "it is long, and not well known"

CLOCK_SECONDS = 1.0
"""How much Redis' clock may differ: expiry times and log lines are compared with those of other machines."""


def findings(config: Path | None, connections: int) -> Iterator[Finding]:
    """Check a configuration, this machine for so many connections, and Redis."""
    try:
        settings = load_settings(config)
    except ConfigError as error:
        yield from (_error("configuration", problem, "correct it") for problem in error.problems)
        return
    problems = [*contradictions(settings), *tls_file_problems(settings)]
    yield from (_error("configuration", problem, "correct it") for problem in problems)
    if not problems:
        yield _ok("configuration", "it is valid, and no options contradict each other")
    yield from _secrets(settings)
    yield from _webhooks(settings)
    yield from _openness(settings)
    if not tls_file_problems(settings):
        yield from _certificates(settings)
    yield from _machine(connections)
    yield from _redis(settings)


# --------------------------------------------------------------------------------------------- configuration


def _secrets(settings: Settings) -> Iterator[Finding]:
    """A finding for each secret and API key. One that is configured as a hash cannot be checked."""
    secrets, keys = list(_token_secrets(settings)), list(_api_keys(settings))
    for name, secret in secrets:
        weak = weakness(secret, SECRET_BYTES)
        yield _error(name, f"{weak}: tokens can be forged", HOW_TO_MAKE_ONE) if weak else _ok(name, STRONG)
    for name, key in keys:
        yield _api_key(name, key, dict(secrets))
    name, control = "engine.control_secret", settings.engine.control_secret
    if control and (weak := weakness(control, KEY_BYTES)):
        yield _error(name, f"{weak}: control commands can be forged", HOW_TO_MAKE_ONE)
    elif control:
        yield _ok(name, STRONG)
    for proxy, options in settings.proxies.items():
        name = f"proxies.{proxy}.secret"
        if weak := options.secret and weakness(options.secret, KEY_BYTES):
            yield _error(name, f"{weak}: requests to the back end can be forged", HOW_TO_MAKE_ONE)
        elif options.secret:
            yield _ok(name, STRONG)


def _webhooks(settings: Settings) -> Iterator[Finding]:
    """Findings about the secrets and the addresses of webhooks."""
    for name, webhook in settings.webhooks.items():
        section = f"webhooks.{name}"
        if not webhook.secrets:
            text = "its requests are not signed: everyone who knows the receiver's address can forge them"
            yield _error(f"{section}.secrets", text, HOW_TO_MAKE_ONE)
        for key, secret in _numbered(f"{section}.secrets", webhook.secrets):
            weak = weakness(secret, SECRET_BYTES)
            yield _error(key, f"{weak}: events can be forged", HOW_TO_MAKE_ONE) if weak else _ok(key, STRONG)
        if webhook.is_plain_elsewhere:
            text = "events travel without TLS, and can be read and changed on their way"
            yield _error(f"{section}.url", text, "use an https:// address")


def _api_key(name: str, key: str, secrets: dict[str, str]) -> Finding:
    if key.startswith(HASH_PREFIX):
        return _ok(name, "it is configured as a hash, so its strength is not known")
    if weak := weakness(key, KEY_BYTES):
        return _error(name, f"{weak}: it can be guessed", HOW_TO_MAKE_ONE)
    same = [other for other, secret in secrets.items() if secret == key]
    return _error(name, f"it is also {same[0]}", "use another one for each") if same else _ok(name, STRONG)


def _token_secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    """The name and value of each secret that verifies tokens."""
    if settings.client.token_hmac_secret:
        yield "client.token_hmac_secret", settings.client.token_hmac_secret
    yield from _numbered("client.token_secrets", settings.client.token_secrets)
    for name, issuer in settings.issuers.items():
        yield from _numbered(f"issuers.{name}.secrets", issuer.secrets)


def _api_keys(settings: Settings) -> Iterator[tuple[str, str]]:
    yield from _numbered("api.keys", settings.api.keys)
    for name, options in settings.api_keys.items():
        yield from _numbered(f"api_keys.{name}.keys", options.keys)


def _numbered(name: str, values: Iterable[str]) -> Iterator[tuple[str, str]]:
    for number, value in enumerate(values, 1):
        yield f"{name}, number {number}", value


def _openness(settings: Settings) -> Iterator[Finding]:
    for section, is_insecure in (("client", settings.client.insecure), ("api", settings.api.insecure)):
        if is_insecure:
            yield _error(
                f"{section}.insecure",
                "everyone who reaches the address may do everything",
                f"remove {section}.insecure, outside development",
            )
    yield from _origins(settings.server.allowed_origins)
    for proxy, options in settings.proxies.items():
        if not options.is_https and not is_loopback(urlsplit(options.url).hostname or ""):
            yield _warning(
                f"proxies.{proxy}.url",
                "requests, with what they forward of clients' headers, can be read and changed on their way",
                "use an https:// address, unless the network to the back end is private",
            )
    if not settings.admin.host and not _is_local(settings):
        yield _warning(
            "admin.host",
            "the API, metrics and health are served on the address of the clients",
            "set admin.host to an address of a private network",
        )


def _origins(origins: tuple[str, ...]) -> Iterator[Finding]:
    if not origins:
        yield _warning("server.allowed_origins", "no page may connect", "name the origins of your pages")
    if "*" in origins:
        yield _warning(
            "server.allowed_origins",
            "a page of any origin may connect, in the name of its visitor",
            "name the origins of your pages instead of *",
        )
    for origin in origins:
        if origin.startswith("http://") and not _is_local_origin(origin):
            yield _warning(
                "server.allowed_origins",
                f"a page of {origin} can be changed on its way",
                "serve it over https, and name that origin",
            )


def _is_local_origin(origin: str) -> bool:
    return origin.removeprefix("http://").partition(":")[0] in ("localhost", "127.0.0.1", "[")


def _is_local(settings: Settings) -> bool:
    return all(
        host.startswith(("127.", "unix:")) or host in ("localhost", "::1") for host in settings.server.hosts
    )


def _certificates(settings: Settings) -> Iterator[Finding]:
    for section, file in (
        ("server", settings.server.tls_certificate),
        ("admin", settings.admin.tls_certificate),
        *((f"proxies.{name}", options.tls_certificate) for name, options in settings.proxies.items()),
    ):
        if not file:
            continue
        days = (expiry_of(file) - dt.datetime.now(dt.UTC)) / dt.timedelta(days=1)
        name = f"{section}.tls_certificate"
        if days <= 0:
            yield _error(name, "it has expired", "renew it")
        elif days < CERTIFICATE_DAYS:
            yield _warning(name, f"it expires in {days:.0f} days", "renew it")
        else:
            yield _ok(name, f"it is valid for {days:.0f} days")


# --------------------------------------------------------------------------------------------------- machine


def _machine(connections: int) -> Iterator[Finding]:
    needed = connections + OTHER_FILES
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < needed:
        text = f"it is {files:,}, and {connections:,} connections need {needed:,}"
        fix = f"ulimit -n {needed}; LimitNOFILE={needed} in a systemd unit; ulimits in a container"
        yield _error("file limit", text, fix)
    else:
        yield _ok("file limit", f"it is enough for {connections:,} connections")
    backlog = _kernel_number("net/core/somaxconn", 0)
    if backlog is None:
        yield _warning("kernel backlog", "it cannot be read", "check net.core.somaxconn")
    elif backlog < BACKLOG:
        text = f"net.core.somaxconn is {backlog}: of a crowd that connects, many are refused"
        yield _warning("kernel backlog", text, f"sysctl -w net.core.somaxconn={4 * BACKLOG}")
    else:
        yield _ok("kernel backlog", f"net.core.somaxconn is {backlog}")
    yield from _ports(connections)


def _ports(connections: int) -> Iterator[Finding]:
    """A proxy on this machine needs a local port for each connection to one address of the node."""
    low, high = (_kernel_number("net/ipv4/ip_local_port_range", part) for part in (0, 1))
    if low is None or high is None:
        return
    if high - low < connections:
        yield _warning(
            "ephemeral ports",
            f"a proxy on this machine has {high - low:,} for each address of a node",
            "sysctl -w net.ipv4.ip_local_port_range='1024 65535'; or several hosts, or a unix socket, in "
            "server.host",
        )
    else:
        yield _ok("ephemeral ports", f"a proxy on this machine has {high - low:,}")


def _kernel_number(name: str, part: int) -> int | None:
    try:
        return int(Path("/proc/sys", name).read_text().split()[part])
    except (OSError, ValueError, IndexError):
        return None


# ----------------------------------------------------------------------------------------------------- Redis


def _redis(settings: Settings) -> Iterator[Finding]:
    if settings.engine.is_in_memory:
        yield _ok("engine", "it is in memory, for one node")
        return
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its log lines: their reasons are findings
            warnings, ahead = asyncio.run(_started(settings))
    except (EngineError, OSError) as error:
        yield _error("Redis", f"it cannot be used: {error}", "correct engine.url, or what the text names")
        return
    yield _ok("Redis", "it can be used")
    yield from (_warning("Redis", text, "docs/operate.md, Redis") for text in warnings)
    if abs(ahead) > CLOCK_SECONDS:
        text = f"it differs from that of this machine by {ahead:+.1f} s"
        yield _warning("clock of Redis", text, "synchronize the clocks of both machines (NTP)")
    else:
        yield _ok("clock of Redis", "it agrees with that of this machine")


async def _started(settings: Settings) -> tuple[tuple[str, ...], float]:
    """Start a node for a moment. Returns the engine's warnings, and how far its clock is ahead in seconds."""
    engine = create_engine(settings.engine)
    async with Node(settings, engine).running():
        while not engine.health.shared_time:  # noqa: ASYNC110 - the clock is read within milliseconds
            await asyncio.sleep(0.01)
        health = engine.health
        return health.warnings, health.shared_time - time.time()


# -------------------------------------------------------------------------------------------------- findings


def _ok(check: str, text: str) -> Finding:
    return {"level": "ok", "check": check, "text": text, "fix": ""}


def _warning(check: str, text: str, fix: str) -> Finding:
    return {"level": "warning", "check": check, "text": text, "fix": fix}


def _error(check: str, text: str, fix: str) -> Finding:
    return {"level": "error", "check": check, "text": text, "fix": fix}
