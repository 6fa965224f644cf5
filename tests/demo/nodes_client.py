"""A client of `/demo/nodes`, with the cookie of a visitor."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import httpx

from tests.support.api import NO_TLS
from tests.support.server import Server
from tests.support.timing import SOON, TICK

Json = dict[str, Any]


class NodesClient:
    """Reads the status of the nodes of one demo, and disturbs them.

    It opens a connection for each request, because connections break with their node.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, server: Server) -> AsyncIterator[Self]:
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(
            base_url=server.url, timeout=SOON, trust_env=False, verify=NO_TLS, limits=limits
        ) as http:
            await http.get("/demo/token")
            yield cls(http)

    async def all(self) -> dict[str, Json]:
        body = (await self.http.get("/demo/nodes")).json()
        return {node["name"]: node for node in body["nodes"]}

    async def addresses(self) -> dict[str, str]:
        return {name: node["address"] for name, node in (await self.all()).items()}

    async def pids(self) -> dict[str, int]:
        return {name: node["pid"] for name, node in (await self.all()).items()}

    async def incidents(self) -> list[Json]:
        incidents: list[Json] = (await self.http.get("/demo/nodes")).json()["incidents"]
        return incidents

    @staticmethod
    def steps(incident: Json) -> dict[str, float]:
        """The steps of an incident, with their seconds since its beginning."""
        return {step["kind"]: step["seconds"] for step in incident["steps"]}

    async def token(self) -> str:
        token: str = (await self.http.get("/demo/token")).json()["token"]
        return token

    async def send_message(self, address: str, text: str, sent: float = 0) -> None:
        """Send a message through the node at this address."""
        response = await self.http.post(f"http://{address}/messages", json={"text": text, "sent": sent})
        assert response.status_code == 201, response.text

    async def publication_count(self, name: str) -> int:
        """The number of publications that a node has accepted, by its own metrics."""
        address = (await self.addresses())[name]
        page = (await self.http.get(f"http://{address}/metrics")).text
        count = re.search(r"^tocsin_publications_total ([\d.e+]+)$", page, re.MULTILINE)
        return int(float(count[1])) if count else 0

    async def execute(self, name: str, action: str, via: str = "") -> httpx.Response:
        """Send a command to any node, or to the one at the address `via`."""
        return await self.http.post(
            f"http://{via}/demo/nodes/{name}/{action}" if via else f"/demo/nodes/{name}/{action}"
        )

    async def until(self, fits: Callable[[Json], bool], name: str) -> None:
        """Wait until the status of the node fits."""
        async with asyncio.timeout(3 * SOON):
            while not await self._is(fits, name):  # noqa: ASYNC110 - the resource has to be polled
                await asyncio.sleep(TICK)

    async def until_ready(self, *names: str) -> None:
        """Wait until these nodes, or all, run and are ready."""
        for name in names or await self.all():
            await self.until(
                lambda node: (
                    (node["report"] or {}).get("state") == "ready" and node["condition"] == "running"
                ),
                name,
            )

    async def _is(self, fits: Callable[[Json], bool], name: str) -> bool:
        try:
            return fits((await self.all())[name])
        except httpx.TransportError:  # the request was sent to a node that ended
            return False

    @staticmethod
    def own(address: str) -> Server:
        """One node alone, for clients to connect to. Its process belongs to the supervisor."""
        server = Server.__new__(Server)
        server.url = f"http://{address}"
        return server
