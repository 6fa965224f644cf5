"""The types of the HTTP API agree with the types of the engine."""

from msgspec.structs import fields

from tocsin_server.api.types import NodeStatus
from tocsin_server.engine.nodes import NodeInfo


def test_a_node_status_has_every_member_of_a_node_info() -> None:
    """The one exception is the list of channels, which the method `channels` returns."""
    engine = [field.name for field in fields(NodeInfo) if field.name != "channels"]
    assert [field.name for field in fields(NodeStatus)] == engine
