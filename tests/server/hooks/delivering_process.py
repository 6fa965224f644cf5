"""A node in its own process that delivers events to a webhook: `python delivering_process.py URL PREFIX RECEIVER`.

It prints `ready` once it runs, and ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
SECRET = "a secret of forty characters, which is long"


async def deliver(url: str, prefix: str, receiver: str) -> None:
    from tocsin_server import Settings, create_app  # noqa: PLC0415 - only the process itself needs it

    settings = Settings.model_validate(
        {
            "engine": {"url": url, "prefix": prefix},
            "events": {"types": ["connected", "disconnected"], "parts": 4},
            "webhooks": {
                "app": {
                    "url": receiver,
                    "secrets": [SECRET],
                    "batch_size": 20,
                    "batch_delay": 0,
                    "timeout": 2,
                }
            },
        }
    )
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    app = create_app(settings)
    async with app.state.node.running():
        print("ready", flush=True)
        await stopped.wait()


@contextlib.asynccontextmanager
async def delivering(url: str, prefix: str, receiver: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the process. At the end it is killed, if it has not ended."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.server.hooks.delivering_process", url, prefix, receiver),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert (await process.stdout.readline()) == b"ready\n"
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(deliver(*sys.argv[1:4]))
