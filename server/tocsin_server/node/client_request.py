"""The HTTP request with which a client connected, as far as hooks want it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from msgspec import Struct
from starlette.requests import cookie_parser


class ClientRequest(Struct, frozen=True):
    """The HTTP request with which a client connected. It stays the same as long as the connection."""

    transport: str
    """The transport of the connection, such as `websocket` or `sse` (docs/metrics.md)."""
    protocol: str
    """The format of its messages: `json` or `protobuf`."""
    address: str
    """The client's IP address, as far as trusted proxies tell it, "unix" or "unknown"."""
    headers: Mapping[str, str]
    """The headers that hooks want, by their names in lower case. Equal names are joined (RFC 9110 §5.3)."""
    query: Mapping[str, str]
    """The parameters of the address. Of equal ones, the last."""

    def __repr__(self) -> str:
        """Show nothing that may be secret: a traceback with the values of variables has this text."""
        return f"<ClientRequest {self.transport} {self.protocol} {self.address}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same on consoles that show values in colors."""
        return [("transport", self.transport), ("protocol", self.protocol), ("address", self.address)]

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies by name; of equal ones, the last. Empty if the header is not kept, or does not count.

        They are separated as browsers do, so that one that is not valid hides no other.
        """
        return cookie_parser(self.headers.get("cookie", ""))


class KeptHeaders:
    """Which headers of its request a connection keeps. Immutable."""

    __slots__ = ("_names",)

    def __init__(self, names: Iterable[str] | None = None) -> None:
        """Keep the headers with these names, in any case; None: all headers."""
        self._names = None if names is None else frozenset(name.lower() for name in names)

    def request(
        self,
        transport: str,
        protocol: str,
        address: str,
        headers: Iterable[tuple[str, str]],
        query: str,
        *,
        cookies_count: bool,
    ) -> ClientRequest:
        """Return what is kept of a request. `query` is that of its address, without the `?`.

        Cookies are not kept unless they count, because the page of a foreign origin may have had them sent.
        """
        kept: dict[str, str] = {}
        for written, value in headers:
            name = written.lower()
            if self._names is not None and name not in self._names:
                continue
            if name in kept:
                kept[name] = f"{kept[name]}{'; ' if name == 'cookie' else ', '}{value}"
            else:
                kept[name] = value
        if not cookies_count:
            kept.pop("cookie", None)
        parameters = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
        return ClientRequest(transport, protocol, address, kept, parameters)
