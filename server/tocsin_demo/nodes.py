"""The REST resource `/demo/nodes`: the status of the nodes, and commands that disturb them.

| request                           | response                                                              |
|-----------------------------------|-----------------------------------------------------------------------|
| `GET /demo/nodes`                 | 200 {nodes, incidents, answered_by, now}                              |
| `POST /demo/nodes/{name}/kill`    | 202: the process is killed (SIGKILL); another one takes its name      |
| `POST /demo/nodes/{name}/drain`   | 202: the node drains (SIGTERM); another process takes its name        |
| `POST /demo/nodes/{name}/deafen`  | 202: for some seconds the node receives nothing that Redis publishes  |
| `POST /demo/nodes/{name}/restore` | 202: the node receives again                                          |

Errors: 401 no valid cookie, 404 no such node or no supervisor, 409 the node does not run.
"""

from collections.abc import Callable

import msgspec
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tocsin_demo.incidents import Incident
from tocsin_demo.ipc import Action, ClusterStatus, NodeCommand, NodeStatus
from tocsin_demo.node_process import milliseconds
from tocsin_demo.responses import HttpError, json_response, resource
from tocsin_demo.visitors import Visitors


class NodesView(msgspec.Struct, frozen=True):
    """All nodes. `answered_by` is the node that answers; `now` is its clock in milliseconds since 1970."""

    nodes: tuple[NodeStatus, ...]
    incidents: tuple[Incident, ...]
    answered_by: str
    now: float


class Nodes:
    """Holds the latest status of all nodes, and passes commands of visitors to the supervisor.

    Without a supervisor (`send_command` is None), every command is answered with 404. The mutable state is
    the status; only `update` changes it.
    """

    def __init__(self, name: str, send_command: Callable[[NodeCommand], None] | None = None) -> None:
        self.name = name
        self._send_command = send_command
        self._status = ClusterStatus((NodeStatus(name, "running", 0),))

    def update(self, status: ClusterStatus) -> None:
        """Store the status that the supervisor sent."""
        self._status = status

    def ready_addresses(self) -> dict[str, str]:
        """Return the address of each node that is ready, by name."""
        return {node.name: node.address for node in self._status.nodes if node.is_ready}

    @property
    def is_replaced(self) -> bool:
        """Whether another node is ready, and the supervisor knows that this one is not.

        Of nodes that stop being ready at the same time, each may still take the others for ready. The last
        one of which the supervisor learns finds no other.
        """
        ready = self.ready_addresses()
        return bool(ready) and self.name not in ready

    def routes(self, visitors: Visitors) -> list[Route]:
        """Reading is open to every client; commands need a visitor's cookie."""

        async def show(_request: Request) -> Response:
            view = NodesView(self._status.nodes, self._status.incidents, self.name, milliseconds())
            return json_response(view)

        def command_route(action: Action) -> Route:
            async def command(request: Request) -> Response:
                visitors.require(request)
                return self._accept(NodeCommand(action, request.path_params["name"]))

            return resource(f"/demo/nodes/{{name}}/{action}", POST=command)

        actions: tuple[Action, ...] = ("kill", "drain", "deafen", "restore")
        return [resource("/demo/nodes", GET=show), *map(command_route, actions)]

    def _accept(self, command: NodeCommand) -> Response:
        """Respond first and send the command afterwards: it may end this very process."""
        nodes = {node.name: node for node in self._status.nodes}
        send_command = self._send_command
        if send_command is None or command.name not in nodes:
            raise HttpError(404, "not_found", "there is no node of this name that the demo can control")
        if nodes[command.name].condition != "running":
            raise HttpError(409, "not_running", f"{command.name} is {nodes[command.name].condition}")

        async def send() -> None:  # a plain function would run in a thread
            send_command(command)

        response = json_response(command, 202)
        response.background = BackgroundTask(send)
        return response
