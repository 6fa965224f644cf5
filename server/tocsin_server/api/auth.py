"""Who may use the HTTP API: whoever shows one of its keys."""

from __future__ import annotations

import hmac
from collections.abc import Iterator

from starlette.requests import Request

from tocsin_server.config.options import ApiOptions

HEADER = "X-API-Key"
SCHEME = "apikey"
PARAMETER = "api_key"


class ApiKeys:
    """The configured keys. Without any, nobody is admitted, unless the API is open to everybody."""

    def __init__(self, options: ApiOptions) -> None:
        self._is_open = options.insecure
        self._keys = [key.encode() for key in options.keys]

    def admit(self, request: Request) -> bool:
        """Whether the request shows a key, in any of the three places.

        Takes as long for a key that is nearly right as for one that is not, and compares with all of them.
        """
        if self._is_open:
            return True
        return True in [hmac.compare_digest(shown, key) for shown in _shown(request) for key in self._keys]


def _shown(request: Request) -> Iterator[bytes]:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == SCHEME:
        yield credentials.strip().encode()
    for place, name in ((request.headers, HEADER), (request.query_params, PARAMETER)):
        if name in place:
            yield place[name].encode(errors="replace")
