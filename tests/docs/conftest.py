"""One server for all pages, configured as docs/protocol.md and docs/tokens.md say."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.docs.examples import merged, page, shell
from tests.support.browser import chromium
from tests.support.server import Server, run_server
from tests.support.timing import SOON


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples of docs/tokens.md run: it holds their files and the two keys of the page."""
    made = tmp_path_factory.mktemp("tokens")
    tokens = page("tokens.md")
    tokens.write_files(made)
    (keys,) = [example for example in tokens.of("sh") if "openssl" in example.text]
    asyncio.run(shell(keys.text, made))
    return made


@pytest.fixture(scope="session")
def documented(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that the pages describe."""
    config = merged(page("protocol.md").config, page("tokens.md").config)
    del config["issuers"]  # their addresses are on the internet; test_identity_providers.py has its own
    config["client"]["token_public_key"] = (folder / "public.pem").read_text()
    with run_server(config, tmp_path_factory.mktemp("documented")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all pages; its tests run in the session's event loop."""
    expect.set_options(timeout=SOON * 1000)
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        await launched.close()
