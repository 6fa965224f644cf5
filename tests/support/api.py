"""A client of the HTTP API, with httpx: a back end as the tests need it."""

import ssl
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.configs import API_KEY
from tests.support.refusal import Refused
from tests.support.server import Server
from tests.support.timing import SOON

Json = dict[str, Any]

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""One context for all clients, without certificates: loading these takes longer than most tests."""


class Api:
    """`await api.call("publish", channel=…, data=…)` returns the result or raises `Refused`."""

    def __init__(self, server: Server) -> None:
        self._http = httpx.AsyncClient(base_url=server.api_url, timeout=SOON, trust_env=False, verify=NO_TLS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def post(self, method: str, content: Any, **headers: str) -> httpx.Response:
        """Post `content` (a JSON value, or raw bytes) and return the response."""
        body = {"content": content} if isinstance(content, bytes) else {"json": content}
        return await self._http.post(f"/{method}", headers={"X-API-Key": API_KEY, **headers}, **body)

    async def call(self, method: str, /, **params: Any) -> Json:
        response = await self.post(method, params)
        assert response.status_code == 200, response.text
        answer: Json = response.json()
        if error := answer.get("error"):
            raise Refused(error["code"], error["message"])
        result: Json = answer["result"]
        return result

    async def publish(self, channel: str, data: Any = None, **params: Any) -> Json:
        return await self.call("publish", channel=channel, data={} if data is None else data, **params)

    async def publish_numbers(self, channel: str, numbers: range) -> list[int]:
        """Publish `{"n": …}` for each number, one after the other. Returns the offsets."""
        results = [await self.publish(channel, {"n": number}) for number in numbers]
        return [result["offset"] for result in results]
