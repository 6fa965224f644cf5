"""Fixtures for the tests of the memory engine: its time is virtual."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

import pytest

from tests.server.engine.recording_handler import RecordingHandler
from tests.server.engine.virtual_time import VirtualTime
from tocsin_server.engine.memory.broker import MemoryBroker
from tocsin_server.engine.memory.engine import MemoryEngine


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()


@pytest.fixture
async def engine(time: VirtualTime) -> AsyncIterator[MemoryEngine]:
    engine = MemoryEngine(clock=time.clock, call_later=time.call_later, random=Random(1))
    await engine.start(RecordingHandler())
    yield engine
    await engine.stop()


@pytest.fixture
def broker(engine: MemoryEngine) -> MemoryBroker:
    return engine.broker
