"""The examples of a page of the documentation: its fenced blocks, and how they are run and compared.

A block is named by its language. The block without a language that follows it is the output that the page
shows for it. A block whose first line is a comment with a file name (`# app.py`, in PHP
`<?php // app.php`) is that file's content.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.server.engine.redis import redis_server
from tests.support.timing import STARTED

DOCS = Path(__file__).parents[2] / "docs"

_BLOCK = re.compile(
    r"^(?:## +(?P<heading>[^\n]+)|```(?P<language>\w*)\n(?P<text>.*?)^```$)", re.DOTALL | re.MULTILINE
)
_FILE = re.compile(r"(?:<\?php )?(?:#|//|<!--|--) ([\w./-]+\.\w+)(?: -->)?\n")
_ANYTHING = "[^,}]+"
"""The pattern of `…`: one value, which differs from run to run."""


class Example(NamedTuple):
    """One block, the output shown for it, and the heading above it."""

    language: str
    text: str
    output: str
    heading: str

    @property
    def file_name(self) -> str:
        """The file whose content this block is; empty if it is none."""
        found = _FILE.match(self.text)
        return found[1] if found else ""


@dataclass(frozen=True)
class Page:
    """A page of the documentation."""

    text: str
    examples: tuple[Example, ...]

    def of(self, *languages: str) -> list[Example]:
        """The examples in these languages, in the order of the page."""
        return [example for example in self.examples if example.language in languages]

    @property
    def config(self) -> dict[str, Any]:
        """The page's configuration of a server: all its TOML blocks together."""
        config: dict[str, Any] = {}
        for example in self.of("toml"):
            config = merged(config, tomllib.loads(example.text))
        return config

    def write_files(self, folder: Path, words: Mapping[str, str] | None = None) -> None:
        """Write every block that is a file's content into a folder, with `words` replaced."""
        for example in self.examples:
            if example.file_name:
                write_file(example, folder, words or {})


def page(name: str) -> Page:
    """Read a page of `docs/`."""
    text = (DOCS / name).read_text("utf-8")
    examples: list[Example] = []
    heading = ""
    for block in _BLOCK.finditer(text):
        if block["heading"]:
            heading = block["heading"]
        elif block["language"]:
            examples.append(Example(block["language"], block["text"], "", heading))
        else:
            examples[-1] = examples[-1]._replace(output=block["text"].strip())
    return Page(text, tuple(examples))


def write_file(example: Example, folder: Path, words: Mapping[str, str]) -> None:
    """Write the block into the file that it names, with `words` replaced."""
    file = folder / example.file_name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(replaced(example.text, words))


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two configurations in one. A key that is in both must have the same value."""
    result = dict(first)
    for key, value in second.items():
        if isinstance(value, dict):
            result[key] = merged(result.get(key, {}), value)
        else:
            assert result.get(key, value) == value, key
            result[key] = value
    return result


def agrees(shown: str, printed: str) -> bool:
    """Whether an output is the one that the page shows."""
    pattern = re.escape(shown.strip()).replace("…", _ANYTHING)
    return re.fullmatch(pattern, printed.strip()) is not None


def environment(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of an example: this installation's commands, and no settings of the caller."""
    (folder / ".curlrc").write_text("silent\n")
    inherited = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    return {**inherited, "PATH": path, "HOME": str(folder), "PYTHONUNBUFFERED": "1", **variables}


async def shell(script: str, folder: Path, seconds: float = STARTED, **variables: str) -> str:
    """Run a shell script in a folder, which may take so many seconds; return its standard output."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=folder, env=environment(folder, variables), stdout=subprocess.PIPE
    )
    async with asyncio.timeout(seconds):
        printed, _ = await process.communicate()
    return printed.decode()


def free_ports(*numbers: str) -> dict[str, str]:
    """A free port for each port number of a page."""
    return dict(zip(numbers, map(str, redis_server.free_ports(len(numbers))), strict=True))


def replaced(text: str, words: Mapping[str, str]) -> str:
    """A text of a page with its port numbers and the like replaced by those of the test."""
    for word, value in words.items():
        text = text.replace(word, value)
    return text


@contextlib.asynccontextmanager
async def running(
    command: str, folder: Path, port: str, *, logs_errors: bool = False, **variables: str
) -> AsyncIterator[None]:
    """Run a server's command; its port is open inside, and it has ended afterwards.

    It must not log a traceback, unless `logs_errors`.
    """
    log = folder / f"{port}.log"
    with log.open("w") as output:
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            f"exec {command}",
            cwd=folder,
            env=environment(folder, variables),
            stdout=output,
            stderr=output,
        )
    try:
        async with asyncio.timeout(STARTED):
            while not await _is_open(port):
                assert process.returncode is None, f"{command} has ended:\n{log.read_text()}"
                await asyncio.sleep(0.02)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(STARTED):
            await process.wait()
    assert logs_errors or "Traceback" not in log.read_text(), log.read_text()


async def _is_open(port: str) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", int(port))
    except OSError:
        return False
    writer.close()
    return True
