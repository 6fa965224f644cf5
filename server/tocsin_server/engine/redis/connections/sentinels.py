"""Sentinels: finds the master by a vote, in which the Sentinel that has seen the latest failover wins."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.utils import str_if_bytes

from tocsin_server.engine.redis.connections.connection import CONNECTION_ERRORS, describe

LATE_VOTE_SECONDS = 0.2
"""How long to wait for further votes after the first.

A Sentinel that is frozen must not cause a long delay.
"""


class MasterVote(NamedTuple):
    """One Sentinel's vote. The greatest vote is the newest."""

    epoch: int
    """The epoch of the Sentinel's configuration. Each failover increments it."""
    is_promoted: bool
    """Whether the Sentinel is in a failover, and this server is being promoted."""
    host: str
    port: int


class Sentinels(Sentinel):
    """Asks all Sentinels at once.

    redis-py uses the first answer. A Sentinel that is behind, or in an unfinished failover, names the old
    master. Nodes would continue to use it, and its writes would be lost.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Find the master.

        Raises MasterNotFoundError, with the Sentinels' errors, if none of them names one.
        """
        requests = [asyncio.create_task(self._request_vote(one, service_name)) for one in self.sentinels]
        try:
            votes, errors = await _collect_votes(requests)
        finally:
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
        if not votes:
            why = ", ".join(sorted(errors)) or "they do not know it, or consider it down"
            raise MasterNotFoundError(f"no Sentinel names a master of {service_name}: {why}")
        newest = max(votes)
        return newest.host, newest.port

    async def _request_vote(self, sentinel: Redis, service_name: str) -> MasterVote | None:
        masters: Any = await sentinel.sentinel_masters()
        state = masters.get(service_name)
        address: Any = await sentinel.sentinel_get_master_addr_by_name(service_name)
        if not state or not address:
            return None
        host, port = str_if_bytes(address[0]), address[1]  # redis-py decodes only the state
        is_promoted = (host, port) != (state["ip"], state["port"])
        if not is_promoted and not self.check_master_state(state, service_name):
            return None
        return MasterVote(int(state["config-epoch"]), is_promoted, host, port)


async def _collect_votes(
    requests: Sequence[asyncio.Task[MasterVote | None]],
) -> tuple[list[MasterVote], set[str]]:
    """Collect the votes that come in time, and the errors of Sentinels that could not be reached."""
    votes: list[MasterVote] = []
    errors: set[str] = set()
    pending = set(requests)
    while pending:
        timeout = LATE_VOTE_SECONDS if votes else None
        done, pending = await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            break
        for request in done:
            try:
                if vote := request.result():
                    votes.append(vote)
            except CONNECTION_ERRORS as error:
                errors.add(describe(error))
    return votes, errors
