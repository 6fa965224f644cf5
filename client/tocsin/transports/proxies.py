"""The proxy that the environment names for an address. Libraries pick it in silence; errors name it here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from tocsin.errors import ServerUnreachable

from .address import DEFAULT_PORTS

# RFC 6455 §4.1 prefers a SOCKS proxy, and then one for HTTPS, also for an address without TLS
_VARIABLES = {
    "http": ("http", "all"),
    "https": ("https", "all"),
    "ws": ("ws", "socks", "https", "http"),
    "wss": ("wss", "socks", "https"),
}
_SOCKS_PACKAGES = {"http": "httpx[socks]", "ws": "python-socks[asyncio]"}


@dataclass(frozen=True, slots=True)
class Proxy:
    """The address of a proxy, and the environment variable that holds it.

    ``url`` may hold a password; the text of this object does not.
    """

    url: str
    variable: str

    def __str__(self) -> str:
        host = urlsplit(self.url).netloc.rpartition("@")[2] if self._is_readable else "?"
        return f"the proxy {host} (set by {self.variable})"

    @property
    def hint(self) -> str:
        """The end of a sentence about a failure: which proxy takes part, and how to go without it."""
        return f"through {self}; to connect without it, name the server's host in no_proxy"

    def check(self) -> None:
        """Raise ``ServerUnreachable`` if the address is not one: libraries accept some that lead nowhere."""
        if not self._is_readable:
            raise self.unusable(None)

    def unusable(self, reason: object) -> ServerUnreachable:
        """Return the error of a proxy that a library refuses."""
        if isinstance(reason, ImportError):
            package = _SOCKS_PACKAGES["ws" if "python-socks" in str(reason) else "http"]
            problem = f"SOCKS needs a package: pip install '{package}'"
        elif not self._is_readable:
            problem = "it is not an address: expected http://HOST:PORT"
        else:
            problem = f"{urlsplit(self.url).scheme}:// is not supported: expected http://HOST:PORT"
        return ServerUnreachable(
            f"{self} cannot be used: {problem}. Correct or unset {self.variable}, or name the server's host "
            "in no_proxy"
        )

    def refused(self, status: int) -> ServerUnreachable:
        """Return the error of a proxy that answers for itself, with a status of 4xx."""
        if status == 407:
            advice = f"write its user and password into {self.variable}: http://USER:PASSWORD@HOST:PORT"
        else:
            advice = "it must permit this address, or no_proxy must name the server's host"
        return ServerUnreachable(f"{self} refused the connection: HTTP {status}; {advice}")

    @property
    def _is_readable(self) -> bool:
        try:
            parts = urlsplit(self.url)
            return bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            return False


def find_proxy(url: str) -> Proxy | None:
    """Return the proxy for an address, or None. ``no_proxy`` is respected."""
    parts = urlsplit(url)
    if proxy_bypass(f"{parts.hostname}:{parts.port or DEFAULT_PORTS[parts.scheme]}"):
        return None
    proxies = getproxies()
    for scheme in _VARIABLES[parts.scheme]:
        if address := proxies.get(scheme):
            return Proxy(address if "://" in address else f"http://{address}", _variable(scheme))
    return None


def _variable(scheme: str) -> str:
    names = [name for name, value in os.environ.items() if value and name.lower() == f"{scheme}_proxy"]
    return max(names, default="the system's settings")  # of two, the one in lower case counts, as in urllib
