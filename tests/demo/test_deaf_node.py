"""Deaf nodes: their readiness, their new connections, and the messages of their clients.

The tests run in this order, on one timeline. All nodes are deafened at once, two are restored by command, and
the third receives again by itself after 8 s.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

import httpx
import pytest
import pytest_asyncio

from tests.demo.nodes_client import Json, NodesClient
from tests.support.api import NO_TLS
from tests.support.event_stream import EventStream, open_event_stream
from tests.support.server import Server
from tests.support.timing import SOON, TICK
from tests.support.wire_client import WireClient, connect_wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESTORED = "node-1"
LEFT_DEAF = "node-3"


@dataclass
class DeafNode:
    """A node that is deafened, with a client that subscribed before."""

    nodes: NodesClient
    name: str
    address: str
    wire: WireClient
    sent: list[str] = field(default_factory=list)

    async def readiness(self) -> tuple[int, str]:
        response = await self.nodes.http.get(f"http://{self.address}/health/ready")
        return response.status_code, response.json()["reason"]

    async def until_readiness_is(self, status: int) -> str:
        """Poll `/health/ready` until it answers with this status; return the unready reason."""
        async with asyncio.timeout(SOON):
            while (readiness := await self.readiness())[0] != status:  # noqa: ASYNC110 - it has to be polled
                await asyncio.sleep(TICK)
        return readiness[1]

    async def send(self, text: str) -> None:
        """Send a message through this node: its application answers, and publishes to the ready nodes."""
        await self.nodes.send_message(self.address, text)
        self.sent.append(text)

    async def receives_all(self, sent: list[str]) -> None:
        """Every message arrives once and in order."""
        received: list[Json] = [await self.wire.push("pub", "chat:lobby") for _ in sent]
        assert [one["data"]["text"] for one in received] == sent
        offsets = [one["offset"] for one in received]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))


@dataclass
class Timeline:
    """Three nodes that have just been deafened. `stream` is an event stream of the one to be restored."""

    nodes: NodesClient
    restored: DeafNode
    left_deaf: DeafNode
    stream: EventStream

    async def node_of_new_connection(self, server: Server) -> str:
        """The node that accepts a new connection to the shared port.

        A share of the port that is closed resets the connections that no node has accepted yet.
        """
        async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as http:
            while True:
                with suppress(httpx.ReadError):
                    name: str = (await http.get(server.url + "/health/live")).json()["node"]
                    return name

    async def avoids_new_connections(self, node: DeafNode, server: Server) -> bool:
        """Whether other nodes accept twenty connections in a row before this node is no longer deaf."""
        while (await node.readiness())[0] == 503:
            if node.name not in {await self.node_of_new_connection(server) for _ in range(20)}:
                return (await node.readiness())[0] == 503
        return False


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def timeline(three_nodes: Server) -> AsyncIterator[Timeline]:
    async with NodesClient.of(three_nodes) as nodes:
        await nodes.until_ready()
        addresses, token = await nodes.addresses(), await nodes.token()
        restored, left_deaf = addresses[RESTORED], addresses[LEFT_DEAF]
        path = f"/events?channel=chat:lobby&token={token}"
        async with (
            connect_wire(nodes.own(restored), token=token) as wire,
            connect_wire(nodes.own(left_deaf), token=token) as other_wire,
            open_event_stream(nodes.own(restored), path) as stream,
        ):
            for each in (wire, other_wire):
                await each.call("subscribe", channel="chat:lobby")
            timeline = Timeline(
                nodes,
                DeafNode(nodes, RESTORED, restored, wire),
                DeafNode(nodes, LEFT_DEAF, left_deaf, other_wire),
                stream,
            )
            for name in addresses:
                assert (await nodes.execute(name, "deafen")).status_code == 202
            await timeline.left_deaf.send("Sent while all nodes are deaf")
            yield timeline
            await nodes.until_ready()


async def test_deaf_nodes_notice_it_and_keep_the_port_open_while_no_node_is_ready(
    three_nodes: Server, timeline: Timeline
) -> None:
    """A node that can publish is better than none."""
    for node in (timeline.restored, timeline.left_deaf):
        unready_reason = await node.until_readiness_is(503)
        await timeline.nodes.until(lambda status: status["report"]["state"] == "deaf", node.name)
        status = (await timeline.nodes.all())[node.name]
        assert status["report"]["unready_reason"] == unready_reason != ""
    names = set(await timeline.nodes.all())
    assert await timeline.node_of_new_connection(three_nodes) in names


async def test_a_restored_node_backfills_and_accepts_new_connections(
    three_nodes: Server, timeline: Timeline
) -> None:
    """Its WebSocket and its event stream have stayed open, and miss no message."""
    for name in (RESTORED, "node-2"):
        assert (await timeline.nodes.execute(name, "restore")).status_code == 202
    await timeline.restored.until_readiness_is(200)
    async with asyncio.timeout(SOON):
        while (event := await timeline.stream.next()).kind != "message" or not event.data:
            pass
    assert event.data["pub"]["data"]["text"] == "Sent while all nodes are deaf"
    await timeline.left_deaf.send("Sent after one node is restored")
    await timeline.restored.receives_all(timeline.left_deaf.sent)
    async with asyncio.timeout(SOON):
        while await timeline.node_of_new_connection(three_nodes) != RESTORED:
            pass


async def test_a_deaf_node_gets_no_new_connections_and_its_clients_miss_no_message(
    three_nodes: Server, timeline: Timeline
) -> None:
    """It receives again by itself after 8 s, and backfills the messages sent meanwhile."""
    deaf, nodes = timeline.left_deaf, timeline.nodes
    async with asyncio.timeout(3 * SOON):
        while not await timeline.avoids_new_connections(deaf, three_nodes):
            await nodes.until_ready(LEFT_DEAF)  # the tests before took longer than it was deaf
            assert (await nodes.execute(LEFT_DEAF, "deafen")).status_code == 202
            await deaf.until_readiness_is(503)
    await deaf.send("Sent to a deaf node")
    await deaf.until_readiness_is(200)
    await deaf.receives_all(deaf.sent)
    await nodes.until_ready(LEFT_DEAF)  # the supervisor learns of it a moment later
    incident = next(one for one in reversed(await nodes.incidents()) if one["name"] == LEFT_DEAF)
    steps = nodes.steps(incident)
    assert (incident["kind"], list(steps)) == ("deafen", ["deaf", "restored", "ready"])
    assert 7.5 < steps["restored"] < steps["ready"]
