"""`[outbox]` and `[publish_stream]`: where a node reads publications that back ends have written."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from tocsin_server.config.values import ExactString, Limit, Options, PositiveDuration, string_list

_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?")


_FORM = (
    '"postgresql://[USER:PASSWORD@]HOST[:PORT]/DATABASE[?OPTION=VALUE&…]", in whose password "/", "@", "?", '
    '"#", "[" and "]" are percent-encoded'
)


def _postgres_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        for host in parts.netloc.rpartition("@")[2].split(","):
            urlsplit(f"//{host}").port  # noqa: B018 - it raises if the port is no number
    except ValueError:
        raise ValueError(_FORM) from None
    if value and parts.scheme not in ("postgresql", "postgres"):
        raise ValueError(_FORM)
    return value


def _table_name(value: str) -> str:
    if not _TABLE.fullmatch(value):
        raise ValueError('the name of a table, or of a schema and a table, such as "app.tocsin_outbox"')
    return value


Channels = Annotated[tuple[ExactString, ...], BeforeValidator(string_list)]
"""Globs of channel names. Empty: every channel."""


class OutboxOptions(Options):
    """`[outbox]`: a table of PostgreSQL in which back ends write publications, in their own transactions."""

    url: Annotated[ExactString, AfterValidator(_postgres_url)] = Field(default="", repr=False)
    """The database. Empty: there is no outbox."""
    table: Annotated[str, AfterValidator(_table_name)] = "tocsin_outbox"
    channels: Channels = ()
    """Into which a row may publish. Others fail."""
    batch_size: int = Field(default=500, ge=1, le=10_000)
    """How many rows are read at once."""
    poll_interval: PositiveDuration = Field(default=1, le=10)
    """How often the table is read although no transaction has notified the node."""


class PublishStreamOptions(Options):
    """`[publish_stream]`: a stream of the engine's Redis, to which programs add publications with XADD."""

    enabled: bool = False
    channels: Channels = ()
    """Into which an entry may publish. Others fail."""
    batch_size: int = Field(default=500, ge=1, le=10_000)
    """How many entries are read at once."""
    failure_limit: Limit = 10_000
    """How many entries that cannot be published are kept, the newest ones."""
