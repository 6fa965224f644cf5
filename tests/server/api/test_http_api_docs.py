"""docs/http-api.md: every example runs, in the order of the page, and prints what the page shows."""

import asyncio
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.server.api.conftest import served
from tests.support.timing import SOON
from tocsin_server.api.methods import METHODS

PAGE = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text("utf-8")


def _examples() -> Iterator[tuple[str, str]]:
    """Shell scripts, each with the output that the page shows."""
    for script, _, printed in re.findall(r"```sh\n(.*?)```\n(```\n(.*?)```)?", PAGE, re.DOTALL):
        yield script, printed


async def _run(script: str, url: str) -> str:
    shell = await asyncio.create_subprocess_exec(
        "bash", "-c", script, env={"TOCSIN": url, "PATH": "/usr/bin:/bin"}, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(SOON):
        printed, _ = await shell.communicate()
    return printed.decode().strip()


async def test_every_example_prints_what_the_page_shows() -> None:
    """`…` matches values that differ from run to run."""
    settings = tomllib.loads(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0])
    definitions = "".join(script for script, _ in _examples() if script.startswith("call()"))
    definitions = definitions.replace("curl ", "curl -s ")
    async with served(**settings) as running:
        for script, expected in _examples():
            printed = await _run(definitions + script.replace("curl ", "curl -s "), running.url)
            pattern = re.escape(expected.strip()).replace("…", "[^,}]+")
            assert re.fullmatch(pattern, printed), f"{script}\n{printed}"


def test_every_method_has_an_example() -> None:
    """A script of the page calls it by name."""
    scripts = "".join(script for script, _ in _examples())
    assert [name for name in METHODS if f"call {name} " not in scripts] == []
