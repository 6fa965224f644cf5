"""The steps of a link check. A check never leaves this machine, and its findings say so.

A URL on this machine is requested five times, which shows whether it answers and how steadily. A URL
elsewhere is judged by its text alone.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterable
from urllib.parse import SplitResult

import httpx

from tocsin_demo.check_store import Finding
from tocsin_demo.link_store import Link
from tocsin_demo.urls import InvalidUrlError, loopback_address, normalized, parse_url

STATIC_STEPS = 3  # address, duplicate, place
ATTEMPTS = 5
PAUSE_SECONDS = 0.3  # between attempts, so that the five are spread over a second and a half
ATTEMPT_SECONDS = 2.0


async def check_link(link: Link, others: Iterable[Link]) -> AsyncIterator[tuple[Finding, int]]:
    """Yield each finding as soon as it is made, with the number of findings to expect."""
    try:
        parts = parse_url(link.url)
    except InvalidUrlError as error:
        yield Finding("address", False, f"the address {error}"), 1
        return
    yield Finding("address", True, f"well formed, {parts.scheme} at {parts.hostname}"), STATIC_STEPS
    yield _duplicate(link, others), STATIC_STEPS
    host = loopback_address(parts)
    if host is None:
        yield Finding("place", None, "not on this machine, so no request was sent"), STATIC_STEPS
        return
    total = STATIC_STEPS + ATTEMPTS
    yield Finding("place", True, f"on this machine, at {host}"), total
    async with httpx.AsyncClient(trust_env=False, timeout=ATTEMPT_SECONDS) as client:
        for attempt in range(1, ATTEMPTS + 1):
            yield await _attempt(client, parts, host, attempt), total
            await asyncio.sleep(PAUSE_SECONDS)


def verdict(findings: list[Finding]) -> str:
    """Summarize the findings in a few words. The first problem comes first."""
    attempts = [finding for finding in findings if finding.step.startswith("request")]
    answered = [finding for finding in attempts if finding.is_good]
    wrong = [finding.text for finding in findings if finding.is_good is False and finding not in attempts]
    if wrong:
        return wrong[0]
    if not attempts:
        return "well formed; on another machine, so not requested"
    if not answered:
        return f"no good answer: {attempts[-1].text}"
    milliseconds = statistics.median(finding.milliseconds or 0.0 for finding in answered)
    return f"answered {len(answered)} of {len(attempts)} times, {milliseconds:.1f} ms"


def _duplicate(link: Link, others: Iterable[Link]) -> Finding:
    for other in others:
        if other.id != link.id and normalized(other.url) == normalized(link.url):
            return Finding("duplicate", False, f"the same URL as link {other.id}, {other.title}")
    return Finding("duplicate", True, "no other link has the same URL")


async def _attempt(client: httpx.AsyncClient, parts: SplitResult, host: str, attempt: int) -> Finding:
    """Send one HEAD request to `host`, which is a loopback address. Redirects are not followed."""
    step = f"request {attempt}"
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
    text = f"status {response.status_code} in {milliseconds:.1f} ms"
    return Finding(step, response.status_code < 400, text, round(milliseconds, 2))
