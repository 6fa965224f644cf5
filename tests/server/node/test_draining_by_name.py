"""Draining a node by its uid or name: a name is not unique."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.channel_names import ChannelRules
from tocsin_server.engine.engine import EngineServices
from tocsin_server.engine.nodes import ControlCommand, Drain, NodeInfo, Survey
from tocsin_server.errors import Refused
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.operations import Operations

A = "aaaaaaaa-0000-4000-8000-000000000001"
B = "bbbbbbbb-0000-4000-8000-000000000002"
C = "cccccccc-0000-4000-8000-000000000003"


class Registry:
    """A node registry of three nodes, two of which have the same name."""

    def __init__(self) -> None:
        self.drained: list[str] = []

    async def survey(self, _request: object) -> Survey:
        return Survey([_node(A, "push"), _node(B, "push")], [_node(C, "")])

    async def publish_control(self, command: ControlCommand) -> None:
        assert isinstance(command.event, Drain)
        self.drained.append(command.event.node)


def _node(uid: str, name: str) -> NodeInfo:
    return NodeInfo(uid, name, "1", 0, 0, 0, 0, 0, address=f"{uid[0]}:8000")


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def operations(registry: Registry) -> Operations:
    engine = cast("EngineServices", SimpleNamespace(nodes=registry))
    unlimited: Any = lambda _channel: None  # noqa: E731
    return Operations(engine, ChannelRules(ChannelOptions(), {}), Metrics(), unlimited)


@pytest.mark.parametrize(("name", "uid"), [(A, A), (A[:8], A), (B[:8], B), (C, C)])
async def test_a_node_is_drained_by_its_uid(
    operations: Operations, registry: Registry, name: str, uid: str
) -> None:
    """Or by the digits that `tocsin nodes` shows, also where its name is not unique or not known."""
    await operations.drain(name)
    assert registry.drained == [uid]


async def test_a_name_of_several_nodes_is_refused(operations: Operations, registry: Registry) -> None:
    """The error names them all, and none is drained."""
    with pytest.raises(Refused) as caught:
        await operations.drain("push")
    assert caught.value.refusal.code == 107
    assert str(caught.value) == f"bad request: push names 2 nodes: {A} (a:8000), {B} (b:8000)"
    assert registry.drained == []


async def test_an_unknown_name_is_not_found(operations: Operations, registry: Registry) -> None:
    with pytest.raises(Refused) as caught:
        await operations.drain("other")
    assert caught.value.refusal.code == 104
    assert registry.drained == []
