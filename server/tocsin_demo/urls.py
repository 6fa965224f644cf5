"""Parses, normalizes and classifies the URLs of links."""

import ipaddress
from urllib.parse import SplitResult, urlsplit

URL_LIMIT = 500
_DEFAULT_PORTS = {"http": 80, "https": 443}


class InvalidUrlError(ValueError):
    """The text is not a URL that the demo accepts. The message says why, without naming the URL."""


def parse_url(url: str) -> SplitResult:
    """Parse an absolute http or https URL without credentials. Raises InvalidUrlError."""
    if len(url) > URL_LIMIT:
        raise InvalidUrlError(f"must have at most {URL_LIMIT} characters")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidUrlError("must consist of ASCII characters without spaces")
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for an invalid port
    except ValueError as error:
        raise InvalidUrlError(f"is not a valid URL: {error}") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise InvalidUrlError("must begin with http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise InvalidUrlError("must not contain a user name or password")
    return parts


def normalized(url: str) -> str:
    """Return one text for URLs that differ only in case of the host, default port, fragment or last slash.

    Raises InvalidUrlError.
    """
    parts = parse_url(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}{query}"


def loopback_address(parts: SplitResult) -> str | None:
    """Return the loopback address of the host, or None.

    Names are never resolved, so the only name that counts as this machine is localhost.
    """
    host = parts.hostname or ""
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return str(address) if address.is_loopback else None
