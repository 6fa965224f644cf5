"""docs/webhooks.md: the verification, in each language, accepts what a node sends and refuses the rest."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.docs.examples import page
from tests.server.hooks.lifecycle_events import events
from tests.support.webhook_receiver import Receiver, Request
from tocsin_server.config.webhook_options import WebhookOptions
from tocsin_server.hooks.webhooks.webhook import Webhook

PAGE = page("webhooks.md")
SECRET = "a secret of forty characters, which is long"
OTHER_SECRET = "another one of forty characters, also long"
Arguments = tuple[str, str, str, list[str]]
"""Secret, signature, body, and the stored delivery ids."""

MAIN: Mapping[str, tuple[list[str], str]] = {
    "js": (
        ["node", "--input-type=module", "-e"],
        """
        const {verdict} = await import("./verification.mjs");
        const [secret, signature, body, stored] = JSON.parse(process.argv[1]);
        console.log(verdict(secret, signature, body, new Set(stored)));
        """,
    ),
    "php": (
        ["php", "-r"],
        'require "./verification.php"; echo verdict(...json_decode($argv[1], true));',
    ),
}


def block(language: str) -> str:
    (found,) = [one.text for one in PAGE.of(language) if " verdict(" in one.text]
    return found


def in_python(_folder: Path, arguments: Arguments) -> str:
    names: dict[str, Any] = {}
    exec(block("python"), names)
    found: str = names["verdict"](*arguments[:2], arguments[2].encode(), set(arguments[3]))
    return found


def in_another_language(language: str) -> Callable[[Path, Arguments], str]:
    def run(folder: Path, arguments: Arguments) -> str:
        command, script = MAIN[language]
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        (folder / f"verification.{'mjs' if language == 'js' else 'php'}").write_text(block(language))
        done = subprocess.run(
            [*command, script, json.dumps(arguments)], cwd=folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    return run


LANGUAGES = {"python": in_python, "js": in_another_language("js"), "php": in_another_language("php")}


async def sent(now: float, *secrets: str) -> Request:
    """What a node sends."""
    receiver = Receiver()
    async with receiver.serving() as url:
        webhook = Webhook("app", WebhookOptions(url=url, secrets=secrets), lambda: now)
        async with webhook.open():
            await webhook.deliver("d1", events(2))
    return receiver.requests[0]


def arguments_of(request: Request, **changes: Any) -> Arguments:
    given = {
        "secret": SECRET,
        "signature": request.headers["x-tocsin-signature"],
        "body": request.body.decode(),
        "stored": [],
        **changes,
    }
    return given["secret"], given["signature"], given["body"], given["stored"]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_verification_accepts_what_a_node_sends_and_refuses_the_rest(
    language: str, tmp_path: Path
) -> None:
    """A forged body, a wrong secret, a recorded request, a repeated delivery, and malformed signatures."""
    verdict = LANGUAGES[language]
    request = await sent(time.time(), OTHER_SECRET, SECRET)
    signature = request.headers["x-tocsin-signature"]
    old = await sent(time.time() - 301, SECRET)
    early = await sent(time.time() + 310, SECRET)
    another_delivery = request.body.decode().replace('"delivery":"d1"', '"delivery":"d9"')
    assert another_delivery != request.body.decode()
    forged_time = signature.replace("t=", "t=1")
    cases = [
        ("new", arguments_of(request)),
        ("new", arguments_of(request, stored=["d0", "d2"])),
        ("repeated", arguments_of(request, stored=["d0", "d1"])),
        ("forged", arguments_of(request, body=request.body.decode().replace("connected", "vacated"))),
        ("forged", arguments_of(request, secret="a third one of forty characters, long as well")),
        ("forged", arguments_of(request, stored=["d1"], secret="a third one of forty characters, long, too")),
        ("forged", arguments_of(request, stored=["d1"], body=another_delivery)),
        ("forged", arguments_of(old)),
        ("forged", arguments_of(early)),
        ("forged", arguments_of(request, signature=forged_time)),
        ("forged", arguments_of(request, signature="")),
        ("forged", arguments_of(request, signature="v1=,t=")),
        ("forged", arguments_of(request, signature=signature.partition(",")[0])),
        ("forged", arguments_of(request, signature="t=x,v1=é")),
    ]
    few = [0, 2, 3, 4, 6, 7]  # of the languages for which each case is a process
    for number, (expected, arguments) in enumerate(cases):
        if language == "python" or number in few:
            assert verdict(tmp_path, arguments) == expected, number
