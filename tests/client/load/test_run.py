"""Whole runs, with real worker processes, against real nodes and links that misbehave."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.client.load.meddler import meddling
from tests.support.configs import API_KEY, STANDARD
from tests.support.proxy import Proxy
from tests.support.server import Server, run_server
from tests.support.timing import STARTED
from tests.support.tokens import SECRET
from tocsin.load.crew import Crew
from tocsin.load.publishing import Publishing
from tocsin.load.report import Report
from tocsin.load.run import Plan, Run
from tocsin.load.verdict import Verdict

USUAL_PLAN: dict[str, Any] = {
    "connections": 40,
    "transport": "mix",
    "channels": 4,
    "channel_prefix": "open:load-",
    "rate": 0,
    "publish_rate": 200,
    "size": 100,
    "seconds": STARTED,
    "count": 200,
    "processes": 2,
    "token": "",
    "secret": "",
    "api_key": API_KEY,
}


class Watcher:
    """Lets a test wait for a phase, and until the crew is as the test wants it."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.crew: Crew | None = None
        self.publishing: Publishing | None = None
        self._changed = asyncio.Event()

    def phase(self, name: str, crew: Crew, publishing: Publishing) -> None:
        self.phases.append(name)
        self.crew, self.publishing = crew, publishing
        self._changed.set()

    def moved(self) -> None:
        self._changed.set()

    async def until(self, is_so: Callable[[Crew, Publishing], bool]) -> None:
        async with asyncio.timeout(STARTED):
            while not (self.crew and self.publishing and is_so(self.crew, self.publishing)):
                self._changed.clear()
                await self._changed.wait()


async def publishing_has_begun(watcher: Watcher, acknowledged: int = 20) -> None:
    await watcher.until(lambda _, publishing: publishing.total >= acknowledged)


def start(url: str, watcher: Watcher, **wanted: Any) -> tuple[Run, asyncio.Task[Report]]:
    run = Run(Plan(urls=[url], **(USUAL_PLAN | wanted)), watcher)
    return run, asyncio.create_task(run.run())


async def ended(task: asyncio.Task[Report]) -> Report:
    async with asyncio.timeout(2 * STARTED):
        return await task


def assert_it_adds_up(report: Report) -> None:
    verdict = report.verdict
    heard = verdict.expected - verdict.lost - verdict.told + verdict.duplicated + verdict.unacknowledged
    assert report.delivered == heard


async def test_what_all_connections_heard_is_exactly_what_was_published(server: Server) -> None:
    _, running = start(server.url, Watcher())
    report = await ended(running)
    assert report.verdict == Verdict(expected=2000)
    assert report.is_good
    assert (report.connected, report.acknowledged, report.delivered) == (40, 200, 2000)
    assert report.latency.total == 2000
    assert 0 < report.latency.quantile(0.5) <= report.latency.longest < STARTED
    assert report.connect_failures == report.publish_failures == {}


async def test_connections_that_were_cut_resume_and_miss_nothing(proxy: Proxy) -> None:
    watcher = Watcher()
    _, running = start(proxy.url, watcher)
    await publishing_has_begun(watcher)
    proxy.cut()
    await watcher.until(lambda crew, _: crew.lost_connections >= 40)
    proxy.restore()
    report = await ended(running)
    assert report.verdict.expected == 10 * report.acknowledged
    assert report.verdict.told == 0
    assert report.verdict.is_clean
    assert_it_adds_up(report)
    assert report.lost_connections >= 40
    assert report.returns.total == report.lost_connections
    assert report.publish_failures


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_what_the_log_no_longer_had_is_told_not_lost(
    server: Server, proxy: Proxy, transport: str
) -> None:
    """The log of a channel keeps five. Publications go past the link that is cut."""
    watcher = Watcher()
    plan = USUAL_PLAN | {"transport": transport, "channel_prefix": f"short:load-{transport}-", "count": 400}
    run = Run(Plan(urls=[server.url, proxy.url], **plan), watcher)
    running = asyncio.create_task(run.run())
    await publishing_has_begun(watcher)
    proxy.cut()
    await watcher.until(lambda crew, _: crew.lost_connections >= 20)
    report = await ended(running)
    verdict = report.verdict
    assert verdict.told > 0
    assert verdict.is_clean
    assert verdict.expected == 10 * report.acknowledged
    assert_it_adds_up(report)


async def test_in_a_channel_without_a_log_an_absence_is_a_hole(server: Server, proxy: Proxy) -> None:
    watcher = Watcher()
    plan = USUAL_PLAN | {"channel_prefix": "plain:load-", "count": 400}
    running = asyncio.create_task(Run(Plan(urls=[server.url, proxy.url], **plan), watcher).run())
    await publishing_has_begun(watcher)
    proxy.cut()
    report = await ended(running)
    assert report.verdict.told > 0
    assert report.verdict.is_clean
    assert_it_adds_up(report)


async def test_what_is_dropped_doubled_and_swapped_on_the_way_is_counted(server: Server) -> None:
    """Each of 40 connections loses three, hears two twice, and one too late."""
    async with meddling(server) as meddler:
        meddler.drop, meddler.double, meddler.swap = {10, 11, 40}, {20, 21}, {30}
        _, running = start(meddler.url, Watcher(), transport="websocket")
        report = await ended(running)
    assert report.verdict == Verdict(expected=2000, lost=120, duplicated=80, reordered=40)
    assert not report.is_good


async def test_a_server_that_dies_with_its_log_is_survived_and_told(tmp_path: Path) -> None:
    watcher = Watcher()
    with run_server(STANDARD, tmp_path) as first:
        run, running = start(first.url, watcher, count=0, secret=SECRET)
        await publishing_has_begun(watcher)
        port = first.port
    await watcher.until(lambda crew, _: crew.subscribed == 0)
    with run_server(
        STANDARD | {"server": {**STANDARD["server"], "port": port}}, tmp_path, "--port", str(port)
    ):
        before = watcher.publishing.total if watcher.publishing else 0
        await watcher.until(lambda crew, publishing: publishing.total > before and crew.subscribed == 40)
        run.stop()
        report = await ended(running)
    assert report.verdict.is_clean
    assert_it_adds_up(report)
    assert report.returns.total >= 40
    assert report.still_away == 0


async def test_what_connections_lose_that_do_not_come_back_is_lost(server: Server, proxy: Proxy) -> None:
    watcher = Watcher()
    run, running = start(proxy.url, watcher, count=0, grace_seconds=1.0)
    await publishing_has_begun(watcher)
    proxy.cut()
    await watcher.until(lambda crew, _: crew.subscribed == 0)
    run.stop()
    report = await ended(running)
    assert report.connected == report.still_away == 40
    assert report.verdict.lost == report.verdict.unheard_away
    assert_it_adds_up(report)


async def test_a_refusal_is_a_failure_with_its_reason(token_only_server: Server) -> None:
    """Whoever has no token is refused for good: nobody waits for it, and nothing is good about that."""
    watcher = Watcher()
    _, running = start(token_only_server.url, watcher, transport="websocket", channel_prefix="", seconds=0.5)
    report = await ended(running)
    assert report.connected == 0
    assert not report.is_good
    assert sum(report.connect_failures.values()) == 40


async def test_connections_can_be_held_without_publishing(server: Server) -> None:
    watcher = Watcher()
    run, running = start(server.url, watcher, publish_rate=0)
    await watcher.until(lambda crew, _: "holding" in watcher.phases and crew.subscribed == 40)
    run.stop()
    report = await ended(running)
    assert (report.connected, report.still_away, report.acknowledged) == (40, 0, 0)
    assert report.is_good
