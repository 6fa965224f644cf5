"""A balancer in front of the nodes, as nginx with `least_conn` would be."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping

from tests.support.proxies import HOST, accepting, connecting, copy

Ports = Callable[[], Mapping[int, bool]]
"""Where a new connection may lead at present, each port with whether its node is ready."""


class Balancer:
    """Leads a connection to a node that is ready, or else to one that listens; of these to the least busy."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._links: defaultdict[int, set[asyncio.StreamWriter]] = defaultdict(set)
        self.url = ""

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        for port in self._best_first():
            links = self._links[port]
            links.add(writer)  # so that whoever comes meanwhile goes elsewhere
            try:
                with contextlib.suppress(OSError):
                    async with connecting(port) as (upstream_reader, upstream):
                        await asyncio.gather(copy(reader, upstream), copy(upstream_reader, writer))
                        return
            finally:
                links.discard(writer)
        raise ConnectionRefusedError

    def _best_first(self) -> list[int]:
        is_ready = self._ports()
        return sorted(is_ready, key=lambda port: (not is_ready[port], len(self._links[port])))

    def spread(self) -> None:
        """Cut what a node has more than its share, if another one has hardly any: it comes back there."""
        links = [self._links[port] for port in self._ports()]
        share = math.ceil(sum(map(len, links)) / len(links))
        if min(map(len, links)) < share / 2:
            for each in links:
                for writer in list(each)[share:]:
                    writer.transport.abort()


@contextlib.asynccontextmanager
async def balancing(ports: Ports) -> AsyncIterator[Balancer]:
    """Listen at `url`."""
    balancer = Balancer(ports)
    async with accepting(balancer.lead) as port:
        balancer.url = f"http://{HOST}:{port}"
        yield balancer
