"""One metrics page for all workers of a port.

The system chooses which worker answers a scrape. Without this module, counters would jump between the numbers
of different workers. So each worker also serves its own page on a Unix socket in a common folder, and the
worker that answers the scrape reads the pages of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

READ_SECONDS = 1.0
"""How long reading a worker's page may take. A slower worker is missing from the common page."""

LABEL = "worker"

log = structlog.get_logger()


class WorkerMetrics:
    """The metrics pages of all workers, as worker `number` sees them. Numbers begin with 1.

    Only this server's user may have access to `folder`. Its path must be short, because a socket's path is
    limited to about 100 bytes.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._own = folder / str(number)

    @asynccontextmanager
    async def sharing(self, page: Callable[[], bytes]) -> AsyncIterator[None]:
        """Serve this worker's own `page` to the other workers inside the context."""

        async def write_page(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(page())
            writer.close()

        async with await asyncio.start_unix_server(write_page, self._own):
            yield
        self._own.unlink(missing_ok=True)

    async def page(self, own: bytes) -> bytes:
        """The pages of all workers as one page, on which each sample has the label `worker`."""
        others = sorted(path for path in self._folder.iterdir() if path != self._own)
        other_pages = await asyncio.gather(*map(_read_page, others))
        pages = {self._own.name: own}
        pages.update((path.name, page) for path, page in zip(others, other_pages, strict=True) if page)
        return merge(dict(sorted(pages.items())))


async def _read_page(path: Path) -> bytes:
    """The page of the worker behind a socket file. Empty if that worker does not send it in time."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return await reader.read(-1)
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        log.warning("worker_metrics_missing", worker=path.name, error=repr(error))
        return b""


def merge(pages: Mapping[str, bytes]) -> bytes:
    """One page of the pages of several workers. The text format wants all samples of a metric together.

    The pages are text that this server's own workers wrote, so their samples are not parsed.
    """
    metrics: dict[str, list[str]] = {}
    for worker, page in pages.items():
        for block in page.decode().split("# HELP ")[1:]:
            description, kind, *samples = block.splitlines()
            merged = metrics.setdefault(f"# HELP {description}\n{kind}", [])
            merged += [_labeled(sample, worker) for sample in samples]
    lines = (line for header, samples in metrics.items() for line in (header, *samples))
    return "".join(f"{line}\n" for line in lines).encode()


def _labeled(sample: str, worker: str) -> str:
    """A sample with one more label: `name value` or `name{label="value"} value`."""
    name, _, value = sample.rpartition(" ")
    labels = name[:-1] + "," if name.endswith("}") else name + "{"
    return f'{labels}{LABEL}="{worker}"}} {value}'
