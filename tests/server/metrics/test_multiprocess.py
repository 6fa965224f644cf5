"""Colleagues: one page of metrics for all workers of a port, and no waiting for one who is not there."""

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.server.metrics.metrics_page import kinds_of, read
from tests.support.timing import SOON
from tocsin_server.metrics.multiprocess import ANSWER_SECONDS, Colleagues, merge
from tocsin_server.metrics.registry import Metrics


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for a socket's path."""
    with TemporaryDirectory() as name:
        yield Path(name)


def page(publications: int, *calls: str) -> bytes:
    metrics = Metrics()
    metrics.publications.count = publications
    metrics.describe(name='a "quoted" \\ name', version="1")
    for call in calls:
        metrics.engine_call_seconds.of(call).observe(0.01)
    return metrics.page()


def test_a_page_of_several_loses_nothing_and_keeps_apart() -> None:
    """Every sample of each, with its worker; types and names as on the page of one."""
    one, other = page(1, "publish"), page(2, "publish", "read_history")
    merged = read(merge({"1": one, "2": other}))
    assert merged["tocsin_publications_total{worker=1}"] == 1
    assert merged["tocsin_publications_total{worker=2}"] == 2
    assert len(merged) == len(read(one)) + len(read(other))
    assert kinds_of(merge({"1": one})) == kinds_of(one)
    lines = merge({"1": one, "2": other}).decode().splitlines()
    assert len([line for line in lines if line.startswith("# TYPE tocsin_publications_total ")]) == 1


async def test_each_shows_the_others(folder: Path) -> None:
    """Whoever is asked."""
    first, second = Colleagues(folder, 1), Colleagues(folder, 2)
    async with first.answering(lambda: page(1)), second.answering(lambda: page(2)):
        pages = [await first.page(page(1)), await second.page(page(2))]
    for one in pages:
        assert [read(one)[f"tocsin_publications_total{{worker={number}}}"] for number in (1, 2)] == [1, 2]
    assert "worker=2" not in str(read(await first.page(page(1))))


async def test_nobody_waits_for_one_who_does_not_answer(folder: Path) -> None:
    """Dead, frozen, or about to start again: the others are shown."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    (folder / "3").touch()
    async with await asyncio.start_unix_server(say_nothing, folder / "2"):
        began_at = time.monotonic()
        shown = read(await Colleagues(folder, 1).page(page(1)))
        assert ANSWER_SECONDS <= time.monotonic() - began_at < SOON
    assert shown["tocsin_publications_total{worker=1}"] == 1
    assert "worker=2" not in str(shown)


async def test_one_who_took_a_dead_ones_place_answers(folder: Path) -> None:
    """Whose socket file is still there."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "1"))
    async with Colleagues(folder, 1).answering(lambda: page(7)):
        shown = read(await Colleagues(folder, 2).page(page(1)))
    assert shown["tocsin_publications_total{worker=1}"] == 7
