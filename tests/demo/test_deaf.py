"""A node whose link to Redis falls silent: how soon it knows, whom it turns away, what its clients miss."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest

from tests.demo.nodes import Json, Nodes
from tests.support.event_stream import streaming
from tests.support.server import Server
from tests.support.timing import SOON, TICK
from tests.support.wire import Wire, connected

NAME = "node-3"


@dataclass
class Patient:
    """The node that is deafened, and a client that it has had since before."""

    nodes: Nodes
    address: str
    wire: Wire
    said: list[str] = field(default_factory=list)

    async def readiness(self) -> tuple[int, str]:
        answer = await self.nodes.http.get(f"http://{self.address}/health/ready")
        return answer.status_code, answer.json()["trouble"]

    async def until_it_answers(self, status: int) -> str:
        """Ask whether it is ready until it says so, or that it is not; the reason."""
        while (answer := await self.readiness())[0] != status:  # noqa: ASYNC110 - nobody else tells
            await asyncio.sleep(TICK)
        return answer[1]

    async def say(self, text: str) -> None:
        """Through the node itself: it can still be asked, and hands on to those that can publish."""
        said = {"text": text, "sent": 0}
        answer = await self.nodes.http.post(f"http://{self.address}/messages", json=said)
        assert answer.status_code == 201
        self.said.append(text)

    async def hears_all(self) -> None:
        """Everything that was said, once and in order."""
        heard: list[Json] = [await self.wire.push("pub", "chat:lobby") for _ in self.said]
        assert [one["data"]["text"] for one in heard] == self.said
        offsets = [one["offset"] for one in heard]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
        self.said.clear()


@pytest.fixture
async def patient(several: Server) -> AsyncIterator[Patient]:
    async with Nodes.of(several) as nodes:
        for name in await nodes.all():
            await nodes.until_ready(name)
        address = (await nodes.addresses())[NAME]
        token = (await nodes.http.get("/demo/token")).json()["token"]
        async with connected(nodes.own(address), token=token) as wire:
            await wire.call("subscribe", channel="chat:lobby")
            yield Patient(nodes, address, wire)


async def deafened(patient: Patient) -> str:
    """Deafen it; why it says that it is not ready."""
    assert (await patient.nodes.do(NAME, "deafen")).status_code == 202
    await patient.say("Said at once")
    async with asyncio.timeout(SOON):
        return await patient.until_it_answers(503)


async def met(several: Server) -> str:
    """Which node takes a new connection to the port that all share."""
    async with httpx.AsyncClient(trust_env=False) as http:
        name: str = (await http.get(several.url + "/health/live")).json()["node"]
        return name


async def test_a_deaf_node_knows_it_turns_others_away_and_keeps_its_clients(
    several: Server, patient: Patient
) -> None:
    """And what was said meanwhile is heard once it hears again, by itself after some seconds."""
    assert "its pub/sub connection is open but silent" in await deafened(patient)
    await patient.nodes.until(lambda node: node["report"]["state"] == "deaf", NAME)
    assert NAME not in {await met(several) for _ in range(20)}
    await patient.say("Said to the deaf")
    async with asyncio.timeout(SOON):
        await patient.until_it_answers(200)
    await patient.hears_all()
    await patient.nodes.until_ready(NAME)  # which the page is told a moment later
    incident = (await patient.nodes.incidents())[-1]
    steps = patient.nodes.steps(incident)
    assert (incident["kind"], list(steps)) == ("deafen", ["deaf", "healed", "ready"])
    assert 7.5 < steps["healed"] < steps["ready"]


async def test_a_deaf_node_is_healed_before_its_time(several: Server, patient: Patient) -> None:
    """An event stream of it stays too; afterwards it takes new connections again."""
    token = (await patient.nodes.http.get("/demo/token")).json()["token"]
    path = f"/events?channel=chat:lobby&token={token}"
    async with streaming(patient.nodes.own(patient.address), path) as stream:
        await deafened(patient)
        assert (await patient.nodes.do(NAME, "heal")).status_code == 202
        async with asyncio.timeout(SOON):
            await patient.until_it_answers(200)
            while (event := await stream.next()).kind != "message" or not event.data:
                pass
        assert event.data["pub"]["data"]["text"] == "Said at once"
        await patient.say("Said after all")
        await patient.hears_all()
    async with asyncio.timeout(SOON):
        while await met(several) != NAME:
            pass


async def test_where_all_are_deaf_the_door_stays_open(several: Server, patient: Patient) -> None:
    """Somebody who can publish is better than nobody."""
    names = list(await patient.nodes.all())
    for name in names:
        await patient.nodes.do(name, "deafen")
    for name in names:
        await patient.nodes.until(lambda node: node["report"]["state"] == "deaf", name)
    assert await met(several) in names
    for name in names:
        await patient.nodes.do(name, "heal")
    for name in names:
        await patient.nodes.until_ready(name)
