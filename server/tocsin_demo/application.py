"""The application: connects the database, the handlers and the publisher, and returns the routes."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.routing import Route

from tocsin_demo.check_store import CheckStore
from tocsin_demo.checks import Checks
from tocsin_demo.link_store import LinkStore, prepare_database
from tocsin_demo.links import Links
from tocsin_demo.messages import Messages
from tocsin_demo.nodes import Nodes
from tocsin_demo.publishing import Publisher, publish_or_log
from tocsin_demo.settings import DemoConfig
from tocsin_demo.visit_store import VisitStore
from tocsin_demo.visitors import Visitors
from tocsin_demo.visits import Visits


@dataclass(frozen=True)
class Application:
    """The routes, and the handler of lifecycle events."""

    routes: Sequence[Route]
    visits: Visits


@asynccontextmanager
async def application(config: DemoConfig, nodes: Nodes) -> AsyncIterator[Application]:
    """Yield the application, which works until the context ends.

    On exit, checks that still run are recorded as failed.
    """
    tables = prepare_database(Path(config.database), config.url)
    store = LinkStore(tables)
    visitors = Visitors(config.token_secret)
    async with (
        Publisher(config.url, config.api_key, nodes.ready_addresses) as publisher,
        Checks(store, CheckStore(tables), publish_or_log(publisher)) as checks,
    ):
        links = Links(store, publish_or_log(publisher))
        messages = Messages(visitors, publisher)
        visits = Visits(VisitStore(tables), publish_or_log(publisher, logging.INFO))
        routes = [
            *links.routes,
            *checks.routes,
            *visitors.routes,
            *messages.routes,
            *visits.routes,
            *nodes.routes(visitors),
        ]
        yield Application(routes, visits)
