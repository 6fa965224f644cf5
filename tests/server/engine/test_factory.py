"""The factory: the engine for each kind of URL."""

import pytest

from tocsin_server.config.options import EngineOptions
from tocsin_server.engine.factory import create_engine
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.engine.redis.engine import RedisEngine


def test_the_memory_engine_is_the_default() -> None:
    """A node starts without any other service."""
    assert isinstance(create_engine(EngineOptions()), MemoryEngine)


@pytest.mark.parametrize(
    "url", ["redis://h", "rediss://h", "redis+sentinel://h/main", "redis+cluster://h,i", "rediss+cluster://h"]
)
async def test_every_redis_url_creates_a_redis_engine(url: str) -> None:
    """The deployments differ; the engine is the same."""
    engine = create_engine(EngineOptions(url=url))
    assert isinstance(engine, RedisEngine)
    await engine.stop()


def test_an_unknown_scheme_is_an_error_that_hides_the_url() -> None:
    """The rest of the URL may contain a password."""
    options = EngineOptions.model_construct(url="carrier://user:secret@host")
    with pytest.raises(
        ValueError, match=r"^engine.url begins with carrier://, but must .* memory:// or redis://\.$"
    ):
        create_engine(options)
