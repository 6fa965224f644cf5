"""Fixtures of the client's tests."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.client.scripted_server import ScriptedServer, scripted_server
from tocsin import backoff


@pytest.fixture
async def scripted(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedServer]:
    """A scripted server. Clients reconnect to it quickly, and must leave no task behind."""
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.02)
    before = asyncio.all_tasks()
    async with scripted_server() as server:
        yield server
    await asyncio.sleep(0)
    this_task = {asyncio.current_task()}
    left = {task for task in asyncio.all_tasks() - before - this_task if not task.done()}
    assert not left, f"tasks left behind: {left}"
