"""The application, put together: its database, what it tells the push server, its routes."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from starlette.routing import Route

from tocsin import TocsinError
from tocsin_demo.announcer import Announce
from tocsin_demo.check_log import CheckLog
from tocsin_demo.checks import Checks
from tocsin_demo.cluster import Cluster
from tocsin_demo.first_links import prepare
from tocsin_demo.links import Links
from tocsin_demo.messages import Messages
from tocsin_demo.publishers import Publishers
from tocsin_demo.store import Store
from tocsin_demo.visitors import Visitors

logger = logging.getLogger(__name__)


@asynccontextmanager
async def application(
    database: Path, push_server: str, api_key: str, token_secret: str, cluster: Cluster
) -> AsyncIterator[list[Route]]:
    """The routes, answering as long as the context lasts. `push_server` is the address of any of its nodes.

    Leaving gives up the checks that still run.
    """
    tables = prepare(database, push_server)
    store = Store(tables)
    visitors = Visitors(token_secret)
    async with (
        Publishers(push_server, api_key, cluster.takers) as publishers,
        Checks(store, CheckLog(tables), announce_with(publishers)) as checks,
    ):
        links = Links(store, announce_with(publishers))
        messages = Messages(visitors, publishers)
        yield [
            *links.routes,
            *checks.routes,
            *visitors.routes,
            *messages.routes,
            *cluster.routes(visitors),
        ]


def announce_with(publishers: Publishers) -> Announce:
    """Tell the push server what has been stored.

    If it cannot be told, the change stands: listeners see the jump in its version with the next one, and ask.
    """

    async def announce(channel: str, news: object) -> None:
        try:
            await publishers.publish(channel, msgspec.to_builtins(news))
        except TocsinError:
            logger.warning("a change could not be told on %s", channel, exc_info=True)

    return announce
