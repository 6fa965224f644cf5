"""What an http address is to us.

Whether it is one, when two are the same, and whether it is on this machine.
"""

import ipaddress
from urllib.parse import SplitResult, urlsplit

URL_LIMIT = 500
_DEFAULT_PORTS = {"http": 80, "https": 443}


class NotAnAddressError(ValueError):
    """The text is no http address we would keep; the message says why."""


def parse(url: str) -> SplitResult:
    """The parts of an absolute http or https address without credentials; NotAnAddressError otherwise."""
    if len(url) > URL_LIMIT:
        raise NotAnAddressError(f"may have {URL_LIMIT} characters at most")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise NotAnAddressError("may have no spaces and none but ASCII characters")
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises unless it is a number a port can have
    except ValueError as error:
        raise NotAnAddressError(f"is not an address: {error}") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise NotAnAddressError("must begin with http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise NotAnAddressError("must not carry a user name or password")
    return parts


def normal(url: str) -> str:
    """The same text for addresses that differ in case of host, default port, fragment or last slash only."""
    parts = parse(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}{query}"


def loopback(parts: SplitResult) -> str | None:
    """The loopback address behind the host, or None.

    Nothing is looked up: a name other than localhost is not ours.
    """
    host = parts.hostname or ""
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return str(address) if address.is_loopback else None
