"""Creates the engine that a URL names."""

from __future__ import annotations

from hashlib import blake2b

from tocsin_server.config.event_options import EventOptions
from tocsin_server.config.loading import Settings
from tocsin_server.config.options import EngineOptions
from tocsin_server.engine.engine import Engine
from tocsin_server.engine.memory.engine import MemoryEngine


def digest_of_histories(settings: Settings) -> str:
    """A short digest of which channels keep history. Nodes compare it, because they must agree about that."""
    sections = {"": settings.channels, **settings.namespaces}
    names = sorted(name for name, options in sections.items() if options.keeps_history)
    return blake2b(repr(names).encode(), digest_size=4).hexdigest()


def create_engine(options: EngineOptions, digest: str = "", events: EventOptions | None = None) -> Engine:
    """Create the engine for `options.url`. The caller starts it. `digest` is that of `digest_of_histories`.

    `events` says which lifecycle events are recorded. Without it, none are.
    Raises ValueError if the URL is not valid, with a sentence that shows nothing secret of it.
    """
    if options.is_in_memory:
        return MemoryEngine(events=events)
    # Imported here, because it takes a quarter of a second, which a node with an engine in memory saves.
    from tocsin_server.engine.redis.connections.address import parse_address  # noqa: PLC0415
    from tocsin_server.engine.redis.engine import RedisEngine  # noqa: PLC0415

    return RedisEngine(
        parse_address(options.url),
        options.prefix,
        digest=digest,
        memory_limit=options.memory_limit,
        control_secret=options.control_secret,
        events=events,
    )
