"""The latency of one client while the node writes to ten thousand others."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from websockets.asyncio.client import connect

from tests.bench.servers import PAYLOAD, SETTINGS, subscribed
from tocsin_server.app import create_app
from tocsin_server.engine.broker import NewPublication
from tocsin_server.serving.server import serving


async def main(port: str, seconds: str) -> None:
    """Ping repeatedly. Prints the median and the 99th percentile in milliseconds."""
    figures: list[float] = []
    async with connect(f"ws://127.0.0.1:{port}/connection/websocket") as socket:
        await socket.send('{"id":1,"connect":{}}')
        await socket.recv()
        until = time.monotonic() + float(seconds)
        while time.monotonic() < until:
            started = time.perf_counter()
            await (await socket.ping())
            figures.append((time.perf_counter() - started) * 1e3)
            await asyncio.sleep(0.005)
    print(statistics.median(figures), statistics.quantiles(figures, n=100)[98])


async def ping_while_writing(count: int, seconds: float) -> tuple[float, float]:
    """The round trip of a ping while the node writes to `count` clients: median and p99 in milliseconds."""
    app = create_app(SETTINGS)
    node = app.state.node
    async with serving(app, SETTINGS.server) as server:
        port = server.url.rsplit(":", 1)[1]
        async with subscribed("tocsin", int(port), count):
            pinger = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench.latency", port, str(seconds)), stdout=-1
            )
            answer = asyncio.ensure_future(pinger.communicate())
            while not answer.done():
                await node.operations.publish("bench", NewPublication(PAYLOAD))
                while not node.fan_out.is_idle:
                    await asyncio.sleep(0)
            median, high = map(float, answer.result()[0].split())
    return median, high


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
