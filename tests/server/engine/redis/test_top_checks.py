"""Top checks: a node over Redis compares its positions with the tops, in case the last message was lost."""

from typing import cast

import pytest

from tests.server.engine.contract.harness import publication
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.redis_server import RedisServer
from tests.server.engine.redis.test_metrics import sharing
from tests.server.metrics.metrics_page import of
from tests.server.served_node import new_channel, publish
from tests.support.timing import TICK
from tocsin_server.engine.redis.broker import RedisBroker
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.publish_call import ChannelNames
from tocsin_server.node import backfill


class UnreceivedKeys(Keys):
    """The keys of a node whose messages no other node receives."""

    def of_history(self, channel: str) -> tuple[str, str, str]:
        return "nowhere", self.meta(channel), self.history(channel)


async def test_a_stored_publication_that_was_not_received_is_backfilled(
    running: Running, redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the top check alone: no later publication arrives, and no connection breaks."""
    monkeypatch.setattr(backfill, "TOP_CHECK_SECONDS", 2 * TICK)
    url, news = redis_server.url, new_channel("log")
    async with (
        sharing(url, prefix) as served,
        served.connected(news) as wire,
        running(url, "unreceived") as unreceived,
    ):
        await publish(served.node, news, b"0")
        broker = cast("RedisBroker", unreceived.broker)
        names = ChannelNames(UnreceivedKeys(prefix), broker._settings_of)
        monkeypatch.setattr(broker, "_names", names)
        options = served.node.operations.options_for(news)
        assert options is not None
        for number in (1, 2):
            await unreceived.broker.publish(news, publication(number), options)
        assert [(await wire.push("pub", news))["data"] for _ in range(3)] == [0, 1, 2]
        assert of(served.node)["tocsin_backfilled_publications_total"] >= 2
