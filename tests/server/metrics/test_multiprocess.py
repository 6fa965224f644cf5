"""One metrics page for all workers of a port, also while a worker does not answer."""

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.server.metrics.metrics_page import kinds_of, read
from tests.support.timing import SOON, TICK
from tocsin_server.metrics import multiprocess
from tocsin_server.metrics.multiprocess import WorkerMetrics, merge
from tocsin_server.metrics.registry import Metrics


@pytest.fixture(autouse=True)
def patient_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker is left out because the machine is slow."""
    monkeypatch.setattr(multiprocess, "READ_SECONDS", SOON)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path short enough for a socket."""
    with TemporaryDirectory() as name:
        yield Path(name)


def page(publications: int, *calls: str) -> bytes:
    metrics = Metrics()
    metrics.publications.count = publications
    metrics.add_node_info(name='a "quoted" \\ name', version="1")
    for call in calls:
        metrics.engine_call_seconds.of(call).observe(0.01)
    return metrics.page()


def test_a_merged_page_has_every_sample_of_every_worker() -> None:
    """Each sample has its worker as a label. Types and names are those of a single page."""
    one, other = page(1, "publish"), page(2, "publish", "read_history")
    merged = read(merge({"1": one, "2": other}))
    assert merged["tocsin_publications_total{worker=1}"] == 1
    assert merged["tocsin_publications_total{worker=2}"] == 2
    assert len(merged) == len(read(one)) + len(read(other))
    assert kinds_of(merge({"1": one})) == kinds_of(one)
    lines = merge({"1": one, "2": other}).decode().splitlines()
    assert len([line for line in lines if line.startswith("# TYPE tocsin_publications_total ")]) == 1


async def test_every_worker_shows_all_workers(folder: Path) -> None:
    """The page is the same on each."""
    first, second = WorkerMetrics(folder, 1), WorkerMetrics(folder, 2)
    async with first.sharing(lambda: page(1)), second.sharing(lambda: page(2)):
        pages = [await first.page(page(1)), await second.page(page(2))]
    for one in pages:
        assert [read(one)[f"tocsin_publications_total{{worker={number}}}"] for number in (1, 2)] == [1, 2]
    assert "worker=2" not in str(read(await first.page(page(1))))


async def test_a_worker_that_does_not_answer_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is dead, frozen, or starting again. The page shows the other workers."""

    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    monkeypatch.setattr(multiprocess, "READ_SECONDS", TICK)
    (folder / "3").touch()
    async with await asyncio.start_unix_server(stay_silent, folder / "2"):
        began_at = time.monotonic()
        shown = read(await WorkerMetrics(folder, 1).page(page(1)))
        assert TICK <= time.monotonic() - began_at < SOON
    assert shown["tocsin_publications_total{worker=1}"] == 1
    assert "worker=2" not in str(shown)


async def test_a_worker_replaces_the_socket_file_of_a_dead_one(folder: Path) -> None:
    """The dead worker left its socket file behind."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "1"))
    async with WorkerMetrics(folder, 1).sharing(lambda: page(7)):
        shown = read(await WorkerMetrics(folder, 2).page(page(1)))
    assert shown["tocsin_publications_total{worker=1}"] == 7
