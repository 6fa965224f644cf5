"""The SDKs and packages under test, ready to be driven."""

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

import pytest

from tests.conformance.javascript_driver import SCRIPTS
from tests.conformance.sdks.centrifuge_js import centrifuge_js
from tests.conformance.sdks.centrifuge_python import centrifuge_python
from tests.conformance.sdks.contract import Sdk
from tests.support.api import Api
from tests.support.configs import FEW_CHANNELS
from tests.support.server import Server, run_server
from tests.support.wire_client import connect_wire

SDKS: dict[str, Callable[[], AbstractAsyncContextManager[Sdk]]] = {
    "centrifuge-python": centrifuge_python,
    "centrifuge-js": centrifuge_js,
}


class NewSdk(Protocol):
    """Creates one more client of the SDK under test."""

    async def __call__(self) -> Sdk: ...


@pytest.fixture(scope="session")
def node_modules() -> None:
    """Install the npm packages beside the scripts that import them, unless they are there."""
    if not (SCRIPTS / "node_modules").is_dir():
        subprocess.run([SCRIPTS / "install"], check=True)


@pytest.fixture(scope="session")
def few_channels_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a limit of ten channels, and a personal channel for each user."""
    with run_server(FEW_CHANNELS, tmp_path_factory.mktemp("few-channels")) as running:
        yield running


@pytest.fixture
async def other_clients_are_unharmed(
    server: Server, api: Api, channel: Callable[[str], str]
) -> AsyncIterator[None]:
    """After the test, an old and a new client receive a publication, and the server logged no traceback."""
    news = channel("open")
    async with connect_wire(server) as old:
        await old.call("subscribe", channel=news)
        yield
        async with connect_wire(server) as new:
            await new.call("subscribe", channel=news)
            await api.publish(news, "still here")
            for wire in (old, new):
                assert (await wire.push("pub", news))["data"] == "still here"
    assert "Traceback" not in server.stderr, server.stderr


@pytest.fixture(params=SDKS)
async def new_sdk(request: pytest.FixtureRequest) -> AsyncIterator[NewSdk]:
    """For tests with several clients. Each SDK passes the same tests."""
    if request.param == "centrifuge-js":
        request.getfixturevalue("node_modules")
    async with AsyncExitStack() as clients:

        async def new() -> Sdk:
            return await clients.enter_async_context(SDKS[request.param]())

        yield new


@pytest.fixture
async def sdk(new_sdk: NewSdk) -> Sdk:
    return await new_sdk()
