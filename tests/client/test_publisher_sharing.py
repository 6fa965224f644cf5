"""Publishers that outlive a fork, an event loop or the interpreter, with connections that stay open."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.client.keep_alive_server import KeepAliveServer, keep_alive_server
from tests.client.scripts import run_script
from tests.support.timing import SOON
from tocsin import AsyncPublisher, Disconnected, Publisher


@pytest.fixture
def server() -> Iterator[KeepAliveServer]:
    with keep_alive_server() as server:
        yield server


FORKING = """
    import os, sys
    from tocsin import Publisher

    publisher = Publisher(sys.argv[1])
    publisher.publish("parent", 1)
    children = []
    for number in range(3):
        child = os.fork()
        if not child:
            answers = {publisher.publish(f"child-{number}", 1).epoch for _ in range(3)}
            publisher.close()
            os._exit(answers != {f"child-{number}"})
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    print(publisher.publish("parent", 2).epoch)
    publisher.close()
"""

FORKING_ASYNC = """
    import asyncio, os, sys
    from tocsin import AsyncPublisher

    publisher = AsyncPublisher(sys.argv[1])

    async def publish_twice(channel):
        return {(await publisher.publish(channel, 1)).epoch for _ in range(2)}

    async def main():
        await publish_twice("parent")
        child = os.fork()
        if not child:
            asyncio._set_running_loop(None)
            os._exit(asyncio.run(publish_twice("child-0")) != {"child-0"})
        assert os.waitpid(child, 0)[1] == 0
        print(*await publish_twice("parent"))
        await publisher.close()

    asyncio.run(main())
"""


@pytest.mark.parametrize("script", [FORKING, FORKING_ASYNC], ids=["plain", "async"])
def test_a_forked_process_opens_connections_of_its_own(server: KeepAliveServer, script: str) -> None:
    """As in gunicorn with ``--preload``, or in Celery. The parent's connection stays usable."""
    assert run_script(script, server.url) == "parent\n"
    ports = [set(ports) for ports in server.ports.values()]
    assert [len(one) for one in ports] == [1] * len(ports)
    assert len(set.union(*ports)) == len(ports) > 1


def test_a_second_event_loop_opens_connections_of_its_own(server: KeepAliveServer) -> None:
    """As with ``asyncio.run`` for each task of a worker. The connections of an ended loop are dropped."""
    publisher = AsyncPublisher(server.url)
    for number in range(3):
        position = asyncio.run(publisher.publish(f"loop-{number}", 1))
        assert position is not None
        assert position.epoch == f"loop-{number}"
    assert len(server.ports) == 3
    asyncio.run(publisher.close())


def test_event_loops_of_several_threads_share_a_publisher(server: KeepAliveServer) -> None:
    publisher = AsyncPublisher(server.url)
    both_run = threading.Barrier(2)
    epochs: dict[str, set[str]] = {"a": set(), "b": set()}

    async def publish(channel: str) -> None:
        await asyncio.to_thread(both_run.wait, SOON)
        for _ in range(20):
            position = await publisher.publish(channel, 1)
            assert position is not None
            epochs[channel].add(position.epoch)
        await asyncio.to_thread(both_run.wait, SOON)

    threads = [threading.Thread(target=asyncio.run, args=[publish(channel)]) for channel in epochs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert epochs == {"a": {"a"}, "b": {"b"}}
    assert not set(server.ports["a"]) & set(server.ports["b"])
    asyncio.run(publisher.close())


def test_closing_also_closes_the_connections_of_a_loop_that_still_runs(server: KeepAliveServer) -> None:
    publisher = AsyncPublisher(server.url)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(publisher.publish("other", 1), loop).result(SOON)
    asyncio.run(publisher.close())
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.05), loop).result(SOON)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_closed_publisher_refuses_calls(server: KeepAliveServer) -> None:
    plain = Publisher(server.url)
    plain.close()
    with pytest.raises(Disconnected, match="closed"):
        plain.publish("news", 1)

    async def publish() -> None:
        publisher = AsyncPublisher(server.url)
        await publisher.close()
        await publisher.publish("news", 1)

    with pytest.raises(Disconnected, match="closed"):
        asyncio.run(publish())
    assert not server.requests


def test_a_publisher_that_is_closed_during_a_call_raises_a_documented_error(
    server: KeepAliveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by another thread or task, just before the request is sent."""
    publisher = Publisher(server.url)
    send, async_send = httpx.Client.send, httpx.AsyncClient.send

    def close_and_send(http: httpx.Client, request: Any, **options: Any) -> httpx.Response:
        publisher.close()
        return send(http, request, **options)

    monkeypatch.setattr(httpx.Client, "send", close_and_send)
    with pytest.raises(Disconnected, match="closed"):
        publisher.publish("news", 1)

    async def publish() -> None:
        publisher = AsyncPublisher(server.url)

        async def close_and_send(http: httpx.AsyncClient, request: Any, **options: Any) -> httpx.Response:
            await publisher.close()
            return await async_send(http, request, **options)

        monkeypatch.setattr(httpx.AsyncClient, "send", close_and_send)
        await publisher.publish("news", 1)

    with pytest.raises(Disconnected, match="closed"):
        asyncio.run(publish())


def test_a_publisher_works_while_the_interpreter_ends(server: KeepAliveServer) -> None:
    script = """
        import atexit, sys
        from tocsin import Publisher

        publisher = Publisher(sys.argv[1])
        atexit.register(lambda: print(publisher.publish("last", 1).epoch))
    """
    assert run_script(script, server.url) == "last\n"
