"""The demo's nodes as its page asks about them, with the rights of a visitor."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import httpx

from tests.support.server import Server
from tests.support.timing import SOON, TICK

Json = dict[str, Any]


class Nodes:
    """Asks any node of a demo, and troubles them. A connection that breaks with its node is replaced."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, server: Server) -> AsyncIterator[Self]:
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(
            base_url=server.url, timeout=SOON, trust_env=False, limits=limits
        ) as http:
            await http.get("/demo/token")
            yield cls(http)

    async def all(self) -> dict[str, Json]:
        answer = (await self.http.get("/demo/nodes")).json()
        return {node["name"]: node for node in answer["nodes"]}

    async def addresses(self) -> dict[str, str]:
        return {name: node["address"] for name, node in (await self.all()).items()}

    async def pids(self) -> dict[str, int]:
        return {name: node["pid"] for name, node in (await self.all()).items()}

    async def do(self, name: str, deed: str) -> httpx.Response:
        return await self.http.post(f"/demo/nodes/{name}/{deed}")

    async def until(self, fits: Callable[[Json], bool], name: str) -> None:
        """Ask until the node is as wanted."""
        async with asyncio.timeout(3 * SOON):
            while not await self._is(fits, name):  # noqa: ASYNC110 - nobody else tells
                await asyncio.sleep(TICK)

    async def _is(self, fits: Callable[[Json], bool], name: str) -> bool:
        try:
            return fits((await self.all())[name])
        except httpx.TransportError:  # asked the very node that goes
            return False

    @staticmethod
    def own(address: str) -> Server:
        """One node alone, to connect to; its process is not ours."""
        server = Server.__new__(Server)
        server.url = f"http://{address}"
        return server
