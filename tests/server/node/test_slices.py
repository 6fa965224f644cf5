"""Work that lets other code run in between."""

import asyncio

from tests.server.node.fake_connection import FakeConnection
from tests.server.served_node import until
from tocsin_server.config.loading import Settings
from tocsin_server.engine.factory import create_engine
from tocsin_server.engine.nodes import SurveyRequest
from tocsin_server.node.node import Node
from tocsin_server.node.slices import SLICE_ITEMS, in_slices


async def test_other_code_runs_after_each_slice() -> None:
    """Every item comes once, in order."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    found = [item async for item in in_slices(range(3 * SLICE_ITEMS + 1))]
    counting.cancel()
    assert found == list(range(3 * SLICE_ITEMS + 1))
    assert turns >= 3


async def test_a_survey_of_many_channels_lets_other_code_run_and_counts_them_all() -> None:
    """Channels that open or close meanwhile do not disturb it."""
    settings = Settings.model_validate(
        {
            "client": {
                "insecure": True,
                "channel_limit": 4 * SLICE_ITEMS,
                "command_rate": 0,
                "new_channel_rate": 0,
            }
        }
    )
    node = Node(settings, create_engine(settings.engine))
    async with node.running():
        connection = FakeConnection(node)
        connection.send_command("connect")
        for number in range(3 * SLICE_ITEMS):
            connection.send_command("subscribe", channel=f"news{number}")
        await until(lambda: len(connection.session.live_channels) == 3 * SLICE_ITEMS)
        survey = asyncio.create_task(node.node_info(SurveyRequest(True, "*{9,8}")))
        await asyncio.sleep(0)
        assert not survey.done()
        connection.send_command("subscribe", channel="late9")
        found = (await survey).channels
    assert len(found) == 3 * SLICE_ITEMS // 5
    assert set(found.values()) == {1}
