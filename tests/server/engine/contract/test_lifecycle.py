"""An engine's life: started before anything else, stopped last."""

import pytest

from tests.server.engine.contract.harness import LOG, Harness, Node, publication
from tests.server.engine.contract.test_nodes import COMMANDS
from tests.server.engine.contract.test_subscribing import JOIN
from tests.server.engine.recording_handler import RecordingHandler
from tocsin_server.engine.nodes import SurveyRequest
from tocsin_server.errors import EngineError


async def test_a_running_engine_has_no_trouble(node: Node) -> None:
    """It can publish and hear."""
    assert not node.engine.unready_reason


async def test_an_engine_that_is_not_running_says_so(harness: Harness) -> None:
    """Before its start and after its stop, in a sentence."""
    engine = harness.engine()
    assert engine.unready_reason.endswith(".")
    await engine.start(RecordingHandler())
    assert not engine.unready_reason
    await engine.stop()
    assert engine.unready_reason.endswith(".")


async def test_stopping_twice_is_stopping_once(node: Node) -> None:
    """So is stopping what was never started."""
    await node.engine.stop()
    await node.engine.stop()


async def test_an_engine_may_be_stopped_that_never_started(harness: Harness) -> None:
    """As after a failed start."""
    await harness.engine().stop()


async def test_a_stopped_engine_publishes_nothing(node: Node) -> None:
    """What it could not do it never calls done."""
    await node.broker.subscribe("news")
    await node.engine.stop()
    with pytest.raises(EngineError):
        await node.broker.publish("news", publication(1), LOG)
    with pytest.raises(EngineError):
        await node.broker.publish_join_leave("news", JOIN)
    with pytest.raises(EngineError):
        await node.nodes.publish_control(COMMANDS["disconnect"])
    with pytest.raises(EngineError):
        await node.nodes.survey(SurveyRequest())
    assert not node.handler.received
    assert not node.handler.pushes
    assert not node.handler.commands
