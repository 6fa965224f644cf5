"""Publishing to several nodes in turn, and to the next one if a node does not answer."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from tests.support.tcp import tcp_server
from tocsin import AsyncPublisher, CallError, ServerUnreachable
from tocsin_demo.publishing import Publisher
from tocsin_server.app import create_app
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.loading import Settings
from tocsin_server.config.options import ApiOptions, ServerOptions
from tocsin_server.serving.server import serving

KEY = "key"


@pytest.fixture(autouse=True)
def _one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The publisher of the SDK repeats requests after a delay; its own tests cover that."""
    monkeypatch.setattr("tocsin.publisher.ATTEMPTS", 1)


@pytest.fixture
async def node() -> AsyncIterator[str]:
    """The address of a node whose channels keep a history."""
    settings = Settings(
        server=ServerOptions(port=0, drain_seconds=0),
        api=ApiOptions(keys=(KEY,)),
        channels=ChannelOptions.model_validate({"history_size": 10, "history_ttl": "60s"}),
    )
    async with serving(create_app(settings), settings.server) as server:
        yield server.url.partition("://")[2]


@pytest.fixture
async def unreachable() -> str:
    """An address where no server listens."""
    async with tcp_server(_refuse) as port:
        return f"127.0.0.1:{port}"


async def _refuse(*_: object) -> None:
    raise ConnectionResetError


@asynccontextmanager
async def publishing(url: str, addresses: Mapping[str, str]) -> AsyncIterator[Publisher]:
    async with Publisher(f"http://{url}", KEY, lambda: addresses) as made:
        yield made


async def published_tags(node: str) -> list[dict[str, str] | None]:
    async with AsyncPublisher(f"http://{node}", api_key=KEY) as publisher:
        history = await publisher.history("links")
    return [publication.tags or None for publication in history.publications]


async def test_nodes_take_turns_and_publications_are_tagged_with_their_node(node: str) -> None:
    async with publishing(node, {"one": node, "two": node}) as made:
        for number in range(4):
            position = await made.publish("links", number)
            assert position is not None
            assert position.offset == number + 1
    assert await published_tags(node) == [{"node": "one"}, {"node": "two"}] * 2


async def test_the_next_node_is_tried_if_one_is_unreachable(node: str, unreachable: str) -> None:
    """The message is published once, with the tag of that node."""
    async with publishing(node, {"stopped": unreachable, "here": node}) as made:
        await made.publish("links", {})
    assert await published_tags(node) == [{"node": "here"}]


async def test_a_publication_over_the_shared_url_has_no_tag(node: str) -> None:
    async with publishing(node, {}) as made:
        await made.publish("links", {})
    assert await published_tags(node) == [None]


async def test_publish_raises_if_no_node_is_reachable(unreachable: str) -> None:
    async with publishing(unreachable, {}) as made:
        with pytest.raises(ServerUnreachable):
            await made.publish("links", {})


async def test_a_refused_publication_is_not_retried(node: str) -> None:
    async with publishing(node, {"one": node, "two": node}) as made:
        with pytest.raises(CallError, match="unknown channel"):
            await made.publish("unknown:channel", {})
