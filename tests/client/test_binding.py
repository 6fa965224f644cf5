"""Clients outside of the event loop, thread and process that they belong to."""

import asyncio

import pytest

from tests.client.scripted_server import ScriptedServer
from tests.client.scripts import run_script
from tocsin import Client, WrongUse


async def test_a_client_refuses_calls_from_another_event_loop(scripted: ScriptedServer) -> None:
    """They would wait without end, or change the session in the middle of an event."""
    async with Client(scripted.url) as client, client.subscribe("news") as news:

        def use_elsewhere() -> None:
            for use in (client.presence("news"), anext(news), client.unsubscribe("news"), client.close()):
                with pytest.raises(WrongUse, match="another event loop"):
                    asyncio.run(use)
            with pytest.raises(WrongUse, match="another event loop"):
                client.subscribe("other")

        await asyncio.to_thread(use_elsewhere)
        await scripted.publish(1)
        assert (await anext(news)).data == 1


async def test_closing_a_client_whose_event_loop_has_ended_does_nothing(scripted: ScriptedServer) -> None:
    client = Client("http://127.0.0.1:9")

    def use_twice() -> None:
        asyncio.run(client.__aenter__())
        with pytest.raises(WrongUse, match="another event loop"):
            asyncio.run(client.presence("news"))
        asyncio.run(client.close())

    await asyncio.to_thread(use_twice)


FORKING = """
    import asyncio, os, sys
    from tocsin import Client, WrongUse

    async def main():
        async with Client(sys.argv[1]) as client, client.subscribe("news") as news:
            child = os.fork()
            if not child:
                refused = 0
                for use in (client.rpc("m"), anext(news), news.unsubscribe()):
                    try:
                        use.send(None)
                    except WrongUse as error:
                        refused += "after a fork" in str(error)
                try:
                    client.close().send(None)
                except StopIteration:
                    os._exit(refused != 3)
                os._exit(2)
            assert os.waitpid(child, 0)[1] == 0
            await client.publish("news", 1)

    asyncio.run(main())
"""


async def test_a_forked_process_cannot_use_the_connection_of_its_parent(scripted: ScriptedServer) -> None:
    """It could otherwise write into its parent's connection, or close it."""
    await asyncio.to_thread(run_script, FORKING, scripted.url)
    await scripted.until(lambda server: len(server.received) >= 4)
    methods = [next(name for name in command if name != "id") for command in scripted.received]
    assert methods == ["connect", "subscribe", "publish", "unsubscribe"]


ENDING = """
    import asyncio, atexit, sys
    from tocsin import AsyncPublisher, Client, EventStream, ServerUnreachable

    async def publish(url):
        await AsyncPublisher(url).publish("last", 1)

    async def stream(url):
        await anext(EventStream(url, "news"))

    async def subscribe(url):
        async with Client(url) as client:
            await client.ready()

    def use():
        try:
            asyncio.run(globals()[sys.argv[1]]("http://localhost:9"))
        except ServerUnreachable as error:
            print(error)

    atexit.register(use)
"""


@pytest.mark.parametrize("use", ["publish", "stream", "subscribe"])
def test_a_client_raises_a_documented_error_while_the_interpreter_ends(use: str) -> None:
    """An event loop can then no longer start a thread that looks up the server's name."""
    assert "the interpreter is ending" in run_script(ENDING, use)
