"""Opening an engine by its URL."""

import pytest

from tocsin_server.config.options import EngineOptions
from tocsin_server.engine.factory import create_engine
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.engine.redis.engine import RedisEngine


def test_the_default_is_memory() -> None:
    """So that a node starts without anything else."""
    assert isinstance(create_engine(EngineOptions()), MemoryEngine)


@pytest.mark.parametrize(
    "url", ["redis://h", "rediss://h", "redis+sentinel://h/main", "redis+cluster://h,i", "rediss+cluster://h"]
)
async def test_a_redis_is_an_engine(url: str) -> None:
    """Of the same kind, whichever way leads to it."""
    engine = create_engine(EngineOptions(url=url))
    assert isinstance(engine, RedisEngine)
    await engine.stop()


def test_a_scheme_without_an_engine_is_a_mistake_that_hides_the_url() -> None:
    """The rest of it may hold a password."""
    options = EngineOptions.model_construct(url="carrier://user:secret@host")
    with pytest.raises(
        ValueError, match=r"^engine.url begins with carrier://, but must .* memory:// or redis://\.$"
    ):
        create_engine(options)
