"""A balancer in front of the nodes, as nginx with `least_conn` would be."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping

from tests.support.tcp import HOST, forward, tcp_connection, tcp_server

Ports = Callable[[], Mapping[int, bool]]
"""The ports that currently accept connections, each with whether its node is ready."""


class Balancer:
    """Forwards each connection to the ready node with the fewest connections.

    Without a ready node, any node that accepts connections is used. The mutable state is the open connections
    of each port; only `handle` changes it.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._connections: defaultdict[int, set[asyncio.StreamWriter]] = defaultdict(set)
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection. Raises ConnectionRefusedError if no node accepts it."""
        for port in self._best_first():
            connections = self._connections[port]
            connections.add(writer)  # counted at once: the next connection goes to another node
            try:
                with contextlib.suppress(OSError):
                    async with tcp_connection(port) as (upstream_reader, upstream):
                        await asyncio.gather(forward(reader, upstream), forward(upstream_reader, writer))
                        return
            finally:
                connections.discard(writer)
        raise ConnectionRefusedError

    def _best_first(self) -> list[int]:
        is_ready = self._ports()
        return sorted(is_ready, key=lambda port: (not is_ready[port], len(self._connections[port])))

    def rebalance(self) -> None:
        """Cut surplus connections if a node has less than half of its share: they reconnect to that node."""
        connections = [self._connections[port] for port in self._ports()]
        share = math.ceil(sum(map(len, connections)) / len(connections))
        if min(map(len, connections)) < share / 2:
            for each in connections:
                for writer in list(each)[share:]:
                    writer.transport.abort()


@contextlib.asynccontextmanager
async def run_balancer(ports: Ports) -> AsyncIterator[Balancer]:
    """A balancer that accepts connections at its `url`."""
    balancer = Balancer(ports)
    async with tcp_server(balancer.handle) as port:
        balancer.url = f"http://{HOST}:{port}"
        yield balancer
