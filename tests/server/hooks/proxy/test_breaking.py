"""The circuit breaker of a proxy whose real back end fails and comes back."""

from __future__ import annotations

import time

from structlog.testing import capture_logs

from tests.server.hooks.proxy.events import proxies_to
from tests.server.served_node import until
from tests.support.back_end import admits, back_end_running, http
from tocsin_server.errors import INTERNAL_ERROR
from tocsin_server.hooks.answers import Answer, Connected, Published, Undecided
from tocsin_server.hooks.events import HookKind
from tocsin_server.hooks.proxy.proxy import GRACE_SECONDS

OPEN = "The circuit breaker of [proxies.back] is open for connect: it answered with status 503."


async def test_the_breaker_opens_and_closes_again_with_its_back_end() -> None:
    """While it is open the back end is left alone. What changes is logged once, and shown as a warning."""
    async with (
        back_end_running(lambda _request: http({}, "503 Service Unavailable")) as back_end,
        proxies_to(back_end.url, {"breaker_faults": 3, "breaker_pause": "1ms"}) as proxies,
    ):
        with capture_logs() as lines:
            for number in range(3):
                assert await proxies.ask(HookKind.CONNECT, client=f"client {number}") == INTERNAL_ERROR
            assert list(proxies.proxies.warnings) == [OPEN]
            assert proxies.metric("tocsin_proxy_open_breakers") == 1
            back_end.answer = admits
            answers: list[Answer] = []
            while not answers or answers[-1] == INTERNAL_ERROR:
                answers.append(await proxies.ask(HookKind.CONNECT, client="later"))
        assert answers[-1] == Connected(user="56")
        assert len(back_end.requests) == 4
        assert not proxies.proxies.warnings
        assert proxies.metric("tocsin_proxy_open_breakers") == 0
    changes = [line["event"] for line in lines if "breaker" in line["event"]]
    assert changes == ["proxy_breaker_opened", "proxy_breaker_closed"]


async def test_an_open_breaker_grants_nothing_and_keeps_what_is() -> None:
    async with (
        back_end_running(lambda _request: http({}, "500 Internal Server Error")) as back_end,
        proxies_to(back_end.url, {"breaker_faults": 1, "breaker_pause": "1h"}) as proxies,
    ):
        for kind in (HookKind.CONNECT, HookKind.REFRESH):
            await proxies.ask(kind)
        assert len(back_end.requests) == 2
        assert await proxies.ask(HookKind.CONNECT) == INTERNAL_ERROR
        answer = await proxies.ask(HookKind.REFRESH)
        assert isinstance(answer, Undecided)
        assert 0 < answer.expire_at - time.time() <= GRACE_SECONDS
        assert len(back_end.requests) == 2
        assert proxies.outcomes == {"status": 2, "breaker_open": 2}


async def test_faults_of_one_kind_of_event_do_not_stop_the_others() -> None:
    """An RPC method that fails for all of its callers does not keep clients from connecting."""
    async with (
        back_end_running(lambda _request: http({}, "500 Internal Server Error")) as back_end,
        proxies_to(back_end.url, {"breaker_faults": 2, "breaker_pause": "1h"}) as proxies,
    ):
        for number in range(5):
            await proxies.ask(HookKind.RPC, client=f"client {number}")
        assert len(back_end.requests) == 2
        back_end.answer = admits
        assert await proxies.ask(HookKind.CONNECT) == Connected(user="56")
        assert await proxies.ask(HookKind.PUBLISH) == Published()


async def test_a_back_end_that_is_gone_is_used_again_when_it_is_back() -> None:
    async with back_end_running() as back_end:
        port = back_end.port
        options = {"breaker_faults": 2, "breaker_pause": "1ms", "retries": 0}
        async with proxies_to(back_end.url, options) as proxies:
            assert await proxies.ask(HookKind.CONNECT) == Connected(user="56")
            back_end.close_connections()
            await back_end.stop()
            await until(lambda: proxies.metric("tocsin_proxy_connections") == 0)
            for number in range(4):
                assert await proxies.ask(HookKind.CONNECT, client=f"client {number}") == INTERNAL_ERROR
            assert "cannot be connected to" in proxies.proxies.warnings[0]
            async with back_end_running(port=port):
                while await proxies.ask(HookKind.CONNECT, client="later") == INTERNAL_ERROR:
                    pass
                assert not proxies.proxies.warnings
