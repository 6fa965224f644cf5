"""What a check does, step by step. It never leaves this machine, and it says so.

An address on this machine is asked five times, so that one sees whether it answers and how steadily. Any
other address is judged by what can be known without asking anybody.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterable
from urllib.parse import SplitResult

import httpx

from tocsin_demo.addresses import NotAnAddressError, loopback, normal, parse
from tocsin_demo.check_log import Finding
from tocsin_demo.store import Link

STEPS_AT_A_DESK = 3  # address, twin, place
ATTEMPTS = 5
PAUSE_SECONDS = 0.3  # between attempts: a spread over a second and a half says more than five at once
ATTEMPT_SECONDS = 2.0


async def inspect(link: Link, others: Iterable[Link]) -> AsyncIterator[tuple[Finding, int]]:
    """Each finding as it is made, with the number of findings to expect in all."""
    try:
        parts = parse(link.url)
    except NotAnAddressError as error:
        yield Finding("address", False, f"the address {error}"), 1
        return
    yield Finding("address", True, f"well formed, {parts.scheme} at {parts.hostname}"), STEPS_AT_A_DESK
    yield _twin(link, others), STEPS_AT_A_DESK
    host = loopback(parts)
    if host is None:
        yield Finding("place", None, "not on this machine, so nobody was asked"), STEPS_AT_A_DESK
        return
    total = STEPS_AT_A_DESK + ATTEMPTS
    yield Finding("place", True, f"on this machine, at {host}"), total
    async with httpx.AsyncClient(trust_env=False, timeout=ATTEMPT_SECONDS) as client:
        for attempt in range(1, ATTEMPTS + 1):
            yield await _attempt(client, parts, host, attempt), total
            await asyncio.sleep(PAUSE_SECONDS)


def verdict(findings: list[Finding]) -> str:
    """All of it in a few words; what is wrong comes first."""
    attempts = [finding for finding in findings if finding.step.startswith("ask")]
    answered = [finding for finding in attempts if finding.is_good]
    wrong = [finding.says for finding in findings if finding.is_good is False and finding not in attempts]
    if wrong:
        return wrong[0]
    if not attempts:
        return "well formed; elsewhere, so not asked"
    if not answered:
        return f"no good answer: {attempts[-1].says}"
    milliseconds = statistics.median(finding.milliseconds or 0.0 for finding in answered)
    return f"answered {len(answered)} of {len(attempts)} times, {milliseconds:.1f} ms"


def _twin(link: Link, others: Iterable[Link]) -> Finding:
    for other in others:
        if other.id != link.id and normal(other.url) == normal(link.url):
            return Finding("twin", False, f"the same place as link {other.id}, {other.title}")
    return Finding("twin", True, "no other link leads to the same place")


async def _attempt(client: httpx.AsyncClient, parts: SplitResult, host: str, attempt: int) -> Finding:
    """One HEAD request to `host`, which is a loopback address whatever the name says.

    No redirect is followed.
    """
    step = f"ask {attempt}"
    authority = f"[{host}]" if ":" in host else host
    address = parts._replace(netloc=f"{authority}:{parts.port}" if parts.port else authority, fragment="")
    began = time.perf_counter()
    try:
        response = await client.head(address.geturl(), headers={"Host": parts.netloc})
    except httpx.TimeoutException:
        return Finding(step, False, f"no answer within {ATTEMPT_SECONDS:.0f} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Finding(step, False, str(error) or type(error).__name__)
    milliseconds = (time.perf_counter() - began) * 1000
    says = f"status {response.status_code} in {milliseconds:.1f} ms"
    return Finding(step, response.status_code < 400, says, round(milliseconds, 2))
