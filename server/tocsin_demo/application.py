"""The application, put together: its database, what it tells the push server, its routes."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from starlette.routing import Route

from tocsin import AsyncPublisher, TocsinError
from tocsin_demo.announcer import Announce
from tocsin_demo.check_log import CheckLog
from tocsin_demo.checks import Checks
from tocsin_demo.cluster import Cluster, Survey
from tocsin_demo.database import Database
from tocsin_demo.links import Links
from tocsin_demo.messages import Messages
from tocsin_demo.store import Store
from tocsin_demo.visitors import Visitors

FIRST_LINKS = (
    ("Is this node ready?", "/health/ready"),
    ("The HTTP API, described", "/api/openapi.json"),
    ("What this node counts", "/metrics"),
)

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
        AsyncPublisher(push_server, api_key=api_key) as publisher,
        Checks(store, CheckLog(tables), announce_with(publisher)) as checks,
    ):
        survey = Survey(publisher)
        links = Links(store, announce_with(publisher))
        messages = Messages(visitors, publisher)
        try:
            yield [
                *links.routes,
                *checks.routes,
                *visitors.routes,
                *messages.routes,
                *cluster.routes(survey, visitors),
            ]
        finally:
            await survey.stop()


def announce_with(publisher: AsyncPublisher) -> Announce:
    """Tell the push server what has been stored.

    If it cannot be told, the change stands: listeners see the jump in its version with the next one, and ask.
    """

    async def announce(channel: str, news: object) -> None:
        try:
            await publisher.publish(channel, msgspec.to_builtins(news))
        except TocsinError:
            logger.warning("a change could not be told on %s", channel, exc_info=True)

    return announce


def prepare(database: Path, push_server: str) -> Database:
    """The database; a new one begins with addresses that a check can reach without leaving this machine.

    Where several processes will share it, do this before any of them starts.
    """
    tables = Database(database)
    store = Store(tables)
    if store.changes().version == 0:
        for title, path in FIRST_LINKS:
            store.add(push_server + path, title)
    return tables
