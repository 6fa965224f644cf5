"""The addresses of a server, made from one base address, http(s) or ws(s)."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

WEBSOCKET_PATH = "/connection/websocket"
DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SECURE = {"http": False, "https": True, "ws": False, "wss": True}
_ENCODING = "in a user or password write %23 for #, %3F for ?, %2F for /, %5B for [, %5D for ] and %40 for @"


def websocket_url(url: str) -> str:
    """Return the WebSocket address: ``http://host`` becomes ``ws://host/connection/websocket``.

    A ws:// address that has a path stays. Raises ``ValueError`` for what is not an address.
    """
    scheme, host, path, query = _split(url)
    path = path if scheme.startswith("ws") and path.strip("/") else _with_websocket_path(path)
    return urlunsplit(("wss" if _SECURE[scheme] else "ws", host, path, query, ""))


def http_url(url: str, path: str) -> str:
    """Return the HTTP address of ``path`` (``/events``, ``/api``) below a base address.

    Raises ``ValueError`` for what is not an address.
    """
    scheme, host, base, query = _split(url)
    base = base.rstrip("/").removesuffix(WEBSOCKET_PATH).removesuffix(path)
    return urlunsplit(("https" if _SECURE[scheme] else "http", host, base + path, query, ""))


def redact(url: str) -> str:
    """Return the address with … for its user, password and the values of its query, for messages.

    Also for what is not an address, and for a text that holds one.
    """
    text = re.sub(r"//.*@", "//…@", url, flags=re.DOTALL)
    return re.sub(r"([?&][^=&#\s]*=)[^&#\s\"'<>]*", r"\1…", text)


def _with_websocket_path(path: str) -> str:
    return path.rstrip("/").removesuffix(WEBSOCKET_PATH) + WEBSOCKET_PATH


def _split(url: str) -> tuple[str, str, str, str]:
    url = url.strip()  # a line end, from a file or a secret
    parts = _parse(url)
    scheme = parts.scheme.lower()
    if scheme not in _SECURE or not parts.hostname:
        raise ValueError(
            f"{redact(url)!r} is not an address: expected http://HOST:PORT, https://, ws:// or wss://"
        )
    if "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(f"{redact(url)!r} is not an address: {_ENCODING}")
    return scheme, parts.netloc, parts.path, parts.query


def _parse(url: str) -> SplitResult:
    """Split an address, and check that each library will accept it."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 # raises ValueError unless the port is a number
        (parts.hostname or "x").encode("idna")
        is_valid = not re.search(r"[\s\x00-\x1f\x7f]", url)
    except ValueError:
        is_valid = False
    if not is_valid:
        advice = _ENCODING if "@" in url else "expected http://HOST:PORT, https://, ws:// or wss://"
        raise ValueError(f"{redact(url)!r} is not an address: {advice}")
    return parts
