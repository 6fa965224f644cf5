"""`tocsin demo` with several nodes: the processes that it starts, restarts and stops.

In this order the tests are fastest: two nodes restart in the background while other demos are stopped.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tests.demo.conftest import children_of, start_demo, survivors
from tests.demo.nodes_client import NodesClient
from tests.support.api import NO_TLS
from tests.support.event_stream import EventStream, open_event_stream
from tests.support.server import TOCSIN, Server
from tests.support.timing import SOON, STARTED, TICK
from tests.support.wire_client import WireClient, connect_wire
from tocsin_server.metrics.cached_page import PAGE_SECONDS


def redis_among(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.name().startswith("redis")]


@pytest.fixture
async def nodes(three_nodes: Server) -> AsyncIterator[NodesClient]:
    """All nodes are ready."""
    async with NodesClient.of(three_nodes) as nodes:
        await nodes.until_ready()
        yield nodes


@pytest.fixture(scope="module")
def two_node_demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Demos with two nodes each, to be stopped. They start while the first tests of this module run."""
    folder = tmp_path_factory.mktemp("two_nodes")
    demos = [start_demo(folder / f"{number}.sqlite", nodes=2) for number in range(4)]
    yield demos
    for demo in demos:
        demo.stop()


@pytest.mark.usefixtures("nodes", "two_node_demos")
async def test_the_demo_starts_three_nodes_and_a_redis(three_nodes: Server) -> None:
    names = sorted(Path(child.exe()).name.rstrip("0123456789.") for child in children_of(three_nodes))
    assert len(names) == 4
    assert [name for name in names if name.startswith("python")] == names[:3]
    assert names[3].startswith("redis")


async def test_each_node_has_a_port_of_its_own_and_reports_its_name(nodes: NodesClient) -> None:
    for name, address in (await nodes.addresses()).items():
        live = await nodes.http.get(f"http://{address}/health/live")
        assert live.json() == {"node": name}


async def test_new_connections_reach_every_node(three_nodes: Server, nodes: NodesClient) -> None:
    """The operating system spreads the connections to the shared port over the nodes."""
    reached: set[str] = set()
    names = set(await nodes.all())
    async with asyncio.timeout(SOON):
        while reached != names:
            async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as http:
                reached.add((await http.get(three_nodes.url + "/health/live")).json()["node"])
    assert len(reached) == 3


async def next_texts(wire: WireClient, stream: EventStream) -> tuple[str, str]:
    """The next message on a WebSocket and on an event stream."""
    pushed = await wire.push("pub", "chat:lobby")
    async with asyncio.timeout(SOON):
        while (event := await stream.next()).kind != "message" or not event.data:
            pass
    return pushed["data"]["text"], event.data["pub"]["data"]["text"]


async def test_a_message_sent_to_one_node_is_delivered_by_the_others(nodes: NodesClient) -> None:
    """Sent to each node in turn, received over a WebSocket of the first and an event stream of the second."""
    first, second, _ = [nodes.own(address) for address in (await nodes.addresses()).values()]
    token = await nodes.token()
    path = f"/events?channel=chat:lobby&token={token}"
    async with connect_wire(first, token=token) as wire, open_event_stream(second, path) as stream:
        await wire.call("subscribe", channel="chat:lobby")
        for name, address in (await nodes.addresses()).items():
            text = f"Sent to {name}"
            await nodes.send_message(address, text)
            assert await next_texts(wire, stream) == (text, text)


async def test_every_node_answers_for_the_links(nodes: NodesClient) -> None:
    """Added at one node, read, changed and deleted at others with the same versions, always published."""
    http, addresses = nodes.http, list((await nodes.addresses()).values())
    async with connect_wire(nodes.own(addresses[0]), token=await nodes.token()) as wire:
        await wire.call("subscribe", channel="links")
        link = {"url": "http://127.0.0.1:9/anywhere", "title": "Added at the first"}
        added = await http.post(f"http://{addresses[0]}/links", json=link)
        assert added.status_code == 201
        first, second, third = [f"http://{address}{added.headers['Location']}" for address in addresses]
        assert (await http.get(second)).json() == added.json()
        known = {"If-Match": added.headers["ETag"]}
        changed = await http.patch(third, json={"title": "Changed at the third"}, headers=known)
        assert changed.status_code == 200
        assert (await http.delete(second, headers=known)).status_code == 412
        known = {"If-Match": changed.headers["ETag"]}
        assert (await http.delete(second, headers=known)).status_code == 204
        assert [(await http.get(link)).status_code for link in (first, second, third)] == [404, 404, 404]
        events = [(await wire.push("pub", "links"))["data"]["event"] for _ in range(3)]
        assert events == ["added", "changed", "deleted"]


async def test_a_publication_is_tagged_with_the_node_that_accepted_it(nodes: NodesClient) -> None:
    """The nodes take turns, and count the publications that they accept."""
    first, second, *_ = [name for name, node in (await nodes.all()).items() if node["report"]]
    address = (await nodes.addresses())[first]
    async with connect_wire(nodes.own(address), token=await nodes.token()) as wire:
        await wire.call("subscribe", channel="visits")
        await wire.call("subscribe", channel="chat:lobby")
        while (await wire.push("pub", "visits"))["data"]["client"] != wire.client:
            pass  # the visit of an earlier test ended
        await asyncio.sleep(PAGE_SECONDS)  # the page with the counts is made again
        before = {name: await nodes.publication_count(name) for name in (first, second)}
        tags = []
        for number in range(6):
            await nodes.send_message(address, f"Number {number}")
            tags.append((await wire.push("pub", "chat:lobby"))["tags"]["node"])
        for name, count in before.items():
            assert tags.count(name) >= 2
            async with asyncio.timeout(SOON):
                while await nodes.publication_count(name) != count + tags.count(name):  # noqa: ASYNC110 - it has to be polled
                    await asyncio.sleep(PAGE_SECONDS)


async def test_only_visitors_may_disturb_nodes(three_nodes: Server) -> None:
    async with NodesClient.of(three_nodes) as nodes:
        assert (await nodes.execute("node-9", "kill")).status_code == 404
        for action in ("kill", "drain", "deafen", "restore"):
            response = await nodes.http.post(f"/demo/nodes/node-2/{action}", headers={"Cookie": "none=1"})
            assert response.status_code == 401


# --- one node is killed and another drained; meanwhile, other demos end ---


@pytest.fixture(scope="module")
def noted_pids() -> dict[str, int]:
    """Filled by `pids_before`."""
    return {}


@pytest.fixture
async def pids_before(three_nodes: Server, noted_pids: dict[str, int]) -> dict[str, int]:
    """The process ids of the nodes before one was killed and one drained, for the first test that asks.

    It may be any of them: pytest-xdist may divide the tests of a module among several processes.
    """
    if noted_pids:
        return noted_pids
    async with NodesClient.of(three_nodes) as nodes:
        await nodes.until_ready()
        noted_pids |= await nodes.pids()
        via = (await nodes.addresses())["node-1"]
        for name, action in (("node-2", "kill"), ("node-3", "drain")):
            assert (await nodes.execute(name, action, via)).status_code == 202
        for name in ("node-2", "node-3"):
            await nodes.until(
                lambda node: node["condition"] != "running" or node["pid"] != noted_pids[node["name"]], name
            )
    return noted_pids


@pytest.mark.usefixtures("pids_before")
async def test_a_killed_node_and_a_drained_node_end(three_nodes: Server) -> None:
    """A node that has ended can be neither killed nor drained. It returns later than its lease expires."""
    async with NodesClient.of(three_nodes) as nodes:
        via = (await nodes.addresses())["node-1"]
        await nodes.until(lambda node: node["condition"] == "ended", "node-2")
        killed = (await nodes.all())["node-2"]
        assert killed["lease_expires_by"] < killed["restarts_at"]
        assert (await nodes.execute("node-2", "kill", via)).status_code == 409


@dataclass
class Ending:
    """A demo that has been signalled to end, and the processes that it had started."""

    demo: Server
    number: signal.Signals
    children: list[psutil.Process]


@pytest.fixture(scope="module")
def endings(two_node_demos: list[Server]) -> list[Ending]:
    """Two demos with a deafened node each, one interrupted and one killed. They end while other tests run."""
    endings = []
    for demo, number in zip(two_node_demos, (signal.SIGINT, signal.SIGKILL), strict=False):
        demo.wait_until_ready()
        endings.append(Ending(demo, number, children_of(demo)))
        deafen_a_node(demo.url)
        demo.process.send_signal(number)
    return endings


def deafen_a_node(url: str) -> None:
    with httpx.Client(base_url=url, trust_env=False, verify=NO_TLS) as http:
        http.get("/demo/token")
        assert http.post("/demo/nodes/node-1/deafen").status_code == 202


@pytest.mark.usefixtures("endings")
def test_the_demo_ends_with_its_redis_and_says_so(two_node_demos: list[Server]) -> None:
    demo = two_node_demos[2]
    demo.wait_until_ready()
    children = children_of(demo)
    for child in redis_among(children):
        child.kill()
    assert demo.process.wait(STARTED) == 1
    assert survivors(children) == []
    demo.stop()
    assert demo.stderr.splitlines()[-1] == "Redis has ended, and the nodes with it."


def test_a_second_signal_kills_the_nodes(two_node_demos: list[Server]) -> None:
    """The first one waits for a node that hangs."""
    demo = two_node_demos[3]
    demo.wait_until_ready()
    children = children_of(demo)
    (hanging, *_) = [child for child in children if child not in redis_among(children)]
    hanging.suspend()
    demo.process.send_signal(signal.SIGTERM)
    others = [child for child in children if child not in (hanging, *redis_among(children))]
    assert psutil.wait_procs(others, STARTED)[1] == []
    assert hanging.is_running()
    demo.process.send_signal(signal.SIGTERM)
    assert demo.process.wait(SOON) == 0
    assert survivors(children) == []
    demo.stop()


def test_no_process_is_left_of_an_interrupted_start(tmp_path: Path) -> None:
    """Interrupted as soon as Redis has been started, or all processes have."""
    with starting_two(tmp_path) as demos:
        for demo, count in zip(demos, (1, 3), strict=True):
            while len(children := children_of(demo)) < count:
                assert demo.process.poll() is None
                time.sleep(TICK / 10)
            assert demo.stop() == 0
            assert survivors(children) == []
            assert demo.stderr == ""


@contextlib.contextmanager
def starting_two(folder: Path) -> Iterator[list[Server]]:
    """Two demos with two nodes each, just started."""
    demos = [start_demo(folder / f"{name}.sqlite", nodes=2) for name in ("one", "other")]
    try:
        yield demos
    finally:
        for demo in demos:
            demo.stop()


def test_the_demo_runs_one_node_without_redis_and_says_so(tmp_path: Path) -> None:
    command = [str(TOCSIN), "demo", "--port", "0", "--nodes", "3"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PATH": str(tmp_path)}
    ) as process:
        assert process.stdout is not None
        notice, listening = process.stdout.readline(), process.stdout.readline()
        nodes = httpx.get(listening.split()[-1] + "/demo/nodes", trust_env=False, verify=NO_TLS).json()[
            "nodes"
        ]
        children = psutil.Process(process.pid).children()
        process.terminate()
    assert notice == "redis-server is not on the PATH: the demo runs one node, in memory.\n"
    assert [node["name"] for node in nodes] == ["node-1"]
    assert children == []
    assert process.returncode == 0


def test_no_process_is_left_however_the_supervisor_ends(endings: list[Ending]) -> None:
    """Even while it drops what Redis publishes to a node."""
    for ending in endings:
        assert len(ending.children) == 3
        assert survivors(ending.children) == []
        is_killed = ending.number == signal.SIGKILL
        assert ending.demo.process.wait(STARTED) == (-ending.number if is_killed else 0)


async def test_other_processes_take_the_names_of_nodes_that_ended(
    pids_before: dict[str, int], nodes: NodesClient
) -> None:
    after = await nodes.pids()
    assert after["node-1"] == pids_before["node-1"]
    assert {after[name] for name in ("node-2", "node-3")}.isdisjoint(pids_before.values())
    for name in ("node-2", "node-3"):
        assert not psutil.pid_exists(pids_before[name])


async def test_incidents_have_their_steps(pids_before: dict[str, int], nodes: NodesClient) -> None:
    """Those of the node that was killed, and of the one that was drained."""
    assert pids_before
    steps = {one["name"]: (one["kind"], nodes.steps(one)) for one in await nodes.incidents()}
    kind, killed = steps["node-2"]
    assert (kind, list(killed)) == ("kill", ["expired", "restarted"])
    assert 1.5 < killed["expired"] < killed["restarted"]
    kind, drained = steps["node-3"]
    assert (kind, list(drained)) == ("drain", ["stopped", "restarted"])
    assert drained["stopped"] < drained["restarted"]


async def test_a_process_killed_from_outside_is_replaced_too(nodes: NodesClient) -> None:
    psutil.Process((await nodes.pids())["node-1"]).kill()
    await nodes.until(lambda node: node["condition"] == "ended", "node-1")
    assert (await nodes.incidents())[-1]["kind"] == "end"
