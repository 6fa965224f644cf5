"""The address of the client behind proxies, and the scheme and host that the client used.

A connection comes from its peer: the client, or a proxy. A trusted proxy says in a header from where it got a
request. Every other peer may write what it likes there, so its headers are not read.

    X-Forwarded-For: CLIENT, PROXY, PROXY       each proxy adds its own peer at the end
    Forwarded: for=CLIENT;proto=https;host=NAME, for=PROXY     RFC 7239, the same with parameters

Read from the end, the first address that is no trusted proxy is the client. What is before it was written by
the client. Proxies pass a header on that they do not know, so only the one of `ProxyHeader` is ever read.

This module is pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

UNIX = "unix"
"""In a list of trusted proxies: every peer that connects to a unix socket."""

UNKNOWN = "unknown"
"""The address of a client that a trusted proxy does not name, or not in a readable form."""

HOPS_LIMIT = 16
"""How many addresses of a header are read, from its end. The one before them counts as the client."""

FORWARDED_LIMIT_BYTES = 4096
"""A longer `Forwarded` is ignored: it has to be read from its beginning, which its client wrote."""

LONGEST_ADDRESS = 128
"""How many characters an address may have: 45 of an IPv6 address, and the name of its zone."""

CACHED_ADDRESSES = 4096
"""How many addresses are kept parsed. Those of proxies and back ends come again and again."""

ProxyHeader = Literal["X-Forwarded-For", "Forwarded"]

HeaderValues = Callable[[str], Sequence[str]]
"""All values of the header with this name, in their order."""

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_WORD = r"[^\s,;=\"]+"
_PAIR = re.compile(rf'([\s,;]*)({_WORD})=({_WORD}|"(?:[^"\\]|\\.)*")\s*(?=[;,]|$)')
_ESCAPED = re.compile(r"\\(.)")
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?")
_PORT = re.compile(r":[0-9]{1,5}$")
_HOST = re.compile(r"[-.0-9A-Za-z_]{1,255}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """Where a request comes from, and what its client connected to."""

    address: str
    """An IP address in its usual form, "unix" or "unknown"."""
    scheme: str = ""
    """`http` or `https`, as a trusted proxy says. Empty: none says it."""
    host: str = ""
    """The host and port of the client's request, as a trusted proxy says. Empty: none says it."""


class TrustedProxies:
    """The peers whose header is read: networks, and "unix". Immutable."""

    __slots__ = ("_header", "_networks", "_trusts_unix")

    def __init__(self, names: Iterable[str] = (), header: ProxyHeader = "X-Forwarded-For") -> None:
        """Raises ValueError if a name is neither an address, nor a network, nor "unix"."""
        listed = list(names)
        self._trusts_unix = UNIX in listed
        self._networks = tuple(ipaddress.ip_network(name) for name in listed if name != UNIX)
        self._header = header

    def trust(self, address: str) -> bool:
        """Whether this address, or "unix", is that of a trusted proxy."""
        if address == UNIX:
            return self._trusts_unix
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client_of(self, peer: str, values: HeaderValues) -> ClientAddress:
        """The client of a request that came from `peer`; an empty peer is that of a unix socket.

        Never raises. Where a trusted proxy names no client in a readable form, the client is "unknown", and
        not the proxy: an address of one's own network may have rights. Without a header, the request is the
        proxy's own.
        """
        address = normalized(peer)
        if not self.trust(address):
            return ClientAddress(address)
        if self._header == "Forwarded":
            return self._behind_forwarded(address, values("Forwarded"))
        for hop in _last_hops(values("X-Forwarded-For")):
            address = _node(hop)
            if not self.trust(address):
                break
        return ClientAddress(
            address, _scheme(_last(values("X-Forwarded-Proto"))), _host(_last(values("X-Forwarded-Host")))
        )

    def _behind_forwarded(self, address: str, values: Sequence[str]) -> ClientAddress:
        """Each element has what one proxy saw: the parameters of the client's own element count."""
        scheme = host = ""
        for element in _last_elements(values):
            scheme, host = _scheme(element.get("proto", "")), _host(element.get("host", ""))
            address = _node(element.get("for", ""))
            if not self.trust(address):
                break
        return ClientAddress(address, scheme, host)


def normalized(peer: str) -> str:
    """The usual form of a peer's address: IPv4 as such, though a socket for both families maps it to IPv6."""
    parsed = _parsed(peer)
    return str(parsed) if parsed is not None else UNIX


def _parsed(address: str) -> _Address | None:
    return _parse_short(address) if len(address) <= LONGEST_ADDRESS else None


@lru_cache(CACHED_ADDRESSES)
def _parse_short(address: str) -> _Address | None:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _node(text: str) -> str:
    """The address of a hop, whose port does not count. `_hidden` and what is invalid are unknown."""
    bracketed = _BRACKETED.fullmatch(text)
    bare = bracketed[1] if bracketed else text
    if bare.count(":") == 1:
        bare = _PORT.sub("", bare)
    parsed = _parsed(bare)
    return str(parsed) if parsed is not None else UNKNOWN


def _last_hops(values: Sequence[str]) -> Iterator[str]:
    """The addresses of X-Forwarded-For, the last one first."""
    count = 0
    for value in reversed(values):
        for hop in reversed(value.rsplit(",", HOPS_LIMIT)[-HOPS_LIMIT:]):
            if count == HOPS_LIMIT:
                return
            count += 1
            yield hop.strip()


def _last_elements(values: Sequence[str]) -> Iterator[dict[str, str]]:
    """The elements of Forwarded, the last one first. A value that is invalid ends them."""
    count = 0
    for value in reversed(values):
        for element in reversed(_elements(value)):
            if count == HOPS_LIMIT:
                return
            count += 1
            yield element


def _elements(value: str) -> list[dict[str, str]]:
    """The elements of one value, each as its parameters. One empty element if the value is invalid."""
    elements: list[dict[str, str]] = [{}]
    value = value.rstrip(" \t,;")
    end = 0
    while end < len(value) <= FORWARDED_LIMIT_BYTES:
        pair = _PAIR.match(value, end)
        if pair is None:
            return [{}]
        separator, name, text = pair.groups()
        if "," in separator:
            elements.append({})
        elements[-1][name.lower()] = _ESCAPED.sub(r"\1", text[1:-1]) if text.startswith('"') else text
        end = pair.end()
    return elements


def _last(values: Sequence[str]) -> str:
    return values[-1].rpartition(",")[2].strip() if values else ""


def _scheme(text: str) -> str:
    """`http` or `https`; the schemes of WebSockets, which some proxies write, are those of HTTP."""
    scheme = {"ws": "http", "wss": "https"}.get(text.lower(), text.lower())
    return scheme if scheme in ("http", "https") else ""


def _host(text: str) -> str:
    return text if _HOST.fullmatch(text) else ""
