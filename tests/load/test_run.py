"""Whole runs, with real worker processes, against real nodes and through faulty proxies."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.load.tampering_proxy import tampering
from tests.support.configs import API_KEY, STANDARD
from tests.support.proxy import Proxy
from tests.support.server import Server, run_server
from tests.support.timing import STARTED
from tests.support.tokens import SECRET
from tocsin_load.deliveries import Deliveries
from tocsin_load.rate_publisher import RatePublisher
from tocsin_load.report import Report
from tocsin_load.run import Plan, Run
from tocsin_load.worker_pool import WorkerPool

USUAL_PLAN: dict[str, Any] = {
    "connections": 40,
    "transport": "mix",
    "channels": 4,
    "channel_prefix": "open:load-",
    "rate": 0,
    "publish_rate": 400,
    "size": 100,
    "seconds": STARTED,
    "count": 200,
    "processes": 2,
    "token": "",
    "secret": "",
    "api_key": API_KEY,
}


class RecordingDisplay:
    """Records the phases, and lets a test wait for a condition."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.workers: WorkerPool | None = None
        self.publisher: RatePublisher | None = None
        self._changed = asyncio.Event()

    def show_phase(self, name: str, workers: WorkerPool, publisher: RatePublisher) -> None:
        self.phases.append(name)
        self.workers, self.publisher = workers, publisher
        self._changed.set()

    def update(self) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[WorkerPool, RatePublisher], bool]) -> None:
        async with asyncio.timeout(STARTED):
            while not (self.workers and self.publisher and condition(self.workers, self.publisher)):
                self._changed.clear()
                await self._changed.wait()


async def publishing_has_begun(display: RecordingDisplay, acknowledged: int = 20) -> None:
    await display.until(lambda _, publisher: publisher.acknowledged_count >= acknowledged)


async def all_have_reconnected(display: RecordingDisplay, lost: int) -> None:
    """Wait until all are live after a loss, and each channel then has a further publication."""
    await display.until(lambda workers, _: workers.lost_connections >= lost and workers.subscribed == 40)
    assert display.publisher is not None
    acknowledged = display.publisher.acknowledged_count + 40
    await display.until(lambda _, publisher: publisher.acknowledged_count >= acknowledged)


def start(
    url: str | list[str], display: RecordingDisplay, **options: Any
) -> tuple[Run, asyncio.Task[Report]]:
    urls = [url] if isinstance(url, str) else url
    run = Run(Plan(urls=urls, **(USUAL_PLAN | options)), display)
    return run, asyncio.create_task(run.run())


async def ended(task: asyncio.Task[Report]) -> Report:
    async with asyncio.timeout(2 * STARTED):
        return await task


def assert_sums_agree(report: Report) -> None:
    found = report.deliveries
    received = found.expected - found.lost - found.in_gaps + found.duplicated + found.unacknowledged
    assert report.delivered == received


async def test_every_publication_is_delivered_to_every_connection(server: Server) -> None:
    _, running = start(server.url, RecordingDisplay())
    report = await ended(running)
    assert report.deliveries == Deliveries(expected=2000)
    assert report.is_good
    assert (report.connected, report.acknowledged, report.delivered) == (40, 200, 2000)
    assert report.latency.total == 2000
    assert 0 < report.latency.quantile(0.5) <= report.latency.longest < STARTED
    assert report.connect_failures == report.publish_failures == {}


async def test_cut_connections_recover_and_miss_no_publication(proxy: Proxy) -> None:
    """The API cannot be reached in between, either. The history keeps all publications of the run.

    They take five seconds, so the connections are cut before the last one.
    """
    display = RecordingDisplay()
    _, running = start(proxy.url, display, publish_rate=40)
    await publishing_has_begun(display)
    proxy.cut()
    await display.until(lambda workers, _: workers.lost_connections >= 40)
    await display.until(lambda _, publisher: bool(publisher.failures))
    proxy.restore()
    report = await ended(running)
    assert report.deliveries.expected == 10 * report.acknowledged
    assert report.deliveries.in_gaps == 0
    assert report.deliveries.is_clean
    assert_sums_agree(report)
    assert report.lost_connections >= 40
    assert report.reconnects.total == report.lost_connections
    assert report.publish_failures


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_publications_beyond_the_history_are_in_gaps_and_not_lost(
    server: Server, proxy: Proxy, transport: str
) -> None:
    """The history keeps five publications. Publishing does not use the proxy that is cut."""
    display = RecordingDisplay()
    options = {"transport": transport, "channel_prefix": f"short:load-{transport}-", "count": 0}
    run, running = start([server.url, proxy.url], display, **options)
    await publishing_has_begun(display)
    proxy.cut()
    await all_have_reconnected(display, lost=20)
    run.stop()
    report = await ended(running)
    found = report.deliveries
    assert found.in_gaps > 0
    assert found.is_clean
    assert found.expected == 10 * report.acknowledged
    assert_sums_agree(report)


async def test_an_interruption_without_history_is_a_gap(server: Server, proxy: Proxy) -> None:
    display = RecordingDisplay()
    run, running = start([server.url, proxy.url], display, channel_prefix="plain:load-", count=0)
    await publishing_has_begun(display)
    proxy.cut()
    await all_have_reconnected(display, lost=20)
    run.stop()
    report = await ended(running)
    assert report.deliveries.in_gaps > 0
    assert report.deliveries.is_clean
    assert_sums_agree(report)


async def test_dropped_doubled_and_swapped_publications_are_counted(server: Server) -> None:
    """Each of 40 connections loses three, receives two twice, and one too late."""
    async with tampering(server) as proxy:
        proxy.drop, proxy.double, proxy.swap = {10, 11, 40}, {20, 21}, {30}
        _, running = start(proxy.url, RecordingDisplay(), transport="websocket")
        report = await ended(running)
    assert report.deliveries == Deliveries(expected=2000, lost=120, duplicated=80, reordered=40)
    assert not report.is_good


async def test_a_server_restarted_without_its_history_leaves_gaps_and_no_losses(tmp_path: Path) -> None:
    display = RecordingDisplay()
    with run_server(STANDARD, tmp_path) as first:
        run, running = start(first.url, display, count=0, secret=SECRET)
        await publishing_has_begun(display)
        port = first.port
    await display.until(lambda workers, _: workers.subscribed == 0)
    with run_server(
        STANDARD | {"server": {**STANDARD["server"], "port": port}}, tmp_path, "--port", str(port)
    ):
        before = display.publisher.acknowledged_count if display.publisher else 0
        await display.until(
            lambda workers, publisher: publisher.acknowledged_count > before and workers.subscribed == 40
        )
        run.stop()
        report = await ended(running)
    assert report.deliveries.is_clean
    assert_sums_agree(report)
    assert report.reconnects.total >= 40
    assert report.still_disconnected == 0


async def test_publications_of_connections_that_do_not_reconnect_are_lost(
    server: Server, proxy: Proxy
) -> None:
    display = RecordingDisplay()
    run, running = start(proxy.url, display, count=0, grace_seconds=1.0)
    await publishing_has_begun(display)
    proxy.cut()
    await display.until(lambda workers, _: workers.subscribed == 0)
    run.stop()
    report = await ended(running)
    assert report.connected == report.still_disconnected == 40
    assert report.deliveries.lost == report.deliveries.lost_disconnected
    assert_sums_agree(report)


async def test_a_refused_connection_is_a_failure_with_its_reason(token_only_server: Server) -> None:
    """A connection without a token is refused for good. The run does not wait for it, and fails."""
    display = RecordingDisplay()
    _, running = start(token_only_server.url, display, transport="websocket", channel_prefix="", seconds=0.5)
    report = await ended(running)
    assert report.connected == 0
    assert not report.is_good
    assert sum(report.connect_failures.values()) == 40


async def test_connections_can_be_held_without_publishing(server: Server) -> None:
    display = RecordingDisplay()
    run, running = start(server.url, display, publish_rate=0)
    await display.until(lambda workers, _: "holding" in display.phases and workers.subscribed == 40)
    run.stop()
    report = await ended(running)
    assert (report.connected, report.still_disconnected, report.acknowledged) == (40, 0, 0)
    assert report.is_good
