"""The application: connects the database, the handlers and the publisher, and returns the routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.routing import Route

from tocsin_demo.check_store import CheckStore
from tocsin_demo.checks import Checks
from tocsin_demo.link_store import LinkStore, prepare_database
from tocsin_demo.links import Links
from tocsin_demo.messages import Messages
from tocsin_demo.nodes import Nodes
from tocsin_demo.publishing import Publisher, publish_or_log
from tocsin_demo.visitors import Visitors


@asynccontextmanager
async def application(
    database: Path, push_server: str, api_key: str, token_secret: str, nodes: Nodes
) -> AsyncIterator[list[Route]]:
    """Yield the routes, which work until the context ends. `push_server` is the URL that all nodes share.

    On exit, checks that still run are recorded as failed.
    """
    tables = prepare_database(database, push_server)
    store = LinkStore(tables)
    visitors = Visitors(token_secret)
    async with (
        Publisher(push_server, api_key, nodes.ready_addresses) as publisher,
        Checks(store, CheckStore(tables), publish_or_log(publisher)) as checks,
    ):
        links = Links(store, publish_or_log(publisher))
        messages = Messages(visitors, publisher)
        yield [
            *links.routes,
            *checks.routes,
            *visitors.routes,
            *messages.routes,
            *nodes.routes(visitors),
        ]
