"""A secret in an address reaches no log, of the server or of the client, at any level."""

import asyncio
import logging

import pytest
import structlog

from tests.server.api.conftest import served
from tests.support.timing import SOON
from tests.support.tokens import connection_token
from tocsin import AsyncPublisher, Client, Publisher
from tocsin.errors import TocsinError

KEY, PASSWORD = "a-key-in-the-address", "a-password-in-the-address"


async def test_no_secret_of_an_address_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The loggers of httpx, httpcore and websockets are those that write addresses."""
    caplog.set_level(logging.DEBUG)
    token = connection_token("ann")
    async with served(api={"keys": [KEY], "allow_key_in_address": True}) as api:
        address = f"{api.url.replace('//', f'//ann:{PASSWORD}@')}?api_key={KEY}&token={token}"
        with structlog.testing.capture_logs() as lines:
            async with AsyncPublisher(address) as publisher:
                await publisher.publish("plain", 1)
            with Publisher(address) as plain:
                await asyncio.to_thread(plain.publish, "plain", 2)
                await asyncio.to_thread(_ignoring_errors, plain, "nowhere:1")
            client = Client(address, token=token)
            async with asyncio.timeout(SOON):
                await _connect(client)
    logged = caplog.text + str(lines)
    assert "POST http://…@127.0.0.1" in logged
    assert [secret for secret in (KEY, PASSWORD, token) if secret in logged] == []


def _ignoring_errors(publisher: Publisher, channel: str) -> None:
    with pytest.raises(TocsinError):
        publisher.publish(channel, 1)


async def _connect(client: Client) -> None:
    """Connect, or be refused: both log what happens."""
    try:
        async with client:
            await client.publish("plain", 1)
    except TocsinError:
        pass
