"""The nodes as a visitor sees and troubles them; only the demo has this.

| request                         | answers                                                                  |
|---------------------------------|--------------------------------------------------------------------------|
| `GET /demo/nodes`               | 200 {nodes: [{name, condition, pid, address, report}], told_by, trouble} |
| `POST /demo/nodes/{name}/kill`  | 202: its supervisor kills the process (SIGKILL); another takes its place |
| `POST /demo/nodes/{name}/drain` | 202: it is told to leave (SIGTERM); another takes its place              |

Besides: 401 nobody we know, 404 no such node or nobody who could do it, 409 it does not run.
"""

import asyncio
from collections.abc import Callable

import msgspec
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tocsin import AsyncPublisher, TocsinError
from tocsin_demo.answers import RefusalError, answer, resource
from tocsin_demo.visitors import Visitors
from tocsin_demo.wire import Deed, Member, Roster, Wish

SURVEY_SECONDS = 0.5
"""How long an answer waits for the nodes. One that died is waited for until its lease has lapsed."""


class Report(msgspec.Struct, frozen=True):
    """What a node says of itself in the HTTP API's `info`."""

    name: str
    state: str = ""
    num_clients: int = 0
    num_channels: int = 0
    uptime: int = 0
    memory_bytes: int = 0
    lag_seconds: float = 0


class Seen(msgspec.Struct, frozen=True):
    """One node: its process as the supervisor sees it, and what it says itself, if it does."""

    name: str
    condition: str
    pid: int
    address: str
    report: Report | None


class View(msgspec.Struct, frozen=True):
    """All of them. `told_by` is the node that answers; `trouble` says why reports are missing."""

    nodes: list[Seen]
    told_by: str
    trouble: str = ""


Outcome = tuple[list[Report], str]  # what nodes said, and why they did not


class Survey:
    """Asks all nodes through the HTTP API. Who asks while an answer is under way waits for that one.

    Owned by whoever runs the application: `stop` gives up what is under way.
    """

    def __init__(self, publisher: AsyncPublisher) -> None:
        self._publisher = publisher
        self._asking: asyncio.Task[Outcome] | None = None

    async def reports(self) -> Outcome:
        """What the nodes said, or nothing and why not."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        try:
            async with asyncio.timeout(SURVEY_SECONDS):
                return await asyncio.shield(self._asking)
        except TimeoutError:
            return [], "a node does not answer, and its lease has not lapsed yet"

    async def stop(self) -> None:
        """Nobody waits any more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))

    async def _ask(self) -> Outcome:
        try:
            return msgspec.convert(await self._publisher.info(), list[Report]), ""
        except TocsinError as error:
            return [], str(error)


class Cluster:
    """What this node knows of its neighbours, and how it passes a visitor's wish to the supervisor.

    Without a supervisor nothing can be wished.
    """

    def __init__(self, name: str, wish: Callable[[Wish], None] | None = None) -> None:
        self._name = name
        self._wish = wish
        self._members: tuple[Member, ...] = (Member(name, "running", 0),)

    def learn(self, roster: Roster) -> None:
        """The supervisor says who is there."""
        self._members = roster.members

    def routes(self, survey: Survey, visitors: Visitors) -> list[Route]:
        """Anybody may look; only `visitors` may trouble nodes."""

        async def show(_request: Request) -> Response:
            return answer(await self._view(survey))

        def doing(deed: Deed) -> Route:
            async def do(request: Request) -> Response:
                visitors.of(request)
                return self._take(Wish(deed, request.path_params["name"]))

            return resource(f"/demo/nodes/{{name}}/{deed}", POST=do)

        return [resource("/demo/nodes", GET=show), doing("kill"), doing("drain")]

    def _take(self, wish: Wish) -> Response:
        """Done once the answer is on its way, for it may be this very node that goes."""
        known = {member.name: member for member in self._members}
        if self._wish is None or wish.name not in known:
            raise RefusalError(404, "not_found", "there is no such node that could be troubled")
        if known[wish.name].condition != "running":
            raise RefusalError(409, "not_running", f"{wish.name} is {known[wish.name].condition}")
        response = answer(wish, 202)
        response.background = BackgroundTask(self._wish, wish)
        return response

    async def _view(self, survey: Survey) -> View:
        reports, trouble = await survey.reports()
        by_name = {report.name: report for report in reports}
        nodes = [
            Seen(one.name, one.condition, one.pid, one.address, by_name.get(one.name))
            for one in self._members
        ]
        return View(nodes, self._name, trouble)
