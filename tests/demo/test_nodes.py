"""What a node of the demo knows of the others."""

import pytest

from tocsin_demo.ipc import ClusterStatus, NodeReport, NodeStatus
from tocsin_demo.nodes import Nodes


def status(**states: str) -> ClusterStatus:
    """The status of nodes in these states."""
    return ClusterStatus(
        tuple(
            NodeStatus(name, "running", 1, report=NodeReport(name, state, "", 0, {}, 0, 0))
            for name, state in states.items()
        )
    )


@pytest.mark.parametrize(
    ("states", "is_replaced"),
    [
        ({"a": "deaf", "b": "ready"}, True),
        ({"a": "deaf", "b": "deaf"}, False),
        ({"a": "ready", "b": "ready"}, False),  # the supervisor does not know yet that it is deaf
        ({"a": "deaf"}, False),
    ],
)
def test_a_node_is_replaced_once_the_supervisor_knows_that_only_others_are_ready(
    states: dict[str, str], is_replaced: bool
) -> None:
    """Of nodes that become deaf at the same time, one stays on the shared port."""
    nodes = Nodes("a")
    nodes.update(status(**states))
    assert nodes.is_replaced is is_replaced
