"""The engine that a URL names."""

import pytest

from tocsin_server.config.options import EngineOptions
from tocsin_server.engine.factory import create_engine
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.engine.redis.engine import RedisEngine


def test_the_default_engine_is_in_memory() -> None:
    """A node starts without any other server."""
    assert isinstance(create_engine(EngineOptions()), MemoryEngine)


@pytest.mark.parametrize(
    "url", ["redis://h", "rediss://h", "redis+sentinel://h/main", "redis+cluster://h,i", "rediss+cluster://h"]
)
async def test_every_redis_url_names_the_redis_engine(url: str) -> None:
    """One engine serves every Redis deployment."""
    engine = create_engine(EngineOptions(url=url))
    assert isinstance(engine, RedisEngine)
    await engine.stop()


def test_a_url_without_an_engine_is_refused_and_not_shown() -> None:
    """The URL may hold a password."""
    options = EngineOptions.model_construct(url="carrier://user:secret@host")
    with pytest.raises(ValueError, match=r'^engine\.url must be "memory://", "redis://') as caught:
        create_engine(options)
    assert "secret" not in str(caught.value)
