"""The HTTP request with which a client connected, as far as hooks want it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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


class Headers(Mapping[str, str]):
    """Headers by their names in lower case, decoded when one is first read."""

    __slots__ = ("_encoded", "_values")

    def __init__(self, encoded: Mapping[bytes, bytes]) -> None:
        self._encoded: Mapping[bytes, bytes] | None = encoded
        self._values: dict[str, str] = {}

    def _decoded(self) -> dict[str, str]:
        encoded = self._encoded  # read once: hooks in other threads may read headers, too
        if encoded is not None:
            self._values = {
                name.decode("latin-1"): value.decode("latin-1") for name, value in encoded.items()
            }
            self._encoded = None
        return self._values

    def __getitem__(self, name: str) -> str:
        return self._decoded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __len__(self) -> int:
        encoded = self._encoded
        return len(self._values if encoded is None else encoded)


def joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return headers by name, those of equal names as one (RFC 9110 §5.3). Names are in lower case."""
    values: dict[bytes, bytes] = {}
    for name, value in headers:
        values[name] = joined_with(name, values[name], value) if name in values else value
    return values


def joined_with(name: bytes, former: bytes, value: bytes) -> bytes:
    """Two values of one name as one: cookies as clients join them (RFC 6265 §5.4)."""
    return b"%b%b%b" % (former, b"; " if name == b"cookie" else b", ", value)


class KeptHeaders:
    """Which headers of its request a connection keeps. Immutable."""

    __slots__ = ("_names",)

    def __init__(self, names: Iterable[str] | None = None) -> None:
        """Keep the headers with these names, in any case; None: all headers."""
        self._names = None if names is None else [name.lower().encode("latin-1", "replace") for name in names]

    def request(
        self,
        transport: str,
        protocol: str,
        address: str,
        headers: dict[bytes, bytes],
        query: str,
        *,
        cookies_count: bool,
    ) -> ClientRequest:
        """Return what is kept of a request. `query` is that of its address, without the `?`.

        `headers` are as `joined` returns them, and not changed later. Cookies are not kept unless they count,
        because the page of a foreign origin may have had them sent.
        """
        if self._names is not None:
            headers = {name: headers[name] for name in self._names if name in headers}
        if not cookies_count and b"cookie" in headers:
            headers = {name: value for name, value in headers.items() if name != b"cookie"}
        parameters = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
        return ClientRequest(transport, protocol, address, Headers(headers), parameters)
