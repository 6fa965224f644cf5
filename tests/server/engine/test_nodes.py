"""Orders, questions and reports travel between nodes, so each is the same after encoding and decoding."""

from typing import Any

import msgspec
import pytest

from tests.server.engine.contract.test_nodes import COMMANDS
from tests.server.engine.recording_handler import RecordingHandler
from tocsin_server.engine.nodes import SurveyRequest

QUESTION = SurveyRequest(True, "chat:*")


@pytest.mark.parametrize(
    "value",
    [*COMMANDS.values(), QUESTION, RecordingHandler("n1").node_info(QUESTION)],
    ids=lambda value: type(value).__name__,
)
def test_what_travels_between_nodes_arrives_as_it_was(value: Any) -> None:
    """Whatever engine carries it may do so in JSON."""
    assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value
