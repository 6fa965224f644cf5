"""Fixtures of the client's tests."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.client.small_server import SmallServer, small_server
from tocsin import backoff


@pytest.fixture
async def small(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SmallServer]:
    """A small server; clients come back to it quickly, and every task they had is gone at the end."""
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.02)
    before = asyncio.all_tasks()
    async with small_server() as server:
        yield server
    await asyncio.sleep(0)
    here = {asyncio.current_task()}
    left = {task for task in asyncio.all_tasks() - before - here if not task.done()}
    assert not left, f"tasks left behind: {left}"
