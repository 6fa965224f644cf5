"""The sockets that a server listens on: addresses, unix sockets, and sockets that another process passed."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from tocsin_server.config.values import FD_PREFIX, SYSTEMD_HOST, UNIX_PREFIX, is_passed_or_unix

BACKLOG = 4096
"""Connections that may wait to be accepted. The kernel drops more: clients retry after 1 s, then 3 s."""

FIRST_PASSED_FD = 3
"""The file descriptor of the first socket that systemd passes (sd_listen_fds)."""

UNIX_SOCKET_MODE = 0o666
"""Every user may connect to a unix socket, as to a port of loopback. Its directory may forbid that."""

_NOT_ON_THIS_MACHINE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_TCP_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class Address(Protocol):
    """The options of a listening address."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Each of its hosts."""

    @property
    def port(self) -> int:
        """The port of all of them."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """A listening address of its own."""

    hosts: tuple[str, ...]
    port: int


class CannotListen(Exception):
    """The address cannot be listened on. The message is a sentence with the reason."""


def listen(options: Address) -> list[socket.socket]:
    """Listen on every configured address before anything else starts. Raises CannotListen.

    uvicorn would listen only after the application started, and exit the process if that failed. If the
    system chooses the port of the first address, the others get the same.
    """
    sockets: list[socket.socket] = []
    for host in options.hosts:
        port = options.port or next(filter(None, map(_port_of, sockets)), 0)
        try:
            sockets.extend(_sockets_of(host, port, options.hosts))
        except (OSError, ValueError) as error:
            for one in sockets:
                one.close()
            reason = (getattr(error, "strerror", None) or str(error)).partition(" (")[0]
            address = host if is_passed_or_unix(host) else f"{host}:{port}"
            raise CannotListen(f"Cannot listen on {address}: {reason}.") from error
    for one in sockets:
        if one.family in _TCP_FAMILIES:
            # Accepted connections inherit TCP_NODELAY. asyncio's own loop would not set it for these sockets,
            # and small writes would be delayed.
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sockets


def limit_unacknowledged(listening: socket.socket, seconds: float) -> None:
    """Drop accepted connections whose client acknowledges nothing for so long after it was sent something.

    Without it TCP sends again for about 15 minutes. Accepted connections inherit the option, which Linux has.
    """
    if listening.family in _TCP_FAMILIES and hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))


UNSENT_BYTES = 131_072
"""What the kernel takes for a connection beyond what its client's window allows: enough for a fast client."""


def limit_unsent(listening: socket.socket) -> None:
    """Let the kernel hold few bytes for accepted connections that their clients do not take.

    Otherwise it holds megabytes for each, and the node does not see whether the client reads. Accepted
    connections inherit the option.
    """
    if listening.family in _TCP_FAMILIES and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def url_of(listening: socket.socket, *, is_tls: bool = False) -> str:
    """The URL of a listening socket; for a unix socket `unix:` and its path."""
    scheme = "https" if is_tls else "http"
    if listening.family not in _TCP_FAMILIES:
        return f"{UNIX_PREFIX}{listening.getsockname()}"
    host, port = listening.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _port_of(listening: socket.socket) -> int:
    return int(listening.getsockname()[1]) if listening.family in _TCP_FAMILIES else 0


def _sockets_of(host: str, port: int, hosts: tuple[str, ...]) -> Iterator[socket.socket]:
    if host.startswith(UNIX_PREFIX):
        yield _unix_socket(host.removeprefix(UNIX_PREFIX))
    elif host.startswith(FD_PREFIX):
        yield _passed_socket(int(host.removeprefix(FD_PREFIX)))
    elif host == SYSTEMD_HOST:
        yield from _systemd_sockets()
    else:
        yield from _address_sockets(host, port, is_every_family=host == "::" and "0.0.0.0" not in hosts)  # noqa: S104 - compared


def _address_sockets(host: str, port: int, *, is_every_family: bool) -> Iterator[socket.socket]:
    """One socket for each address of a host name, as localhost has two.

    An address that this machine does not have is skipped, as `::1` without IPv6, unless it is the only one.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = sorted({(family, address[:2]) for family, *_, address in found})
    skipped: OSError | None = None
    count = 0
    for family, address in addresses:
        # "::" is every address of the machine, IPv4 included. Python's default is IPv6 alone
        dualstack = is_every_family and family is socket.AF_INET6 and socket.has_dualstack_ipv6()
        try:
            yield socket.create_server(address, family=family, dualstack_ipv6=dualstack)
            count += 1
        except OSError as error:
            if error.errno not in _NOT_ON_THIS_MACHINE:
                raise
            skipped = error
    if skipped is not None and not count:
        raise skipped


def _unix_socket(path: str) -> socket.socket:
    _remove_abandoned(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(path)
        os.chmod(path, UNIX_SOCKET_MODE)  # noqa: PTH101 - the path is a string, as sockets have it
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _remove_abandoned(path: str) -> None:
    """Remove the socket of a server that has ended. Another file, or one that is served, stays."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 - as above
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)  # noqa: PTH108 - as above


def _passed_socket(fd: int) -> socket.socket:
    try:
        passed = socket.socket(fileno=os.dup(fd))
    except OSError as error:
        raise ValueError(f"file descriptor {fd} is no socket that was passed") from error
    if not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        passed.close()
        raise ValueError(f"the socket of file descriptor {fd} does not listen")
    return passed


def _systemd_sockets() -> Iterator[socket.socket]:
    """The sockets of socket activation, which systemd passes with LISTEN_PID and LISTEN_FDS."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise ValueError("systemd passed no socket to this process (LISTEN_PID, LISTEN_FDS)")
    for number in range(int(os.environ.get("LISTEN_FDS", "0"))):
        yield _passed_socket(FIRST_PASSED_FD + number)
