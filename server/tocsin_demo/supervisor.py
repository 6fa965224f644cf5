"""Runs several nodes as processes: starts, disturbs and restarts them, and stops them at the end.

starting --> running --> draining --> ended --> starting …
                `---------------------^   (killed)
"""

import asyncio
import contextlib
import signal
import time
from asyncio import StreamReader
from asyncio.subprocess import Process
from typing import Literal, cast

import msgspec

from tocsin_demo.incidents import IncidentLog
from tocsin_demo.ipc import Action, ClusterStatus, Listening, NodeCommand, NodeConfig, NodeReport, NodeStatus
from tocsin_demo.lease_watcher import EXPIRE_SECONDS, LeaseWatcher
from tocsin_demo.node_process import NodeProcess, milliseconds
from tocsin_demo.redis_proxy import redis_proxy
from tocsin_demo.redis_server import RedisServer
from tocsin_demo.settings import DemoConfig

RESTART_AFTER_KILL_SECONDS = 5.0
"""Longer than a lease lives, so that the page shows the lease expire before the name is used again."""

RESTART_AFTER_DRAIN_SECONDS = 1.5
"""A node that drained has removed its lease itself."""

DEAF_SECONDS = 8.0
"""How long a node is deafened. The node notices after 3 seconds."""

_decode = msgspec.json.Decoder(Listening | NodeReport | NodeCommand).decode


class StartError(Exception):
    """A node ended before it listened for the first time. Its own message is on standard error."""


class Supervisor:
    """The nodes `node-1` to `node-COUNT` of one demo. After `run` is cancelled, no process is left.

    The mutable state is in the node processes, the incident log and `is_ready`. Only this class changes it,
    in synchronous methods, and `_broadcast` follows each change.
    """

    def __init__(self, config: DemoConfig, count: int, log_level: str) -> None:
        self.config = config
        self._log_level = log_level
        self._nodes = {f"node-{number}": NodeProcess(f"node-{number}") for number in range(1, count + 1)}
        self._incidents = IncidentLog(time.time)
        self.is_ready = asyncio.Event()

    @property
    def nodes(self) -> tuple[NodeStatus, ...]:
        """The status of each node."""
        return tuple(node.status for node in self._nodes.values())

    async def run(self, server: RedisServer) -> None:
        """Start every node with a proxy of its own, and restart it when it ends. Raises StartError."""
        async with contextlib.AsyncExitStack() as stack:
            leases = await stack.enter_async_context(LeaseWatcher(server.url))
            for node in self._nodes.values():
                node.proxy = await stack.enter_async_context(redis_proxy(server.port))
            try:
                async with asyncio.TaskGroup() as tasks:
                    for node in self._nodes.values():
                        tasks.create_task(self._supervise(node, server, leases))
            except* StartError as group:
                raise group.exceptions[0] from None

    def kill_all(self) -> None:
        """Kill every node process without draining."""
        for node in self._nodes.values():
            node.signal(signal.SIGKILL)

    async def _supervise(self, node: NodeProcess, server: RedisServer, leases: LeaseWatcher) -> None:
        engine = server.url if node.proxy is None else server.url_at(node.proxy.port)
        config = NodeConfig(node.name, msgspec.structs.replace(self.config, engine=engine), self._log_level)
        while True:
            async with node.running(config) as process:
                self._broadcast()
                async for line in cast(StreamReader, process.stdout):
                    self._on_message(node, _decode(line))
                await process.wait()
            if not self.is_ready.is_set():
                raise StartError(f"{node.name} ended before it listened.")
            await self._wait_for_restart(node, process, leases)

    async def _wait_for_restart(self, node: NodeProcess, process: Process, leases: LeaseWatcher) -> None:
        """Record that the process ended, and wait before the next one. Meanwhile, watch its lease."""
        if not node.is_stop_requested:
            self._incidents.begin(node.name, "end")
        uid = "" if node.report is None else node.report.uid
        has_drained = process.returncode == 0
        pause = RESTART_AFTER_DRAIN_SECONDS if has_drained else RESTART_AFTER_KILL_SECONDS
        node.condition, node.address, node.report = "ended", "", None
        node.restarts_at = milliseconds(pause)
        node.lease_expires_by = 0 if has_drained else milliseconds(EXPIRE_SECONDS)
        self._restore(node)
        if has_drained:
            self._incidents.add_step(node.name, "stopped")
        self._broadcast()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(pause))
            if uid and not has_drained:
                tasks.create_task(self._watch_lease(node, uid, leases))

    async def _watch_lease(self, node: NodeProcess, uid: str, leases: LeaseWatcher) -> None:
        if await leases.wait_until_expired(uid):
            self._incidents.add_step(node.name, "expired")
        node.lease_expires_by = 0
        self._broadcast()

    # --------------------------------------------------------------------------------- messages of the nodes

    def _on_message(self, node: NodeProcess, message: Listening | NodeReport | NodeCommand) -> None:
        match message:
            case NodeCommand(action, name):
                self._execute(action, name)
            case NodeReport():
                self._on_report(node, message)
            case Listening(address):
                node.address = address
                node.condition = "running"
                self._incidents.add_step(node.name, "restarted")
                if all(each.condition == "running" for each in self._nodes.values()):
                    self.is_ready.set()
        self._broadcast()

    def _on_report(self, node: NodeProcess, report: NodeReport) -> None:
        if report.state == "deaf":
            self._incidents.add_step(node.name, "deaf", report.unready_reason)
        elif node.report is not None and node.report.state == "deaf":
            self._incidents.add_step(node.name, "ready")
        node.report = report

    def _broadcast(self) -> None:
        """Send the status of all nodes to every node."""
        status = ClusterStatus(self.nodes, self._incidents.incidents)
        for node in self._nodes.values():
            node.send(status)

    # -------------------------------------------------------------------------------- commands of visitors

    def _execute(self, action: Action, name: str) -> None:
        node = self._nodes.get(name)
        if node is None or node.condition == "ended":
            return
        match action:
            case "kill":
                self._stop(node, action, signal.SIGKILL)
            case "drain" if node.condition == "running":
                node.condition = "draining"
                self._stop(node, action, signal.SIGTERM)
            case "deafen" if not node.deaf_until:
                self._incidents.begin(node.name, action)
                self._deafen(node)
            case "restore":
                self._restore(node)

    def _stop(self, node: NodeProcess, action: Literal["kill", "drain"], number: signal.Signals) -> None:
        self._incidents.begin(node.name, action)
        node.is_stop_requested = True
        node.signal(number)

    def _deafen(self, node: NodeProcess) -> None:
        """Drop what Redis publishes to this node. Its pipeline works: it can publish and renew its lease."""
        if node.proxy is not None:
            node.proxy.drop_pubsub()
            node.deaf_until = milliseconds(DEAF_SECONDS)
            node.restore_timer = asyncio.get_running_loop().call_later(DEAF_SECONDS, self._restore, node)

    def _restore(self, node: NodeProcess) -> None:
        if node.proxy is not None and node.restore_timer is not None:
            node.restore_timer.cancel()
            node.restore_timer, node.deaf_until = None, 0
            node.proxy.restore()
            self._incidents.add_step(node.name, "restored")
            self._broadcast()
