"""Creates the engine that a URL names."""

from __future__ import annotations

from tocsin_server.config.options import EngineOptions
from tocsin_server.engine.engine import Engine
from tocsin_server.engine.memory.engine import MemoryEngine


def create_engine(options: EngineOptions) -> Engine:
    """Create the engine for `options.url`. The caller starts it.

    Raises ValueError if the URL is not valid, with a sentence that shows nothing secret of it.
    """
    if options.is_in_memory:
        return MemoryEngine()
    # Imported here, because it takes a quarter of a second, which a node with an engine in memory saves.
    from tocsin_server.engine.redis.connections.address import parse_address  # noqa: PLC0415
    from tocsin_server.engine.redis.engine import RedisEngine  # noqa: PLC0415

    return RedisEngine(parse_address(options.url), options.prefix)
