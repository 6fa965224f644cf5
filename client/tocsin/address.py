"""A server's addresses: one base, http(s) or ws(s), gives all others."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

WEBSOCKET_PATH = "/connection/websocket"
_SECURE = {"http": False, "https": True, "ws": False, "wss": True}


def websocket_url(url: str) -> str:
    """``http://host`` gives ``ws://host/connection/websocket``; a ws:// address with a path stays."""
    scheme, host, path, query = _split(url)
    if scheme.startswith("ws") and path.strip("/"):
        return url
    path = path.rstrip("/")
    if not path.endswith(WEBSOCKET_PATH):
        path += WEBSOCKET_PATH
    return urlunsplit(("wss" if _SECURE[scheme] else "ws", host, path, query, ""))


def http_url(url: str, path: str) -> str:
    """Give the address of ``path`` (``/events``, ``/api``) below a base of either kind."""
    scheme, host, base, query = _split(url)
    base = base.rstrip("/").removesuffix(WEBSOCKET_PATH).removesuffix(path)
    return urlunsplit(("https" if _SECURE[scheme] else "http", host, base + path, query, ""))


def _split(url: str) -> tuple[str, str, str, str]:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in _SECURE or not parts.hostname:
        raise ValueError(f"{url!r} is not an address: expected http://HOST:PORT, https://, ws:// or wss://")
    parts.port  # noqa: B018 # raises ValueError for a port that is no number
    return scheme, parts.netloc, parts.path, parts.query
