"""The life of an engine, from start to stop."""

import pytest

from tests.server.engine.contract.harness import HISTORY, Harness, Node, publication
from tests.server.engine.contract.test_nodes import COMMANDS
from tests.server.engine.contract.test_subscribing import JOIN
from tests.server.engine.recording_handler import RecordingHandler
from tocsin_server.engine.nodes import SurveyRequest
from tocsin_server.errors import EngineError


async def test_a_running_engine_is_ready(node: Node) -> None:
    """It can publish and receive."""
    assert not node.engine.unready_reason


async def test_an_engine_that_is_not_running_has_an_unready_reason(harness: Harness) -> None:
    """Before its start and after its stop; the reason is a sentence."""
    engine = harness.engine()
    assert engine.unready_reason.endswith(".")
    await engine.start(RecordingHandler())
    assert not engine.unready_reason
    await engine.stop()
    assert engine.unready_reason.endswith(".")


async def test_an_engine_can_be_stopped_twice(node: Node) -> None:
    """The second stop does nothing."""
    await node.engine.stop()
    await node.engine.stop()


async def test_an_engine_that_never_started_can_be_stopped(harness: Harness) -> None:
    """As after a failed start."""
    await harness.engine().stop()


async def test_a_stopped_engine_rejects_every_call(node: Node) -> None:
    """No call returns successfully without its work being done."""
    await node.broker.subscribe("news")
    await node.engine.stop()
    with pytest.raises(EngineError):
        await node.broker.publish("news", publication(1), HISTORY)
    with pytest.raises(EngineError):
        await node.broker.publish_join_leave("news", JOIN)
    with pytest.raises(EngineError):
        await node.nodes.publish_control(COMMANDS["disconnect"])
    with pytest.raises(EngineError):
        await node.nodes.survey(SurveyRequest())
    assert not node.handler.received
    assert not node.handler.pushes
    assert not node.handler.commands
