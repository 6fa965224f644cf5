"""Opening an engine: which one a URL means."""

from __future__ import annotations

from tocsin_server.config.options import EngineOptions
from tocsin_server.engine.engine import Engine
from tocsin_server.engine.memory.engine import MemoryEngine


def create_engine(options: EngineOptions) -> Engine:
    """The engine at `options.url`, not yet started.

    Raises ValueError, with a sentence that shows no more of the URL than its scheme, if there is none for it.
    """
    scheme = options.url.partition("://")[0]
    match scheme:
        case "memory":
            return MemoryEngine()
        case "redis" | "rediss" | "redis+sentinel" | "redis+cluster" | "rediss+cluster":
            # Here, since it takes a quarter of a second, which a node alone need not wait.
            from tocsin_server.engine.redis.connections.address import parse_address  # noqa: PLC0415
            from tocsin_server.engine.redis.engine import RedisEngine  # noqa: PLC0415

            return RedisEngine(parse_address(options.url), options.prefix)
        case _:
            raise ValueError(
                f"engine.url begins with {scheme}://, but must begin with memory:// or redis://."
            )
