"""The refusal log of a node: what was refused, to whom, and by which limit. The module has no state."""

from __future__ import annotations

from typing import Any

from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.connection import Connection
from tocsin_server.node.current_step import CurrentStep
from tocsin_server.node.sampled_log import SampledLog


class RefusalLog:
    """Writes lines of the sampled log that name the client of the current step, if there is one."""

    def __init__(self, sampled_log: SampledLog, metrics: Metrics, step: CurrentStep) -> None:
        self._sampled_log = sampled_log
        self._metrics = metrics
        self._step = step

    def log_refusal(self, event: str, **fields: Any) -> None:
        """Write a line of one kind, or count it if there are too many of them."""
        connection = self._step.connection
        if connection is not None:
            fields = {**client_fields(connection), **fields}
        self._sampled_log.write(event, **fields)

    def limit_reached(self, limit: str, **fields: object) -> None:
        """Count and log that a limit refused something. `limit` is its key in the configuration."""
        self._metrics.limits_reached.add(limit)
        self.log_refusal("limit_reached", limit=limit, **fields)

    def client_limit_reached(self, client: str, limit: str) -> None:
        """The same for a client."""
        self.limit_reached(limit, client=client)

    def client_refused(self, client: str, subject: str, reason: str) -> None:
        """Log why something of a client was refused, for the operator."""
        self.log_refusal("client_refused", client=client, subject=subject, error=reason)


def client_fields(connection: Connection) -> dict[str, str]:
    """Return the fields of a log line that name a client."""
    session = connection.session
    return {
        "client": session.client,
        "user": session.user,
        "address": connection.address,
        "transport": connection.transport_name,
    }
