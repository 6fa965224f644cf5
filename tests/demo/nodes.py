"""The demo's nodes as its page asks about them, with the rights of a visitor."""

import asyncio
import contextlib
import re
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

    async def incidents(self) -> list[Json]:
        incidents: list[Json] = (await self.http.get("/demo/nodes")).json()["incidents"]
        return incidents

    @staticmethod
    def steps(incident: Json) -> dict[str, float]:
        """What came of it, and after how many seconds."""
        return {step["what"]: step["seconds"] for step in incident["steps"]}

    async def taken(self, name: str) -> int:
        """How many publications a node has taken, by its own count."""
        address = (await self.addresses())[name]
        page = (await self.http.get(f"http://{address}/metrics")).text
        count = re.search(r"^tocsin_publications_total ([\d.e+]+)$", page, re.MULTILINE)
        return int(float(count[1])) if count else 0

    async def do(self, name: str, deed: str, via: str = "") -> httpx.Response:
        """Ask any node for it, or the one at this address."""
        return await self.http.post(
            f"http://{via}/demo/nodes/{name}/{deed}" if via else f"/demo/nodes/{name}/{deed}"
        )

    async def until(self, fits: Callable[[Json], bool], name: str) -> None:
        """Ask until the node is as wanted."""
        async with asyncio.timeout(3 * SOON):
            while not await self._is(fits, name):  # noqa: ASYNC110 - nobody else tells
                await asyncio.sleep(TICK)

    async def until_ready(self, name: str) -> None:
        """It runs, and says that it can do its work."""
        await self.until(
            lambda node: (node["report"] or {}).get("state") == "ready" and node["condition"] == "running",
            name,
        )

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
