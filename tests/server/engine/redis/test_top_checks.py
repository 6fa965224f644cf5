"""A node over Redis looks at each log now and then: the last of a channel may be lost and nothing show it."""

import pytest

from tests.server.engine.contract.harness import publication
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.redis_server import RedisServer
from tests.server.engine.redis.test_metrics import sharing
from tests.server.metrics.metrics_page import of
from tests.server.served_node import new_channel, publish
from tests.support.timing import TICK
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.node import backfill


class MuteKeys(Keys):
    """Those of a node whose announcements nobody hears."""

    def of_history(self, channel: str) -> tuple[str, str, str]:
        return "nowhere", self.meta(channel), self.history(channel)


async def test_what_was_logged_and_never_announced_is_found(
    running: Running, redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By looking alone: no later one is announced, and no link breaks."""
    monkeypatch.setattr(backfill, "TOP_CHECK_SECONDS", 2 * TICK)
    url, news = redis_server.url, new_channel("log")
    async with sharing(url, prefix) as house, house.connected(news) as wire, running(url, "mute") as mute:
        await publish(house.node, news, b"0")
        monkeypatch.setattr(mute.broker, "_keys", MuteKeys(prefix))
        options = house.node.rules.options_for(news)
        assert options is not None
        for number in (1, 2):
            await mute.broker.publish(news, publication(number), options)
        assert [(await wire.push("pub", news))["data"] for _ in range(3)] == [0, 1, 2]
        assert of(house.node)["tocsin_mended_publications_total"] >= 2
