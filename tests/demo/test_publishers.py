"""A back end that publishes to whichever node answers."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from tests.support.tcp import tcp_server
from tocsin import AsyncPublisher, CallError, ServerUnreachable
from tocsin_demo.publishers import Publishers
from tocsin_server.app import create_app
from tocsin_server.config.loading import Settings
from tocsin_server.config.options import ApiOptions, ChannelOptions, ServerOptions
from tocsin_server.serving.server import serving

KEY = "key"


@pytest.fixture
async def node() -> AsyncIterator[str]:
    """The address of one that keeps logs."""
    settings = Settings(
        server=ServerOptions(port=0, drain_seconds=0),
        api=ApiOptions(keys=(KEY,)),
        channels=ChannelOptions.model_validate({"history_size": 10, "history_ttl": "60s"}),
    )
    async with serving(create_app(settings), settings.server) as server:
        yield server.url.partition("://")[2]


@pytest.fixture
async def nowhere() -> str:
    """An address where nobody listens."""
    async with tcp_server(_refuse) as port:
        return f"127.0.0.1:{port}"


async def _refuse(*_: object) -> None:
    raise ConnectionResetError


@asynccontextmanager
async def publishers(url: str, takers: Mapping[str, str]) -> AsyncIterator[Publishers]:
    async with Publishers(f"http://{url}", KEY, lambda: takers) as made:
        yield made


async def tags(node: str) -> list[dict[str, str] | None]:
    async with AsyncPublisher(f"http://{node}", api_key=KEY) as asking:
        history = await asking.history("links")
    return [publication.tags or None for publication in history.publications]


async def test_each_has_its_turn_and_the_publication_says_whose_it_was(node: str) -> None:
    async with publishers(node, {"one": node, "two": node}) as made:
        for number in range(4):
            position = await made.publish("links", number)
            assert position is not None
            assert position.offset == number + 1
    assert await tags(node) == [{"node": "one"}, {"node": "two"}] * 2


async def test_where_one_does_not_answer_the_next_is_asked(node: str, nowhere: str) -> None:
    """And has the publication, once."""
    async with publishers(node, {"gone": nowhere, "here": node}) as made:
        await made.publish("links", {})
    assert await tags(node) == [{"node": "here"}]


async def test_where_no_name_is_known_nothing_is_said_of_it(node: str) -> None:
    async with publishers(node, {}) as made:
        await made.publish("links", {})
    assert await tags(node) == [None]


async def test_where_nobody_answers_that_is_the_answer(nowhere: str) -> None:
    async with publishers(nowhere, {}) as made:
        with pytest.raises(ServerUnreachable):
            await made.publish("links", {})


async def test_a_refusal_is_not_asked_for_again(node: str) -> None:
    async with publishers(node, {"one": node, "two": node}) as made:
        with pytest.raises(CallError, match="unknown channel"):
            await made.publish("unknown:channel", {})
