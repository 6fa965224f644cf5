"""Control commands, survey requests and node infos survive encoding and decoding."""

from typing import Any

import msgspec
import pytest

from tests.server.engine.contract.test_nodes import COMMANDS
from tests.server.engine.recording_handler import node_info
from tocsin_server.engine.nodes import SurveyRequest

REQUEST = SurveyRequest(True, "chat:*")


@pytest.mark.parametrize(
    "value",
    [*COMMANDS.values(), REQUEST, node_info("n1")],
    ids=lambda value: type(value).__name__,
)
def test_messages_between_nodes_survive_json(value: Any) -> None:
    """An engine may send them as JSON."""
    assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value
