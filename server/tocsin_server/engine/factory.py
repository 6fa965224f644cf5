"""Creates the engine that a URL names."""

from __future__ import annotations

from tocsin_server.config.options import EngineOptions
from tocsin_server.engine.engine import Engine
from tocsin_server.engine.memory.engine import MemoryEngine


def create_engine(options: EngineOptions) -> Engine:
    """Create the engine for `options.url`. The caller starts it.

    Raises ValueError for an unknown scheme. The message shows only the scheme, since the rest of the URL may
    contain a password.
    """
    scheme = options.url.partition("://")[0]
    match scheme:
        case "memory":
            return MemoryEngine()
        case "redis" | "rediss" | "redis+sentinel" | "redis+cluster" | "rediss+cluster":
            # Imported here because it takes a quarter of a second, which the memory engine does not need.
            from tocsin_server.engine.redis.connections.address import parse_address  # noqa: PLC0415
            from tocsin_server.engine.redis.engine import RedisEngine  # noqa: PLC0415

            return RedisEngine(parse_address(options.url), options.prefix)
        case _:
            raise ValueError(
                f"engine.url begins with {scheme}://, but must begin with memory:// or redis://."
            )
