"""A receiver of webhooks in its own process: `python receiving_process.py PORT FILE`.

It appends the id, the client and the sequence of each event to the file, and then answers. Delivery ids that
the file has already are answered, and not stored again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.webhook_receiver import Receiver, Request

ROOT = Path(__file__).parents[3]


async def receive(port: int, file: Path) -> None:
    receiver = Receiver()
    with file.open("a") as stored:

        def store(request: Request) -> int:
            for event in request.events:
                name = f"{event['id']} {event['client']} {event['sequence']} {event['type']}"
                stored.write(f"{name} {request.delivery}\n")
            stored.flush()
            receiver.requests.clear()
            return 204

        receiver.answer = store
        async with receiver.serving(port):
            print("ready", flush=True)  # noqa: T201 - for the test
            await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def receiving(port: int, file: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the process, and kill it at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.server.hooks.receiving_process", str(port), str(file)),
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
    asyncio.run(receive(int(sys.argv[1]), Path(sys.argv[2])))
