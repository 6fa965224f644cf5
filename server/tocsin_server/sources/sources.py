"""Gives a node the sources that its settings name."""

from __future__ import annotations

from importlib.util import find_spec

from tocsin_server.config.errors import ConfigError
from tocsin_server.config.loading import Settings
from tocsin_server.node.node import Node
from tocsin_server.sources.publish_stream import PublishStreamSource
from tocsin_server.sources.reader import SourceReader
from tocsin_server.sources.source import Source, SourceError


def missing_packages(settings: Settings) -> list[str]:
    """A sentence for each package that the settings need and that is not installed."""
    if settings.outbox.url and find_spec("asyncpg") is None:
        return ["outbox.url is set, but asyncpg is not installed: pip install 'tocsin[server,postgres]'."]
    return []


async def outbox_problems(settings: Settings) -> list[str]:
    """Why the outbox cannot be read now, as a sentence. Empty if it can, or if there is none."""
    if not settings.outbox.url:
        return []
    from tocsin_server.sources.postgres.outbox import Outbox  # noqa: PLC0415

    try:
        async with Outbox(settings.outbox, settings.api.body_limit_bytes).opened() as outbox:
            await outbox.read(())
    except SourceError as error:
        return [f"outbox.url cannot be used: {error}."]
    return []


def add_sources(node: Node) -> None:
    """Let a node read its sources while it runs. Raises ConfigError if a package is missing."""
    for source in _sources(node):
        reader = SourceReader(source, node)
        node.services.add_context(reader.running)
        node.services.add_warnings(reader.warnings)


def _sources(node: Node) -> list[Source]:
    settings = node.settings
    if problems := missing_packages(settings):
        raise ConfigError(*problems)
    found: list[Source] = []
    limit_bytes = settings.api.body_limit_bytes
    if settings.outbox.url:
        # Imported here, because only such a node needs the package.
        from tocsin_server.sources.postgres.outbox import Outbox  # noqa: PLC0415

        found.append(Outbox(settings.outbox, limit_bytes))
    if settings.publish_stream.enabled and node.engine.publish_stream is not None:
        found.append(PublishStreamSource(node.engine.publish_stream, settings.publish_stream, limit_bytes))
    return found
