"""HTTP under asyncio: httpx's client, whose failures are all its own."""

from __future__ import annotations

from typing import Any

import httpx


class HttpClient(httpx.AsyncClient):
    """Raises ``httpx.TransportError``, and nothing else, when a connection cannot be had or breaks.

    Under uvloop a connection that breaks as soon as it is made has no socket any more, which anyio asks for
    its peer.
    """

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request, as httpx does."""
        try:
            return await super().send(request, **options)
        except AttributeError as error:
            if error.name != "getpeername":
                raise
            raise httpx.ConnectError("the connection broke at once", request=request) from error
