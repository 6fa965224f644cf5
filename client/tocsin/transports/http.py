"""HTTP in asyncio: httpx's client, with only httpx's own errors."""

from __future__ import annotations

from typing import Any

import httpx

PASSING_STATUSES = (408, 425, 429)  # of 4xx: worth another attempt


class HttpClient(httpx.AsyncClient):
    """Raises only ``httpx.TransportError`` when a connection cannot be opened, or breaks.

    Under uvloop, a connection that breaks as soon as it is made has no socket, and anyio's request for its
    peer name raises ``AttributeError``.
    """

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request, as httpx does."""
        try:
            return await super().send(request, **options)
        except AttributeError as error:
            if error.name != "getpeername":
                raise
            raise httpx.ConnectError("the connection broke at once", request=request) from error
