"""`tocsin demo` with several nodes: whom it starts, what becomes of one that dies, and how all of it ends."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.demo.conftest import running_demo, starting
from tests.demo.nodes import Nodes
from tests.support.event_stream import EventStream, streaming
from tests.support.server import TOCSIN, Server
from tests.support.timing import SOON, STARTED
from tests.support.wire import Wire, connected


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running_demo(tmp_path_factory.mktemp("several") / "demo.sqlite", nodes=3)


def started_by(server: Server) -> list[psutil.Process]:
    """Its nodes and its Redis."""
    return list(psutil.Process(server.process.pid).children(recursive=True))


def left_of(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that do not end by themselves; no later test has to meet them."""
    _, left = psutil.wait_procs(processes, STARTED)
    for process in left:
        process.kill()
    return list(left)


def test_it_starts_three_nodes_and_a_redis(several: Server) -> None:
    names = sorted(Path(child.exe()).name.rstrip("0123456789.") for child in started_by(several))
    assert len(names) == 4
    assert [name for name in names if name.startswith("python")] == names[:3]
    assert names[3].startswith("redis")


async def test_each_node_says_who_it_is_on_a_port_of_its_own(several: Server) -> None:
    async with Nodes.of(several) as nodes:
        for name, address in (await nodes.addresses()).items():
            live = await nodes.http.get(f"http://{address}/health/live")
            assert live.json() == {"node": name}


async def test_new_connections_reach_every_node(several: Server) -> None:
    """The one port is shared: the system spreads connections over whoever listens."""
    met: set[str] = set()
    async with asyncio.timeout(SOON):
        while len(met) < 3:
            async with httpx.AsyncClient(trust_env=False) as http:
                met.add((await http.get(several.url + "/health/live")).json()["node"])
    assert met == {"node-1", "node-2", "node-3"}


async def heard(wire: Wire, stream: EventStream) -> tuple[str, str]:
    """What both were told of next."""
    pushed = await wire.push("pub", "chat:lobby")
    async with asyncio.timeout(SOON):
        while (event := await stream.next()).kind != "message" or not event.data:
            pass
    return pushed["data"]["text"], event.data["pub"]["data"]["text"]


async def test_what_is_said_at_one_node_is_heard_at_the_others(several: Server) -> None:
    """Said at each in turn, heard over a WebSocket at the first and an event stream at the second."""
    async with Nodes.of(several) as nodes:
        first, second, _ = [nodes.own(address) for address in (await nodes.addresses()).values()]
        token = (await nodes.http.get("/demo/token")).json()["token"]
        path = f"/events?channel=chat:lobby&token={token}"
        async with connected(first, token=token) as wire, streaming(second, path) as stream:
            await wire.call("subscribe", channel="chat:lobby")
            for name, address in (await nodes.addresses()).items():
                said = {"text": f"Said at {name}", "sent": 0}
                answer = await nodes.http.post(f"http://{address}/messages", json=said)
                assert answer.status_code == 201
                assert await heard(wire, stream) == (said["text"], said["text"])


@pytest.mark.parametrize("deed", ["kill", "drain"])
async def test_a_node_that_goes_comes_back_as_another_process(several: Server, deed: str) -> None:
    async with Nodes.of(several) as nodes:
        before = await nodes.pids()
        assert (await nodes.do("node-2", deed)).status_code == 202
        await nodes.until(lambda node: node["condition"] == "ended", "node-2")
        assert not psutil.pid_exists(before["node-2"])
        await nodes.until(
            lambda node: node["report"] is not None and node["condition"] == "running", "node-2"
        )
        after = await nodes.pids()
        assert after.pop("node-2") != before.pop("node-2")
        assert after == before


async def test_only_visitors_may_trouble_nodes_and_only_those_that_run(several: Server) -> None:
    async with Nodes.of(several) as nodes:
        assert (await nodes.do("node-9", "kill")).status_code == 404
        stranger = await nodes.http.post("/demo/nodes/node-1/kill", headers={"Cookie": "none=1"})
        assert stranger.status_code == 401
        assert (await nodes.do("node-1", "drain")).status_code == 202
        await nodes.until(lambda node: node["condition"] == "ended", "node-1")
        assert (await nodes.do("node-1", "kill")).status_code == 409
        await nodes.until(lambda node: node["condition"] == "running", "node-1")


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda end: end.name)
def test_nothing_is_left_running(tmp_path: Path, end: signal.Signals) -> None:
    """However the supervisor ends."""
    demo = starting(tmp_path / "demo.sqlite", nodes=3)
    demo.wait_until_ready()
    children = started_by(demo)
    assert len(children) == 4
    demo.process.send_signal(end)
    assert left_of(children) == []
    assert demo.process.wait(STARTED) == (-end if end == signal.SIGKILL else 0)
    demo.stop()


def test_without_its_redis_it_ends_and_says_so(tmp_path: Path) -> None:
    demo = starting(tmp_path / "demo.sqlite", nodes=2)
    demo.wait_until_ready()
    children = started_by(demo)
    for child in children:
        if child.name() == "redis-server":
            child.kill()
    assert demo.process.wait(STARTED) == 1
    assert left_of(children) == []
    demo.stop()
    assert demo.errors.splitlines()[-1] == "Redis has ended, and the nodes with it."


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Though a node hangs, which would be waited for."""
    demo = starting(tmp_path / "demo.sqlite", nodes=2)
    demo.wait_until_ready()
    children = started_by(demo)
    (hanging, *_) = [child for child in children if child.name() != "redis-server"]
    hanging.suspend()
    demo.process.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs([child for child in children if child.name() != "redis-server"], SOON / 2)
    assert left == [hanging]
    demo.process.send_signal(signal.SIGTERM)
    assert demo.process.wait(SOON) == 0
    assert left_of(children) == []
    demo.stop()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_nothing_is_left_of_a_start_that_is_interrupted(tmp_path: Path, count: int) -> None:
    """Ended as soon as it has started so many processes."""
    demo = starting(tmp_path / "demo.sqlite", nodes=3)
    while len(children := started_by(demo)) < count:
        assert demo.process.poll() is None
    assert demo.stop() == 0
    assert left_of(children) == []
    assert demo.errors == ""


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
