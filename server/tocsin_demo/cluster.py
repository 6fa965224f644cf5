"""The nodes as a visitor sees and troubles them; only the demo has this.

| request                          | answers                                                                |
|----------------------------------|------------------------------------------------------------------------|
| `GET /demo/nodes`                | 200 {nodes, incidents, told_by, now}: wire.Member, incidents.Incident  |
| `POST /demo/nodes/{name}/kill`   | 202: the process is killed (SIGKILL); another takes its place          |
| `POST /demo/nodes/{name}/drain`  | 202: it is told to leave (SIGTERM); another takes its place            |
| `POST /demo/nodes/{name}/deafen` | 202: for some seconds it hears nothing that Redis announces            |
| `POST /demo/nodes/{name}/heal`   | 202: it hears again                                                    |

Besides: 401 nobody we know, 404 no such node or nobody who could do it, 409 it does not run.
"""

from collections.abc import Callable

import msgspec
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tocsin_demo.answers import RefusalError, answer, resource
from tocsin_demo.incidents import Incident
from tocsin_demo.place import milliseconds
from tocsin_demo.visitors import Visitors
from tocsin_demo.wire import Deed, Member, Roster, Wish


class View(msgspec.Struct, frozen=True):
    """All nodes. `told_by` is the one that answers, `now` when it did, in milliseconds since 1970."""

    nodes: tuple[Member, ...]
    incidents: tuple[Incident, ...]
    told_by: str
    now: float


class Cluster:
    """What this node knows of its neighbours, and how it passes a visitor's wish to the supervisor.

    Without a supervisor nothing can be wished.
    """

    def __init__(self, name: str, wish: Callable[[Wish], None] | None = None) -> None:
        self.name = name
        self._wish = wish
        self._roster = Roster((Member(name, "running", 0),))

    def learn(self, roster: Roster) -> None:
        """The supervisor says how it stands with all of them."""
        self._roster = roster

    def takers(self) -> dict[str, str]:
        """The nodes that can do their work, with the address of each."""
        return {member.name: member.address for member in self._roster.members if member.is_ready}

    @property
    def has_other_takers(self) -> bool:
        """Whether somebody else can do this node's work."""
        return bool(self.takers().keys() - {self.name})

    def routes(self, visitors: Visitors) -> list[Route]:
        """Anybody may look; only `visitors` may trouble nodes."""

        async def show(_request: Request) -> Response:
            return answer(View(self._roster.members, self._roster.incidents, self.name, milliseconds()))

        def doing(deed: Deed) -> Route:
            async def do(request: Request) -> Response:
                visitors.of(request)
                return self._take(Wish(deed, request.path_params["name"]))

            return resource(f"/demo/nodes/{{name}}/{deed}", POST=do)

        deeds: tuple[Deed, ...] = ("kill", "drain", "deafen", "heal")
        return [resource("/demo/nodes", GET=show), *map(doing, deeds)]

    def _take(self, wish: Wish) -> Response:
        """Done once the answer is on its way, for it may be this very node that goes."""
        known = {member.name: member for member in self._roster.members}
        pass_on = self._wish
        if pass_on is None or wish.name not in known:
            raise RefusalError(404, "not_found", "there is no such node that could be troubled")
        if known[wish.name].condition != "running":
            raise RefusalError(409, "not_running", f"{wish.name} is {known[wish.name].condition}")

        async def do() -> None:  # not in a thread, as a plain function would be
            pass_on(wish)

        response = answer(wish, 202)
        response.background = BackgroundTask(do)
        return response
