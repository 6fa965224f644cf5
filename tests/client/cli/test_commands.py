"""The command line against a real node: as processes, and where a process has no part, in this one."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.deploy.nginx import run_nginx
from tests.server.engine.redis.redis_server import free_ports
from tests.support.command_line import tocsin
from tests.support.configs import API_KEY
from tests.support.proxy import Proxy
from tests.support.server import TOCSIN, Server
from tests.support.timing import SOON
from tests.support.tokens import SECRET, connection_token
from tocsin import AsyncPublisher, Publisher, api

Name = Callable[[str], str]
PIPE = asyncio.subprocess.PIPE


class Command:
    """A running command. Every wait is bounded, and its error shows the standard error of the command."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.errors = ""

    async def reports(self, *parts: str) -> None:
        """Wait for lines with these words on standard error, in any order."""
        assert self.process.stderr is not None
        missing = set(parts)
        async with asyncio.timeout(2 * SOON):
            while missing and (line := (await self.process.stderr.readline()).decode()):
                self.errors += line
                missing -= {words for words in missing if words in line}
        assert not missing, f"ended without {missing!r}:\n{self.errors}"

    async def line(self) -> Any:
        """The next line of standard output, which must be JSON."""
        assert self.process.stdout is not None
        async with asyncio.timeout(2 * SOON):
            return json.loads(await self.process.stdout.readline())

    async def ends(self) -> int:
        async with asyncio.timeout(2 * SOON):
            assert self.process.stderr is not None
            self.errors += (await self.process.stderr.read()).decode()
            code = await self.process.wait()
        assert "Traceback" not in self.errors, self.errors
        return code


@contextlib.asynccontextmanager
async def run(*arguments: str, stdout: int = PIPE, **environment: str) -> AsyncIterator[Command]:
    process = await asyncio.create_subprocess_exec(
        TOCSIN, *arguments, stdin=PIPE, stdout=stdout, stderr=PIPE, env={**os.environ, **environment}
    )
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.kill()
        process._transport.close()  # type: ignore[attr-defined] # else its pipes close with the loop, and warn
        await process.wait()


async def done(*arguments: str, text: str = "", **environment: str) -> tuple[int, list[str], str]:
    """Run to the end: exit code, lines of output, standard error."""
    async with run(*arguments, stdout=PIPE, **environment) as command, asyncio.timeout(2 * SOON):
        output, errors = await command.process.communicate(text.encode())
        assert b"Traceback" not in errors, errors.decode()
        return command.process.returncode or 0, output.decode().splitlines(), errors.decode()


@pytest.fixture
async def publisher(server: Server) -> AsyncIterator[AsyncPublisher]:
    async with AsyncPublisher(server.url, API_KEY) as publisher:
        yield publisher


@pytest.mark.parametrize("flags", [[], ["--sse"]], ids=["websocket", "sse"])
async def test_sub_prints_json_lines_and_ends_at_its_limit(
    server: Server, publisher: AsyncPublisher, channel: Name, flags: list[str]
) -> None:
    one, other = channel("open"), channel("plain")
    async with run("sub", one, other, "--limit", "3", *flags, TOCSIN_URL=server.url) as command:
        await command.reports(f"{one}: subscribed", f"{other}: subscribed")
        position = await publisher.publish(one, {"ö": [1]}, tags={"k": "v"})
        await publisher.publish(other, "text")
        await publisher.publish(one, None)
        lines = [await command.line() for _ in range(3)]
        assert await command.ends() == 0
    expected = {
        "channel": one,
        "data": {"ö": [1]},
        "offset": 1,
        "position": str(position),
        "tags": {"k": "v"},
    }
    assert expected in lines
    assert {"channel": other, "data": "text"} in lines


@pytest.mark.parametrize("flags", [[], ["--sse"]], ids=["websocket", "sse"])
async def test_sub_recovers_by_itself_and_from_a_position(
    proxy: Proxy, publisher: AsyncPublisher, channel: Name, flags: list[str]
) -> None:
    name = channel("open")
    async with run("sub", name, "--url", proxy.url, *flags) as command:
        await command.reports("subscribed")
        await publisher.publish(name, 1)
        assert (await command.line())["data"] == 1
        proxy.cut()
        await command.reports("not connected")
        await publisher.publish(name, 2)
        proxy.restore()
        line = await command.line()
        assert line["data"] == 2
        await command.reports("nothing missed")
    position = line["position"]
    await publisher.publish(name, 3)
    code, lines, _ = await done("sub", name, "--url", proxy.url, "--since", position, "--limit", "1", *flags)
    assert code == 0
    assert json.loads(lines[0])["data"] == 3


async def test_sub_reports_a_gap_on_standard_error(
    server: Server, publisher: AsyncPublisher, channel: Name
) -> None:
    name = channel("short")
    for n in range(9):
        position = await publisher.publish(name, n)
    assert position is not None
    async with run("sub", name, "--url", server.url, "--since", f"1@{position.epoch}") as command:
        await command.reports("publications may be missing")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
)
@pytest.mark.parametrize("flags", [[], ["--sse"]], ids=["websocket", "sse"])
async def test_sub_ends_cleanly_on_a_signal(
    server: Server, channel: Name, number: int, code: int, flags: list[str]
) -> None:
    async with run("sub", channel("open"), "--url", server.url, *flags) as command:
        await command.reports("subscribed")
        command.process.send_signal(number)
        assert await command.ends() == code
        assert "to recover later: --since 0@" in command.errors


async def test_sub_ends_cleanly_when_the_pipe_is_closed_before_the_next_publication(
    server: Server, channel: Name
) -> None:
    reader, writer = os.pipe()
    async with run("sub", channel("open"), "--url", server.url, stdout=writer) as command:
        os.close(writer)
        await command.reports("subscribed")
        os.close(reader)
        assert await command.ends() == 0


async def test_sub_ends_cleanly_when_the_pipe_is_closed_while_it_writes(
    server: Server, publisher: AsyncPublisher, channel: Name
) -> None:
    """`head` closes the pipe while the command writes more than a pipe holds."""
    name = channel("long")
    reader, writer = os.pipe()
    async with run("sub", name, "--url", server.url, stdout=writer) as command:
        os.close(writer)
        await command.reports("subscribed")
        await publisher.batch([_large(name, n) for n in range(30)])
        assert (await asyncio.to_thread(os.read, reader, 10)).startswith(b'{"channel"')
        os.close(reader)
        assert await command.ends() == 0


async def test_sub_ends_cleanly_when_both_outputs_are_one_closed_pipe(server: Server, channel: Name) -> None:
    """As in `tocsin sub news 2>&1 | head -1`."""
    process = await asyncio.create_subprocess_shell(
        f"{TOCSIN} sub {channel('open')} --url {server.url} 2>&1 | head -1; echo ${{PIPESTATUS[0]}}",
        stdout=PIPE,
        stderr=PIPE,
        executable="/bin/bash",
    )
    async with asyncio.timeout(2 * SOON):
        output, errors = await process.communicate()
    assert errors == b""
    assert output.decode().splitlines()[1:] == ["0"]


def _large(name: str, n: int) -> Any:
    return api.publish(name, f"{n}" + "x" * 10_000)


async def test_sub_runs_a_command_for_each_publication_in_order(
    server: Server, publisher: AsyncPublisher, channel: Name, tmp_path: Path
) -> None:
    name, file = channel("open"), tmp_path / "lines"
    script = f"cat >> {file}; exit 3"
    async with run("sub", name, "--url", server.url, "--exec", script, "--limit", "3") as command:
        await command.reports("subscribed")
        for n in range(3):
            await publisher.publish(name, n)
        await command.reports(f"the command exited with 3 for {name} 1@")
        assert await command.ends() == 0
    assert [json.loads(line)["data"] for line in file.read_text().splitlines()] == [0, 1, 2]


async def test_sub_terminates_its_running_command_when_it_ends(
    server: Server, publisher: AsyncPublisher, channel: Name, tmp_path: Path
) -> None:
    name, started = channel("open"), tmp_path / "started"
    os.mkfifo(started)
    script = f"echo $$ > {started}; exec sleep 60"
    async with run("sub", name, "--url", server.url, "--exec", script) as command:
        await command.reports("subscribed")
        await publisher.publish(name, 1)
        pid = int(await asyncio.to_thread(started.read_text))
        command.process.terminate()
        assert await command.ends() == 143
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_sub_explains_a_failure_in_one_sentence(token_only_server: Server, server: Server) -> None:
    sub = ["sub", "news", "--url", token_only_server.url]
    for flags in ([], ["--sse"]):
        code, lines, errors = tocsin(*sub, *flags, "--token", "nonsense")
        assert (code, lines) == (1, [])
        assert "token" in errors
    code, _, errors = tocsin(*sub, TOCSIN_TOKEN=connection_token("ada"))
    assert code == 1
    assert "not permitted to subscribe to 'news'" in errors
    for arguments, words in (
        (["news", "--url", "localhost:8000"], "is not an address"),
        (["news", "--since", "5", "--url", server.url], "expected offset@epoch"),
        (["a", "b", "--since", "5@x", "--url", server.url], "give one per channel"),
        (["a", "a", "--url", server.url], "named twice"),
        (["a", "--url", server.url + "/elsewhere"], "HTTP 403"),
    ):
        code, _, errors = tocsin("sub", *arguments)
        assert code == 1
        assert words in errors


PROXIES: dict[str, tuple[dict[str, str], str]] = {
    "socks": ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "ALL_PROXY"),
    "unsupported": ({"http_proxy": "ftp://127.0.0.1:9"}, "http_proxy"),
    "refusing": ({"http_proxy": "http://127.0.0.1:9"}, "http_proxy"),
}


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize(
    "arguments",
    [["pub", "news", "1"], ["nodes"], ["load", "--connections", "1"]],
    ids=lambda arguments: arguments[0],
)
def test_a_command_names_the_variable_of_a_proxy_that_does_not_work(proxy: str, arguments: list[str]) -> None:
    environment, variable = PROXIES[proxy]
    code, lines, errors = tocsin(*arguments, "--url", "http://127.0.0.1:9", **environment)
    assert (code, lines) == (1, [])
    assert len(errors.splitlines()) == 1
    assert variable in errors


@pytest.mark.parametrize("flags", [[], ["--sse"]], ids=["websocket", "sse"])
@pytest.mark.parametrize("proxy", ["socks", "unsupported"])
def test_sub_names_the_variable_of_a_proxy_that_never_will_work(proxy: str, flags: list[str]) -> None:
    environment, variable = PROXIES[proxy]
    if proxy == "socks" and not flags:
        environment, variable = {"https_proxy": "socks5://127.0.0.1:9"}, "https_proxy"
    code, lines, errors = tocsin("sub", "news", "--url", "http://127.0.0.1:9", *flags, **environment)
    assert (code, lines) == (1, [])
    assert variable in errors


@pytest.mark.parametrize("flags", [[], ["--sse"]], ids=["websocket", "sse"])
async def test_sub_names_the_variable_of_a_proxy_that_refuses_and_goes_on(flags: list[str]) -> None:
    """It may work later."""
    environment, variable = PROXIES["refusing"]
    async with run(
        "sub", "news", "--url", "http://127.0.0.1:9", *flags, stdout=PIPE, **environment
    ) as command:
        await command.reports(variable)
        command.process.terminate()
        assert await command.ends() == 143


async def test_sub_explains_that_a_proxy_drops_the_upgrade_header(server: Server, tmp_path: Path) -> None:
    """As nginx does without its lines for WebSockets. An event stream passes."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with run_nginx([server.port], port, tmp_path, without="proxy_set_header (Upgrade|Connection)"):
        code, lines, errors = await done("sub", "open:news", "--url", url)
        assert (code, lines) == (1, [])
        assert "HTTP 400, '" in errors
        assert "a proxy in between does not pass the Upgrade header" in errors
        async with run("sub", "open:news", "--url", url, "--sse") as command:
            await command.reports("subscribed")


@pytest.mark.parametrize(
    "arguments", [["pub", "news", "1"], ["nodes"], ["load"], ["sub", "news"], ["sub", "news", "--sse"]]
)
def test_no_command_repeats_the_password_of_a_malformed_address(arguments: list[str]) -> None:
    code, _, errors = tocsin(*arguments, "--url", "http://ada:sec#ret@127.0.0.1:9")
    assert code == 1
    assert "write %23 for #" in errors
    assert "sec" not in errors.replace("second", "")


async def test_a_password_in_an_address_is_used_and_not_shown(server: Server) -> None:
    with_password = server.url.replace("//", "//ada:p%23w@")
    async with run("sub", "open:news", "--url", with_password + "\n") as command:
        await command.reports("subscribed")
        assert "p%23w" not in command.errors


def test_pub_publishes_its_messages_and_prints_their_positions(server: Server, channel: Name) -> None:
    name = channel("open")
    environment = {"TOCSIN_URL": server.url, "TOCSIN_API_KEY": API_KEY}
    code, lines, _ = tocsin("pub", name, '{"a": 1}', **environment)
    assert code == 0
    assert json.loads(lines[0])["position"].startswith("1@")
    tocsin("pub", name, "not JSON: ö", **environment)
    code, lines, _ = tocsin("pub", name, text='[1]\n\nNaN\n"x"', **environment)
    assert [json.loads(line)["offset"] for line in lines] == [3, 4, 5]
    with Publisher(server.url, API_KEY) as publisher:
        page = publisher.history(name)
    assert [one.data for one in page.publications] == [{"a": 1}, "not JSON: ö", [1], "NaN", "x"]


async def test_pub_reads_utf8_in_every_locale(
    server: Server, publisher: AsyncPublisher, channel: Name
) -> None:
    """A byte order mark, as Windows puts it before a file, is no part of the first message."""
    name = channel("open")
    environment = {"TOCSIN_API_KEY": API_KEY, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    code, lines, errors = await done("pub", name, "--url", server.url, text='\ufeff{"€": 1}\n', **environment)
    assert (code, len(lines), errors) == (0, 1, "")
    page = await publisher.history(name)
    assert [one.data for one in page.publications] == [{"€": 1}]


async def test_pub_reports_a_closed_standard_output(server: Server, channel: Name) -> None:
    command = f"{TOCSIN} pub {channel('open')} 1 --url {server.url} --api-key {API_KEY} >&-"
    process = await asyncio.create_subprocess_shell(command, stderr=PIPE)
    async with asyncio.timeout(2 * SOON):
        _, errors = await process.communicate()
    assert (process.returncode, errors) == (1, b"tocsin: published, but standard output is closed\n")


async def test_pub_sends_json_as_it_was_written(
    server: Server, publisher: AsyncPublisher, channel: Name
) -> None:
    """Also a number that Python cannot represent."""
    name = channel("open")
    async with run("sub", name, "--url", server.url, "--limit", "1") as command:
        await command.reports("subscribed")
        environment = {"TOCSIN_URL": server.url, "TOCSIN_API_KEY": API_KEY}
        code, _, errors = await done("pub", name, "[1e999]", **environment)
        assert code == 0, errors
        assert command.process.stdout is not None
        assert b"[1e999]" in await command.process.stdout.readline()


def test_pub_explains_a_failure_in_one_sentence(server: Server) -> None:
    code, _, errors = tocsin("pub", "news", "1", "--url", server.url)
    assert (code, errors) == (1, "tocsin: the API key is missing or wrong\n")
    code, _, errors = tocsin("pub", "news", "1", "--url", "http://127.0.0.1:9")
    assert code == 1
    assert "cannot be reached" in errors
    code, lines, errors = tocsin(
        "pub", "objects:x", "--url", server.url, "--api-key", API_KEY, text='{"a":1}\n2\n{"a":3}\n'
    )
    assert (code, len(lines)) == (1, 1)
    assert "(message 2; the messages before it are published)" in errors


async def test_token_creates_tokens_that_the_server_accepts(server: Server, channel: Name) -> None:
    environment = {"TOCSIN_CLIENT__TOKEN_HMAC_SECRET": SECRET}
    code, [token], _ = tocsin("token", "--user", "ada", "--info", '{"name":"Ada"}', **environment)
    assert code == 0
    claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    assert (claims["sub"], claims["info"], claims["exp"] - claims["iat"]) == ("ada", {"name": "Ada"}, 3600)
    async with run("sub", channel("known"), "--url", server.url, TOCSIN_TOKEN=token) as command:
        await command.reports("subscribed")
    _, [token], _ = tocsin("token", "--channel", "$a", "--ttl", "2d", "--secret", SECRET)
    claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    assert (claims["channel"], claims["exp"] - claims["iat"]) == ("$a", 2 * 86400)
    _, [token], _ = tocsin("token", "--ttl", "0", "--secret", SECRET)
    assert "exp" not in jwt.decode(token, SECRET, algorithms=["HS256"])


def test_token_reads_a_secret_as_the_server_does() -> None:
    """Without the line end of its file."""
    variable = "TOCSIN_CLIENT__TOKEN_HMAC_SECRET"
    code, [token], errors = tocsin("token", **{variable: f"\ufeff{SECRET}\r\n"})
    assert (code, errors) == (0, "")
    assert jwt.decode(token, SECRET, algorithms=["HS256"])
    _, [token], _ = tocsin("token", "--secret", f'"{SECRET}"')
    assert jwt.decode(token, f'"{SECRET}"', algorithms=["HS256"])
    code, _, errors = tocsin("token", **{variable: "\n"})
    assert code == 1
    assert "the secret is missing" in errors


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (["token"], "TOCSIN_CLIENT__TOKEN_HMAC_SECRET"),
        (["load"], "TOCSIN_CLIENT__TOKEN_HMAC_SECRET"),
        (["load"], "TOCSIN_URL"),
        (["sub", "news"], "TOCSIN_TOKEN"),
        (["pub", "news", "1"], "TOCSIN_API_KEY"),
        (["nodes"], "TOCSIN_URL"),
    ],
)
def test_a_variable_in_quotation_marks_is_refused(arguments: list[str], variable: str) -> None:
    """As some programs read files of environment variables. The server refuses its own in the same way."""
    code, lines, errors = tocsin(*arguments, **{variable: "'value'"})
    assert (code, lines) == (1, [])
    assert errors == f"tocsin: {variable} is in quotation marks: write its value without them\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "TOCSIN_CLIENT__TOKEN_HMAC_SECRET"),
        (["--secret", SECRET, "--ttl", "soon"], "--ttl is 'soon'"),
        (["--secret", SECRET, "--info", "{"], "--info is not JSON"),
    ],
)
def test_token_explains_a_wrong_option_in_one_sentence(arguments: list[str], words: str) -> None:
    code, lines, errors = tocsin("token", *arguments)
    assert (code, lines) == (1, [])
    assert words in errors


def test_help_names_every_command_and_a_wrong_name_gets_a_suggestion() -> None:
    code, lines, _ = tocsin("--help")
    assert code == 0
    text = "\n".join(lines)
    names = ("demo", "serve", "sub", "pub", "token", "check-config")
    places = [text.index(f" {name} ") for name in names]
    assert places == sorted(places)
    assert tocsin("--version").lines == [f"tocsin {version('tocsin')}"]
    code, _, errors = tocsin("suv")
    assert code == 2
    assert "Did you mean 'sub'?" in errors


def test_a_command_whose_task_raises_fails_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the process of the test, where asyncio does not log to the standard error of a process."""

    async def fail() -> None:
        raise LookupError("lost")

    async def lose_a_task() -> None:
        lost = asyncio.create_task(fail())
        await asyncio.wait([lost])

    def main() -> None:
        asyncio.run(lose_a_task())
        sys.exit(0)

    monkeypatch.setattr("tests.support.command_line.main", main)
    with pytest.raises(AssertionError, match="LookupError: lost"):
        tocsin()


async def test_a_command_whose_package_is_missing_names_the_package_to_install(tmp_path: Path) -> None:
    """As when only the client is installed."""
    script = tmp_path / "client_only.py"
    script.write_text(
        "import sys\nsys.modules['tocsin_server'] = None\nfrom tocsin.cli import main\nmain()\n"
    )
    for flags in ([], ["--insecure", "--port", "0"], ["x", "y"]):
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, "serve", *flags, stderr=PIPE, stdout=PIPE
        )
        output, errors = await process.communicate()
        assert process.returncode == 1
        assert output == b""
        assert errors.startswith(b"tocsin: tocsin serve needs the server: pip install 'tocsin[server]'")
