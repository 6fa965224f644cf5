"""The keys of the HTTP API, and the three places of a request that may hold one."""

from __future__ import annotations

import hmac
from collections.abc import Iterator

from starlette.requests import Request

from tocsin_server.config.options import ApiOptions

HEADER = "X-API-Key"
SCHEME = "apikey"
PARAMETER = "api_key"


class ApiKeys:
    """The configured keys. Without keys every request is refused, unless the API is insecure."""

    def __init__(self, options: ApiOptions) -> None:
        self._is_insecure = options.insecure
        self._keys = [key.encode() for key in options.keys]

    def accepts(self, request: Request) -> bool:
        """Whether the request has a valid key in one of the three places.

        Each key of the request is compared with all configured keys, in a time that does not depend on how
        similar they are.
        """
        if self._is_insecure:
            return True
        return True in [hmac.compare_digest(given, key) for given in _keys_of(request) for key in self._keys]

    def refusal_reason(self, request: Request) -> str:
        """Why a request is refused, for the operator. Shows no key."""
        if not self._keys:
            return "api.keys is not set"
        return "its API key is not one of api.keys" if any(_keys_of(request)) else "it has no API key"


def _keys_of(request: Request) -> Iterator[bytes]:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == SCHEME:
        yield credentials.strip().encode()
    for values, name in ((request.headers, HEADER), (request.query_params, PARAMETER)):
        if name in values:
            yield values[name].encode(errors="replace")
