"""The npm package `centrifuge` with `ws`, in a Node.js process of its own."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.conformance.javascript_driver import JavaScriptDriver, run_script
from tests.conformance.sdks.contract import Json
from tests.support.recorded_events import RecordedEvents


class CentrifugeJs:
    """Forwards every call to `js/centrifuge.mjs`."""

    def __init__(self, driver: JavaScriptDriver) -> None:
        self._call = driver.call
        self.events: RecordedEvents = driver.events

    async def connect(
        self, url: str, *, token: str = "", tokens: list[str] | None = None, data: Any = None
    ) -> None:
        await self._call("connect", url=url, token=token, tokens=tokens, data=data)

    async def disconnect(self) -> None:
        await self._call("disconnect")

    async def subscribe(self, channel: str, **options: Any) -> None:
        await self._call("subscribe", channel=channel, **options)

    async def unsubscribe(self, channel: str) -> None:
        await self._call("unsubscribe", channel=channel)

    async def publish(self, channel: str, data: Any) -> None:
        await self._call("publish", channel=channel, data=data)

    async def presence(self, channel: str) -> dict[str, Json]:
        clients: dict[str, Json] = await self._call("presence", channel=channel)
        return clients

    async def presence_stats(self, channel: str) -> dict[str, int]:
        stats: dict[str, int] = await self._call("presence_stats", channel=channel)
        return stats

    async def history(
        self, channel: str, *, limit: int = 0, since: Json | None = None, reverse: bool = False
    ) -> Json:
        page: Json = await self._call("history", channel=channel, limit=limit, since=since, reverse=reverse)
        return page

    async def rpc(self, method: str, data: Any) -> Any:
        return await self._call("rpc", method=method, data=data)


@contextlib.asynccontextmanager
async def centrifuge_js() -> AsyncIterator[CentrifugeJs]:
    async with run_script("centrifuge.mjs") as driver:
        yield CentrifugeJs(driver)
