"""Limits of a caller of the HTTP API, and the turns that all callers take."""

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.server.api.conftest import KEY, Served, served
from tests.server.served_node import until
from tocsin_server.api.calls import attempt_together
from tocsin_server.errors import Refusal
from tocsin_server.loop_turns import SHORT_CALLS, TURN_SECONDS, LoopTurns

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER = {"X-API-Key": "another key"}
SLOW = {"keys": [KEY, "another key"], "calls_per_second": 1, "calls_burst": 5}
DENIED = {"code": 111, "message": "too many requests: more than 1 calls per second with this key"}


def _publications(count: int) -> list[Any]:
    return [{"publish": {"channel": "plain", "data": n}} for n in range(count)]


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key gets a part of its burst back, however slow the machine is."""
    monkeypatch.setattr("tocsin_server.api.application.time", SimpleNamespace(monotonic=lambda: 1000.0))


@pytest.mark.usefixtures("stopped_clock")
async def test_a_key_has_exactly_its_burst_and_then_error_111() -> None:
    """Commands of a batch and channels of a broadcast count one by one; each key has a rate of its own."""
    async with served(api=SLOW) as api:
        assert len((await api.call("batch", commands=_publications(2)))["replies"]) == 2
        assert (await api.call("broadcast", channels=["a", "b"], data=1)).get("result")
        assert (await api.call("batch", commands=_publications(2))).get("error") == DENIED
        assert (await api.call("publish", channel="plain", data=1)).get("result") == {}
        response = await api.post("/api/publish", {"channel": "plain", "data": 1})
        assert (response.json()["error"], response.headers["Retry-After"]) == (DENIED, "1")
        assert (await api.with_headers(**OTHER).call("publish", channel="plain", data=1)).get("result") == {}
        transport = api.with_headers(**{"X-Centrifugo-Error-Mode": "transport"})
        response = await transport.post("/api/publish", {"channel": "plain", "data": 1})
        assert (response.status_code, response.json()) == (429, DENIED)
        page = api.node.metrics.page().decode()
        assert 'tocsin_limits_reached_total{limit="api.calls_per_second"} 3.0' in page


async def test_a_request_with_more_calls_than_the_burst_can_never_be_done() -> None:
    """So it is a bad request, and uses nothing."""
    async with served(api=SLOW) as api:
        code, message = await api.error("batch", commands=_publications(6))
        assert (code, message) == (107, "bad request: more than api.calls_burst (5) calls")
        assert len((await api.call("batch", commands=_publications(5)))["replies"]) == 5


@pytest.mark.usefixtures("stopped_clock")
async def test_commands_of_the_legacy_endpoint_are_refused_one_by_one() -> None:
    async with served(api=SLOW) as api:
        command = json.dumps({"method": "publish", "params": {"channel": "plain", "data": 1}})
        answer = (await api.post("/api", command.encode() * 6)).text.split("\n")
        assert [json.loads(line) for line in answer] == [{"result": {}}] * 5 + [{"error": DENIED}]


async def test_a_named_key_may_have_a_rate_of_its_own() -> None:
    keys = {"fast": {"keys": ["fast"], "calls_per_second": 100_000}}
    async with served(api=SLOW, api_keys=keys) as api:
        fast = api.with_headers(**{"X-API-Key": "fast"})
        for _ in range(3):
            assert len((await fast.call("batch", commands=_publications(5)))["replies"]) == 5


@pytest.mark.parametrize("extra", [0, 1])
async def test_requests_of_a_key_run_and_wait_up_to_the_limit(extra: int) -> None:
    """One runs and ten wait: eleven are done. The twelfth is refused, and another key's is not."""
    release = asyncio.Event()
    running = 0

    async def hold(_user: str, _params: Any) -> None:
        nonlocal running
        running += 1
        await release.wait()

    async with served(api={"keys": [KEY, "another key"], "concurrent_requests": 1}) as api:
        api.node.operations.rpc_methods["hold"] = hold
        calls = [asyncio.create_task(api.call("rpc", method="hold"))]
        await until(lambda: running == 1)
        calls += [asyncio.create_task(api.call("info")) for _ in range(10 + extra)]
        if extra:
            refused, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            assert [call.result()["error"]["code"] for call in refused] == [111]
        assert "result" in await api.with_headers(**OTHER).call("info")
        assert running == 1
        release.set()
        answers = await asyncio.gather(*calls)
    assert sum("result" in answer for answer in answers) == 11


class ManualClock:
    """A clock that only its owner moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def _take(turns: LoopTurns, log: list[str], name: str, calls: int, work: Callable[[], None]) -> None:
    for _ in range(calls):
        await turns.wait()
        log.append(name)
        work()


async def test_callers_take_turns_with_batches_of_any_size() -> None:
    """With calls that take half a turn, two run before the next caller's two."""
    clock, log = ManualClock(), list[str]()
    turns = LoopTurns(clock)

    def work() -> None:
        clock.now += TURN_SECONDS / 2

    async with asyncio.TaskGroup() as tasks:
        for name in ("a", "b"):
            tasks.create_task(_take(turns, log, name, 6, work))
        await asyncio.sleep(0)
        tasks.create_task(_take(turns, log, "single", 1, work))
    assert log[:7] == ["a", "a", "a", "a", "b", "b", "single"]  # the first to wait is the first caller itself
    assert len(log) == 13


async def test_other_code_runs_between_turns() -> None:
    """At most one turn of calls in each turn of the loop."""
    clock = ManualClock()
    turns, loop_turn, in_turn = LoopTurns(clock), 0, dict[int, int]()

    async def count() -> None:
        nonlocal loop_turn
        while True:
            loop_turn += 1
            await asyncio.sleep(0)

    def work() -> None:
        clock.now += TURN_SECONDS / 4
        in_turn[loop_turn] = in_turn.get(loop_turn, 0) + 1

    counting = asyncio.create_task(count())
    async with asyncio.TaskGroup() as tasks:
        for name in "abc":
            tasks.create_task(_take(turns, [], name, 40, work))
    counting.cancel()
    assert sum(in_turn.values()) == 120
    assert max(in_turn.values()) <= 8  # a turn may begin and end within one turn of the counting task


async def test_a_caller_that_gives_up_gives_its_turn_to_the_next() -> None:
    clock, log = ManualClock(), list[str]()
    turns = LoopTurns(clock)

    def work() -> None:
        clock.now += TURN_SECONDS

    first = asyncio.create_task(_take(turns, log, "a", 1, work))
    waiting = [asyncio.create_task(_take(turns, log, name, 1, work)) for name in "bcd"]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await first
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert log[0] == "a"
    assert log[-1] == "d"
    await asyncio.wait_for(turns.wait(), 5)


async def test_a_few_short_calls_take_no_turn_and_others_follow_them() -> None:
    """Behind them, short calls take turns as well, until the event loop has run others."""
    clock = ManualClock()
    turns = LoopTurns(clock)
    for _ in range(SHORT_CALLS):
        assert turns.take_short()
        clock.now += TURN_SECONDS
    assert turns.take_short()
    clock.now += TURN_SECONDS
    assert not turns.take_short()
    assert not turns.take()
    await asyncio.sleep(0)
    assert turns.take_short()


async def test_concurrent_calls_begin_in_their_order() -> None:
    """Also where each of them waits for the engine, and where the turn ends in between."""
    clock, began = ManualClock(), list[int]()

    async def call(number: int) -> int:
        began.append(number)
        clock.now += TURN_SECONDS / 3
        await asyncio.sleep(0)
        return number

    outcomes: list[int | Refusal] = await attempt_together(LoopTurns(clock), call, range(600))
    assert outcomes == list(range(600))
    assert began == list(range(600))


async def test_a_single_call_is_answered_while_batches_run(api: Served) -> None:
    """It need not wait until one of them is done."""
    batches = [asyncio.create_task(api.call("batch", commands=_publications(10_000))) for _ in range(2)]
    await asyncio.wait([asyncio.create_task(api.call("info"))])
    assert not all(batch.done() for batch in batches)
    await asyncio.gather(*batches)
