"""Each application once for all scenarios, and one browser for all applications."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.guides.applications import GUIDES, Application, Guide, run_application
from tests.support.browser import chromium
from tests.support.timing import SOON


@pytest_asyncio.fixture(
    scope="session",
    loop_scope="session",
    params=[
        pytest.param(guide, id=guide.name, marks=pytest.mark.xdist_group(guide.name)) for guide in GUIDES
    ],
)
async def application(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Application]:
    """The application of a page, made and run as the page says."""
    guide: Guide = request.param
    async with run_application(guide, tmp_path_factory.mktemp(guide.name)) as running:
        yield running


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a Tocsin beside the application where it runs inside."""
    others = [item for item in items if _is_for_others(item)]
    items[:] = [item for item in items if item not in others]
    config.hook.pytest_deselected(items=others)


def _is_for_others(item: pytest.Item) -> bool:
    if item.get_closest_marker("needs_tocsin_beside") is None:
        return False
    assert isinstance(item, pytest.Function)
    guide = item.callspec.params["application"]
    return isinstance(guide, Guide) and guide.is_embedded


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    expect.set_options(timeout=SOON * 1000)
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        await launched.close()
