"""The addresses of a server, made from one base address, http(s) or ws(s)."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

WEBSOCKET_PATH = "/connection/websocket"
_SECURE = {"http": False, "https": True, "ws": False, "wss": True}


def websocket_url(url: str) -> str:
    """Return the WebSocket address: ``http://host`` becomes ``ws://host/connection/websocket``.

    A ws:// address that has a path stays. Raises ``ValueError`` for what is not an address.
    """
    scheme, host, path, query = _split(url)
    if scheme.startswith("ws") and path.strip("/"):
        return url
    path = path.rstrip("/")
    if not path.endswith(WEBSOCKET_PATH):
        path += WEBSOCKET_PATH
    return urlunsplit(("wss" if _SECURE[scheme] else "ws", host, path, query, ""))


def http_url(url: str, path: str) -> str:
    """Return the HTTP address of ``path`` (``/events``, ``/api``) below a base address.

    Raises ``ValueError`` for what is not an address.
    """
    scheme, host, base, query = _split(url)
    base = base.rstrip("/").removesuffix(WEBSOCKET_PATH).removesuffix(path)
    return urlunsplit(("https" if _SECURE[scheme] else "http", host, base + path, query, ""))


def _split(url: str) -> tuple[str, str, str, str]:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in _SECURE or not parts.hostname:
        raise ValueError(f"{url!r} is not an address: expected http://HOST:PORT, https://, ws:// or wss://")
    parts.port  # noqa: B018 # raises ValueError unless the port is a number
    return scheme, parts.netloc, parts.path, parts.query
