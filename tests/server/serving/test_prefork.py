"""`tocsin serve --workers`: several nodes on one port, which their parent restarts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.protocol import State

from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.server.metrics.metrics_page import read
from tests.support.api import NO_TLS
from tests.support.event_stream import open_event_stream
from tests.support.raw_connection import open_tcp
from tests.support.server import TOCSIN, Server, run_server
from tests.support.timing import STARTED, TICK
from tests.support.wire_client import WireClient, open_wire
from tocsin_server.serving.prefork import SILENT_CHECKS
from tocsin_server.serving.server import GRACE_SECONDS

WORKERS = 2

MANY = 40
"""So many connections that both workers have some, unless one of them never accepts."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(redis: RedisServer, tmp_path: Path) -> Iterator[Server]:
    config = {"engine": {"url": redis.url, "prefix": tmp_path.name}}
    with run_server(config, tmp_path, "--insecure", "--workers", str(WORKERS)) as server:
        yield server


def eventually(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + STARTED
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(TICK / 5)


def workers(server: Server) -> set[int]:
    """The process ids of those that run."""
    return {child.pid for child in psutil.Process(server.process.pid).children() if runs(child)}


def runs(process: psutil.Process) -> bool:
    """Whether a process has not ended. One that was killed is a zombie until its parent notices."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def names(server: Server) -> list[str]:
    response = httpx.post(f"{server.api_url}/info", json={}, trust_env=False, verify=NO_TLS)
    return sorted(node["name"] for node in response.json().get("result", {"nodes": []})["nodes"])


def test_each_worker_is_a_node_and_all_share_the_port(server: Server) -> None:
    assert len(workers(server)) == WORKERS
    eventually(lambda: [name.rsplit("_", 1)[1] for name in names(server)] == ["1", "2"])


def test_a_worker_that_dies_is_replaced(server: Server) -> None:
    before = workers(server)
    os.kill(min(before), signal.SIGKILL)
    eventually(lambda: len(workers(server) - before) == 1)
    eventually(lambda: len(names(server)) == WORKERS)


def shown_workers(server: Server, client: httpx.Client) -> set[str]:
    page = read(client.get(f"{server.url}/metrics").content)
    return {name.rpartition("worker=")[2].rstrip("}") for name in page if name.startswith("tocsin_node_info")}


def test_one_scrape_shows_all_workers(server: Server) -> None:
    """Either worker may answer it, also after one of them was replaced."""
    all_workers = {str(number + 1) for number in range(WORKERS)}
    before = workers(server)
    new_connections = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(trust_env=False, verify=NO_TLS, limits=new_connections) as client:
        eventually(
            lambda: all(shown_workers(server, client) == all_workers for _ in range(MANY))
        )  # a busy worker may miss one scrape
        os.kill(min(before), signal.SIGKILL)
        eventually(lambda: len(workers(server) - before) == 1)
        eventually(lambda: shown_workers(server, client) == all_workers)


def test_a_signal_to_the_parent_ends_every_worker(server: Server) -> None:
    before = workers(server)
    assert server.stop() == 0
    assert not [pid for pid in before if psutil.pid_exists(pid)]


async def connect_to_all(server: Server, stack: contextlib.AsyncExitStack) -> list[WireClient]:
    """Open connections until each worker has one."""
    wires: list[WireClient] = []
    nodes: set[str] = set()
    while len(nodes) < WORKERS:
        assert len(wires) < MANY
        wire = await stack.enter_async_context(open_wire(server))
        nodes.add((await wire.connect())["node"])
        wires.append(wire)
    return wires


async def test_a_signal_to_the_parent_drains_every_worker(server: Server) -> None:
    """The clients of each worker are told to reconnect, and the command exits with 0."""
    async with contextlib.AsyncExitStack() as stack:
        wires = await connect_to_all(server, stack)
        stream = await stack.enter_async_context(open_event_stream(server, "/events?channel=open"))
        ending = asyncio.create_task(asyncio.to_thread(server.stop))
        assert {(await wire.closed()).code for wire in wires} == {3001}
        while (event := await stream.next()).kind != "disconnect":
            pass
        assert event.data["code"] == 3001
        with pytest.raises(ConnectionError):
            await stream.next()
        assert await ending == 0


async def test_a_second_signal_ends_every_worker_at_once(server: Server) -> None:
    """Requests that never end cannot delay it. In the meantime connections are refused."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4 * WORKERS):
            request = await stack.enter_async_context(open_tcp(server))
            await request.send(b"POST /api/publish HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{")
        wires = await connect_to_all(server, stack)
        server.process.send_signal(signal.SIGTERM)
        assert {(await wire.closed()).code for wire in wires} == {3001}
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.sleep(5 * TICK)
        assert server.process.poll() is None, "it waits for the stuck requests"
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, GRACE_SECONDS / 2) == 0


def test_no_worker_outlives_its_parent(redis: RedisServer, tmp_path: Path) -> None:
    config = {"engine": {"url": redis.url, "prefix": tmp_path.name}}
    with pytest.raises(AssertionError), run_server(config, tmp_path, "--workers", "2") as server:  # noqa: PT012
        before = workers(server)
        server.process.kill()
        eventually(lambda: not [pid for pid in before if psutil.pid_exists(pid)])


def test_workers_that_cannot_start_end_the_command_with_one_sentence() -> None:
    command = [str(TOCSIN), "serve", "--port", "0", "--workers", "2", "--engine", "redis://127.0.0.1:1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=STARTED, check=False)
    assert result.returncode == 1
    assert "Redis at 127.0.0.1:1 cannot be used" in result.stderr
    assert "Traceback" not in result.stderr


async def test_a_worker_that_dies_while_redis_is_away_ends_no_other(tmp_path: Path) -> None:
    """The clients of the other worker stay connected. The pool is complete again once Redis is back."""
    with redis_running(tmp_path) as redis:
        config = {"engine": {"url": redis.url, "prefix": tmp_path.name}}
        with run_server(config, tmp_path, "--insecure", "--workers", str(WORKERS)) as server:
            async with contextlib.AsyncExitStack() as stack:
                wires = await connect_to_all(server, stack)
                dying, *_ = workers(server)
                redis.stop()
                os.kill(dying, signal.SIGKILL)
                await asyncio.to_thread(eventually, lambda: "worker_cannot_start" in server.stderr)
                assert server.process.poll() is None
                assert [wire for wire in wires if wire.connection.state is State.OPEN]
                redis.start()
                await asyncio.to_thread(eventually, lambda: len(names(server)) == WORKERS)
                assert dying not in workers(server)


@contextlib.contextmanager
def running_pool(work: str, parent: str = "") -> Iterator[subprocess.Popen[str]]:
    """A pool of two workers that run this code, with pauses and checks of a few milliseconds.

    It kills no worker for being silent, since a slow machine may hold one up, unless `parent` changes that.
    The code finds `number`, `report` and `starts`: how often this worker was started before. The code of
    `parent` runs before the pool, and finds it as `pool`.
    """
    script = f"""
import os, pathlib, select, signal, sys, tempfile, threading, time
from tocsin_server.serving import prefork

prefork.CHECK_SECONDS = {TICK}
prefork.SILENT_CHECKS = sys.maxsize
prefork.RESTART_SECONDS = {TICK / 10}
folder = pathlib.Path(tempfile.mkdtemp())

def work(number, parent, report):
    starts = len(list(folder.glob(f"{{number}}-*")))
    (folder / f"{{number}}-{{starts}}").touch()
    print("start", number, starts, flush=True)
{textwrap.indent(textwrap.dedent(work), "    ")}
    return 0

pool = prefork.WorkerPool(2, work, lambda: print("ready", flush=True))
{textwrap.dedent(parent)}
sys.exit(pool.run())
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str], text: str) -> str:
    """The next line that has this text."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"the pool ended without {text!r}")


SERVE = """
while not select.select([parent], [], [], prefork.CHECK_SECONDS / 2)[0]:
    report()
"""
"""A worker that serves until its parent has died."""


def test_a_worker_that_hangs_is_killed_and_replaced() -> None:
    """One that reports is left alone."""
    hanging = "if number == 1 and starts == 0:\n    report()\n    time.sleep(3600)\n"
    with running_pool(hanging + SERVE, f"prefork.SILENT_CHECKS = {SILENT_CHECKS}") as process:
        line_of(process, "ready")
        line_of(process, "worker_hangs")
        assert line_of(process, "start") == "start 1 1\n"
        process.terminate()
        assert process.wait(STARTED) == 0


def test_a_worker_that_exits_at_once_is_restarted_after_longer_and_longer_pauses() -> None:
    """A signal ends the pool at once, also during a pause."""
    failing = "if number == 1:\n    report()\n    sys.exit(prefork.CANNOT_START if starts else 1)\n"
    with running_pool(failing + SERVE) as process:
        exits = [line_of(process, "worker_exited") for _ in range(5)]
        assert [re.findall("worker=([0-9])", line) for line in exits] == [["2"]] * 5
        pauses = [float(re.findall("pause_seconds=([0-9.]+)", line)[0]) for line in exits]
        assert pauses[-1] > 4 * TICK / 10 > pauses[0]
        process.terminate()
        assert process.wait(STARTED) == 0


def test_a_signal_while_a_worker_is_forked_ends_that_worker_too() -> None:
    """Any thread may take it, so that its handler runs before the parent knows the worker's process id."""
    parent = """
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    fork = os.fork

    def fork_during_a_signal():
        pid = fork()
        if pid:
            os.kill(os.getpid(), signal.SIGTERM)
            while not pool._is_stopping:
                time.sleep(0)
        return pid

    os.fork = fork_during_a_signal
    """
    with running_pool(SERVE, parent) as process:
        assert process.wait(STARTED) == 0


def test_an_error_of_a_worker_is_logged() -> None:
    failing = "if number == 1 and not starts:\n    raise RuntimeError('broken')\n"
    with running_pool(failing + SERVE) as process:
        assert "broken" in line_of(process, "RuntimeError: broken")
        line_of(process, "ready")
