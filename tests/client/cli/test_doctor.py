"""What `tocsin doctor` says about tokens and addresses, without a server."""

import asyncio
import json
import subprocess
from typing import Any

import jwt
import pytest

from tests.client.hostile_server import hostile_server
from tests.support.server import TOCSIN
from tests.support.timing import STARTED
from tocsin.cli.findings import Finding, error, has_error, line, ok, warning
from tocsin.cli.token_checks import token_findings
from tocsin.cli.url_checks import Target, url_findings

NOW = 1_000_000.0
SECRET = "a secret for tokens that no server verifies"


def found(token: str) -> list[tuple[str, str]]:
    """The level and check of each finding about a token."""
    return [(finding["level"], finding["check"]) for finding in token_findings(token, NOW)]


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "ann", "iat": NOW - 1, "exp": NOW + 3600, **claims}, SECRET, "HS256")


def test_a_line_has_level_check_text_and_fix() -> None:
    assert line(warning("clock", "it is late", "set it")) == "warning clock: it is late  Fix: set it"
    assert line(ok("clock", "it is right")) == "ok      clock: it is right"
    assert has_error([ok("a", "b"), error("c", "d", "e")])
    assert not has_error([ok("a", "b"), warning("c", "d", "e")])


def test_a_token_that_was_just_made_is_ok() -> None:
    assert found(token()) == [("ok", "clock of the issuer"), ("ok", "token")]


@pytest.mark.parametrize(
    ("claims", "finding"),
    [
        ({"iat": NOW + 60}, ("error", "clock of the issuer")),
        ({"iat": NOW + 4}, ("ok", "clock of the issuer")),
        ({"iat": None}, ("warning", "clock of the issuer")),
        ({"exp": NOW - 1}, ("error", "token")),
        ({"exp": None}, ("warning", "token")),
        ({"exp": NOW + 86_400 * 365}, ("warning", "token")),
        ({"nbf": NOW + 60}, ("error", "token")),
    ],
)
def test_the_times_of_a_token_are_compared_with_the_clock(
    claims: dict[str, Any], finding: tuple[str, str]
) -> None:
    assert finding in found(token(**claims))


def test_a_token_without_signature_is_an_error() -> None:
    unsigned = jwt.encode({"iat": NOW, "exp": NOW + 9}, "", algorithm="none")
    assert ("error", "token") in found(unsigned)


@pytest.mark.parametrize("text", ["", "eyJ.x", "a.b.c", "eyJhbGciOiJIUzI1NiJ9.e30", "\x1b[2J"])
def test_what_is_no_token_is_an_error_that_does_not_repeat_it(text: str) -> None:
    [finding] = token_findings(text, NOW)
    assert finding["level"] == "error"
    assert not text or text not in finding["text"]


@pytest.mark.parametrize(
    ("url", "is_public"),
    [
        ("https://push.example", True),
        ("http://8.8.8.8:80", True),
        ("http://127.0.0.1:8000", False),
        ("http://localhost:8000", False),
        ("http://10.1.2.3", False),
        ("http://[::1]:8000", False),
        ("http://node", False),
    ],
)
def test_an_address_is_public_unless_it_is_private(url: str, is_public: bool) -> None:
    assert Target(url, "", "", 1).is_public is is_public


async def test_an_address_that_does_not_answer_is_the_only_finding() -> None:
    [finding] = [one async for one in url_findings(Target("http://127.0.0.1:1/?token=hush", "", "a", 1))]
    assert (finding["level"], finding["check"]) == ("error", "address")
    assert "hush" not in finding["text"]


async def test_a_server_of_another_protocol_gives_findings_and_no_traceback() -> None:
    """One that answers every request with a page, as a parked domain does, and with a clock of its own."""
    head = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 4\r\n\r\n"

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{head}page".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with hostile_server(answer, accepts_websockets=False) as server:
        findings: list[Finding] = [one async for one in url_findings(Target(server.url, "", "a", 0.1))]
    levels = {finding["check"]: finding["level"] for finding in findings}
    assert levels["clock of the server"] == "warning"
    assert levels["metrics"] == "warning"
    assert levels["WebSocket"] == "error"
    assert levels["event stream"] == "error"
    assert all(finding["fix"] for finding in findings if finding["level"] != "ok")


def test_the_command_prints_json_and_exits_with_1_for_an_error() -> None:
    command = [str(TOCSIN), "doctor", "--token", "no token", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=STARTED, check=False)
    [finding] = [json.loads(one) for one in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (1, "")
    assert (finding["level"], finding["check"]) == ("error", "token")
    assert set(finding) == {"level", "check", "text", "fix"}


def test_the_command_without_anything_to_check_says_what_to_give() -> None:
    done = subprocess.run(
        [str(TOCSIN), "doctor"], capture_output=True, text=True, timeout=STARTED, check=False, env={}
    )
    assert done.returncode == 1
    assert "give --url" in done.stderr
