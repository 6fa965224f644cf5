"""`tocsin demo` with several nodes: whom it starts, what becomes of one that dies, and how all of it ends."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.demo.conftest import left_of, started_by, starting
from tests.demo.nodes import Nodes
from tests.support.event_stream import EventStream, open_event_stream
from tests.support.server import TOCSIN, Server
from tests.support.timing import SOON, STARTED
from tests.support.wire_client import WireClient, connect_wire


def redis_of(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.name().startswith("redis")]


@pytest.fixture
async def nodes(several: Server) -> AsyncIterator[Nodes]:
    """All of them, ready: whatever was done to them before."""
    async with Nodes.of(several) as nodes:
        for name in await nodes.all():
            await nodes.until_ready(name)
        yield nodes


@pytest.mark.usefixtures("nodes")
async def test_it_starts_three_nodes_and_a_redis(several: Server) -> None:
    names = sorted(Path(child.exe()).name.rstrip("0123456789.") for child in started_by(several))
    assert len(names) == 4
    assert [name for name in names if name.startswith("python")] == names[:3]
    assert names[3].startswith("redis")


async def test_each_node_says_who_it_is_on_a_port_of_its_own(nodes: Nodes) -> None:
    for name, address in (await nodes.addresses()).items():
        live = await nodes.http.get(f"http://{address}/health/live")
        assert live.json() == {"node": name}


async def test_new_connections_reach_every_node(several: Server, nodes: Nodes) -> None:
    """The one port is shared: the system spreads connections over whoever listens."""
    met: set[str] = set()
    everybody = set(await nodes.all())
    async with asyncio.timeout(SOON):
        while met != everybody:
            async with httpx.AsyncClient(trust_env=False) as http:
                met.add((await http.get(several.url + "/health/live")).json()["node"])
    assert len(met) == 3


async def heard(wire: WireClient, stream: EventStream) -> tuple[str, str]:
    """What both were told of next."""
    pushed = await wire.push("pub", "chat:lobby")
    async with asyncio.timeout(SOON):
        while (event := await stream.next()).kind != "message" or not event.data:
            pass
    return pushed["data"]["text"], event.data["pub"]["data"]["text"]


async def test_what_is_said_at_one_node_is_heard_at_the_others(nodes: Nodes) -> None:
    """Said at each in turn, heard over a WebSocket at the first and an event stream at the second."""
    first, second, _ = [nodes.own(address) for address in (await nodes.addresses()).values()]
    token = (await nodes.http.get("/demo/token")).json()["token"]
    path = f"/events?channel=chat:lobby&token={token}"
    async with connect_wire(first, token=token) as wire, open_event_stream(second, path) as stream:
        await wire.call("subscribe", channel="chat:lobby")
        for name, address in (await nodes.addresses()).items():
            said = {"text": f"Said at {name}", "sent": 0}
            answer = await nodes.http.post(f"http://{address}/messages", json=said)
            assert answer.status_code == 201
            assert await heard(wire, stream) == (said["text"], said["text"])


async def test_links_may_be_asked_of_any_node(nodes: Nodes) -> None:
    """Added at one, read, changed and deleted at others, which know its version; the first tells of all."""
    http, addresses = nodes.http, list((await nodes.addresses()).values())
    token = (await http.get("/demo/token")).json()["token"]
    async with connect_wire(nodes.own(addresses[0]), token=token) as wire:
        await wire.call("subscribe", channel="links")
        wanted = {"url": "http://127.0.0.1:9/anywhere", "title": "Added at the first"}
        added = await http.post(f"http://{addresses[0]}/links", json=wanted)
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
        news = [(await wire.push("pub", "links"))["data"]["event"] for _ in range(3)]
        assert news == ["added", "changed", "deleted"]


async def test_a_node_that_goes_comes_back_as_another_process(nodes: Nodes) -> None:
    """One is killed and another drained at the same time; the first waits for its lease to lapse."""
    before = await nodes.pids()
    via = (await nodes.addresses())["node-1"]
    for name, deed in (("node-2", "kill"), ("node-3", "drain")):
        assert (await nodes.do(name, deed, via)).status_code == 202
    await nodes.until(lambda node: node["condition"] == "ended", "node-2")
    killed = (await nodes.all())["node-2"]
    assert killed["lapses_by"] < killed["returns_at"]
    assert (await nodes.do("node-2", "kill", via)).status_code == 409
    for name in ("node-2", "node-3"):
        await nodes.until(lambda node: node["pid"] not in before.values(), name)
        await nodes.until_ready(name)
        assert not psutil.pid_exists(before[name])
    after = await nodes.pids()
    assert after["node-1"] == before["node-1"]
    assert {after[name] for name in ("node-2", "node-3")}.isdisjoint(before.values())


async def test_what_came_of_it_is_told(several: Server) -> None:
    """As the test before this one left it."""
    async with Nodes.of(several) as nodes:
        steps = {one["name"]: (one["kind"], nodes.steps(one)) for one in await nodes.incidents()}
    kind, killed = steps["node-2"]
    assert (kind, list(killed)) == ("kill", ["lapsed", "back"])
    assert 1.5 < killed["lapsed"] < killed["back"]
    kind, drained = steps["node-3"]
    assert (kind, list(drained)) == ("drain", ["gone", "back"])
    assert drained["gone"] < drained["back"]


async def test_only_visitors_may_trouble_nodes(several: Server) -> None:
    async with Nodes.of(several) as nodes:
        assert (await nodes.do("node-9", "kill")).status_code == 404
        for deed in ("kill", "drain", "deafen", "heal"):
            stranger = await nodes.http.post(f"/demo/nodes/node-2/{deed}", headers={"Cookie": "none=1"})
            assert stranger.status_code == 401


async def test_a_publication_says_which_node_took_it(nodes: Nodes) -> None:
    """Each node has its turn, and counts what it took itself."""
    first, second, *_ = [name for name, node in (await nodes.all()).items() if node["report"]]
    address = (await nodes.addresses())[first]
    token = (await nodes.http.get("/demo/token")).json()["token"]
    before = {name: await nodes.taken(name) for name in (first, second)}
    async with connect_wire(nodes.own(address), token=token) as wire:
        await wire.call("subscribe", channel="chat:lobby")
        tags = []
        for number in range(6):
            said = {"text": f"Number {number}", "sent": 0}
            assert (await nodes.http.post(f"http://{address}/messages", json=said)).status_code == 201
            tags.append((await wire.push("pub", "chat:lobby"))["tags"]["node"])
    for name, taken in before.items():
        assert tags.count(name) >= 2
        assert await nodes.taken(name) - taken == tags.count(name)


async def test_a_process_killed_from_elsewhere_is_replaced_too(nodes: Nodes) -> None:
    psutil.Process((await nodes.pids())["node-1"]).kill()
    await nodes.until(lambda node: node["condition"] == "ended", "node-1")
    assert (await nodes.incidents())[-1]["kind"] == "end"


def test_nothing_is_left_running(tmp_path: Path) -> None:
    """However the supervisor ends, while it swallows what a node would hear."""
    with two(tmp_path) as demos:
        for demo, end in zip(demos, (signal.SIGINT, signal.SIGKILL), strict=True):
            demo.wait_until_ready()
            children = started_by(demo)
            assert len(children) == 3
            deafen(demo.url)
            demo.process.send_signal(end)
            assert left_of(children) == []
            assert demo.process.wait(STARTED) == (-end if end == signal.SIGKILL else 0)


def deafen(url: str) -> None:
    with httpx.Client(base_url=url, trust_env=False) as http:
        http.get("/demo/token")
        assert http.post("/demo/nodes/node-1/deafen").status_code == 202


@contextlib.contextmanager
def two(folder: Path) -> Iterator[list[Server]]:
    """Demos with two nodes each, started at the same time, since that is what takes long."""
    demos = [starting(folder / f"{name}.sqlite", nodes=2) for name in ("one", "other")]
    try:
        yield demos
    finally:
        for demo in demos:
            demo.stop()


def test_without_its_redis_it_ends_and_says_so(tmp_path: Path) -> None:
    demo = starting(tmp_path / "demo.sqlite", nodes=2)
    demo.wait_until_ready()
    children = started_by(demo)
    for child in redis_of(children):
        child.kill()
    assert demo.process.wait(STARTED) == 1
    assert left_of(children) == []
    demo.stop()
    assert demo.stderr.splitlines()[-1] == "Redis has ended, and the nodes with it."


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Though a node hangs, which would be waited for."""
    demo = starting(tmp_path / "demo.sqlite", nodes=2)
    demo.wait_until_ready()
    children = started_by(demo)
    (hanging, *_) = [child for child in children if child not in redis_of(children)]
    hanging.suspend()
    demo.process.send_signal(signal.SIGTERM)
    others = [child for child in children if child not in (hanging, *redis_of(children))]
    assert psutil.wait_procs(others, STARTED)[1] == []
    assert hanging.is_running()
    demo.process.send_signal(signal.SIGTERM)
    assert demo.process.wait(SOON) == 0
    assert left_of(children) == []
    demo.stop()


def test_nothing_is_left_of_a_start_that_is_interrupted(tmp_path: Path) -> None:
    """Ended as soon as Redis has been started, or all processes have."""
    with two(tmp_path) as demos:
        for demo, count in zip(demos, (1, 3), strict=True):
            while len(children := started_by(demo)) < count:
                assert demo.process.poll() is None
            assert demo.stop() == 0
            assert left_of(children) == []
            assert demo.stderr == ""


def test_without_redis_it_is_one_node_and_says_so(tmp_path: Path) -> None:
    command = [str(TOCSIN), "demo", "--port", "0", "--nodes", "3"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PATH": str(tmp_path)}
    ) as process:
        assert process.stdout is not None
        said, listening = process.stdout.readline(), process.stdout.readline()
        nodes = httpx.get(listening.split()[-1] + "/demo/nodes", trust_env=False).json()["nodes"]
        children = psutil.Process(process.pid).children()
        process.terminate()
    assert said == "There is no redis-server on the PATH, so this is one node, in memory.\n"
    assert [node["name"] for node in nodes] == ["node-1"]
    assert children == []
    assert process.returncode == 0
