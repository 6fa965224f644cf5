"""Colleagues: the workers of one port, which ask each other so that one scrape shows all of them.

Whoever is scraped is chosen by the system, and another one the next time; counters would leap back and forth.
So each worker listens at a socket file too, and writes whoever connects its own page of metrics.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

ANSWER_SECONDS = 1.0
"""How long a worker may take to answer. One that takes longer is not on the page."""

LABEL = "worker"

log = structlog.get_logger()


class Colleagues:
    """Worker `number` of several, counted from 1, which meet in `folder`.

    Nobody else may enter that folder, and its name should be short: a socket's path has about 100 bytes.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._own = folder / str(number)

    @asynccontextmanager
    async def answering(self, page: Callable[[], bytes]) -> AsyncIterator[None]:
        """Answer the others with `page` meanwhile."""

        async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(page())
            writer.close()

        async with await asyncio.start_unix_server(answer, self._own):
            yield
        self._own.unlink(missing_ok=True)

    async def page(self, own: bytes) -> bytes:
        """The pages of all workers as one, each sample with the label `worker`."""
        others = sorted(path for path in self._folder.iterdir() if path != self._own)
        answers = await asyncio.gather(*map(_ask, others))
        pages = {self._own.name: own}
        pages.update((path.name, page) for path, page in zip(others, answers, strict=True) if page)
        return merge(dict(sorted(pages.items())))


async def _ask(path: Path) -> bytes:
    """The page of the worker who listens at a socket file; empty if there is none any more."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return await reader.read(-1)
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        log.warning("a worker is not on the page of metrics", worker=path.name, error=repr(error))
        return b""


def merge(pages: Mapping[str, bytes]) -> bytes:
    """One page of several: the text format wants all samples of a metric together."""
    families: dict[str, Metric] = {}
    for worker, page in pages.items():
        for family in text_string_to_metric_families(page.decode()):
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            merged.samples += [
                sample._replace(labels={**sample.labels, LABEL: worker}) for sample in family.samples
            ]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Merged(families.values()))
    return generate_latest(registry)


class _Merged(Collector):
    """Families that are there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
