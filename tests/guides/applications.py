"""The applications of docs/integrate/: made from a page as its reader makes them, and run beside Tocsin."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tests.docs.examples import Page, free_ports, page, replaced, running, shell, write_file
from tests.support.api import NO_TLS
from tests.support.timing import SOON, STARTED

Json = dict[str, Any]

NODE_MODULES = Path(__file__).parent / "js" / "node_modules"
PASSWORD = "a password of your choice"
"""As all pages have it."""
API_KEY = {"TOCSIN_API__KEYS": "the key of the test"}
"""For an application that needs none."""
PREPARED = 3 * STARTED
"""The longest time for the commands of one block, such as Django's migrations."""
SERVING = re.compile(
    r"(?m)^(tocsin serve|python manage.py runserver|flask .* run|node board|php -S|uvicorn) ?"
)
"""A line that runs until it is stopped."""
INSTALLING = ("python3 -m venv", "pip install", "npm install")
"""How lines begin that this machine has done already: the packages are those of pyproject.toml and js/."""


@dataclass(frozen=True)
class Guide:
    """A page, and how its application is reached."""

    name: str
    is_embedded: bool = False
    """Whether Tocsin runs inside the application, below `/push`."""
    sends_forms: bool = False
    """Whether the application reads forms, with a CSRF token. The others read JSON."""

    def __str__(self) -> str:
        return self.name

    @property
    def page(self) -> Page:
        return page(f"integrate/{self.name}.md")


GUIDES = (
    Guide("django", sends_forms=True),
    Guide("node"),
    Guide("php"),
    Guide("flask"),
    Guide("fastapi", is_embedded=True),
)


class Visitor:
    """An HTTP client of the application, with the cookies of its own."""

    def __init__(self, application: Application, name: str) -> None:
        self.name = name
        self.application = application
        self.http = httpx.AsyncClient(base_url=application.url, trust_env=False, timeout=SOON, verify=NO_TLS)

    async def post(self, path: str, **fields: str) -> httpx.Response:
        """Send the fields as the application's own page sends them."""
        if not self.application.guide.sends_forms:
            return await self.http.post(path, json=fields)
        token = self.http.cookies.get("csrftoken") or ""
        return await self.http.post(path, data=fields, headers={"X-CSRFToken": token})

    async def log_in(self, password: str = PASSWORD) -> httpx.Response:
        """Open the page, and send its first form."""
        await self.http.get("/")
        return await self.post("/login", username=self.name, password=password)

    async def get(self, path: str) -> Json:
        """The JSON of an answer, which must be a success."""
        response = await self.http.get(path)
        assert response.status_code == 200, (path, response.status_code, response.text)
        answer: Json = response.json()
        return answer

    @property
    def cookie(self) -> str:
        """The cookies, as a browser sends them."""
        return "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())

    async def token(self) -> str:
        """A connection token from the application, or none where there are no tokens."""
        return str((await self.get("/me")).get("token", ""))

    async def subscription_token(self, _channel: str) -> str:
        """A subscription token from the application, which has one for the user's own channel only."""
        return str((await self.get("/me")).get("subscription_token", ""))


class ServerProcess:
    """A server that a block of the page starts. The mutable state is the running process."""

    def __init__(self, script: str, folder: Path, port: str, **variables: str) -> None:
        *before, command = script.strip().splitlines()
        lines = "\n".join([*before, f"exec {command}"])
        self.url = f"http://127.0.0.1:{port}"
        self._start = partial(
            running, f"bash -c {shlex.quote(lines)}", folder, port, logs_errors=True, **variables
        )
        self._process = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Return once its port is open."""
        await self._process.enter_async_context(self._start())

    async def stop(self) -> None:
        """Return once it has ended."""
        await self._process.aclose()


@dataclass(frozen=True)
class Application:
    """A running application, with the addresses of it and of Tocsin."""

    guide: Guide
    url: str
    tocsin_url: str
    secrets: Mapping[str, str]
    """Those that the page's own command made, by the names of their environment variables."""
    tocsin: ServerProcess | None
    """Tocsin beside the application; None if it is embedded."""

    @property
    def websocket_url(self) -> str:
        return f"{self.tocsin_url.replace('http', 'ws', 1)}/connection/websocket"

    @contextlib.asynccontextmanager
    async def visitor(self, name: str) -> AsyncIterator[Visitor]:
        """A user of the application who has logged in."""
        visitor = Visitor(self, name)
        async with visitor.http:
            response = await visitor.log_in()
            assert response.is_success, response.text
            yield visitor

    @contextlib.asynccontextmanager
    async def without_tocsin(self) -> AsyncIterator[None]:
        """Stop Tocsin, and start it again at the end."""
        assert self.tocsin is not None
        await self.tocsin.stop()
        try:
            yield
        finally:
            await self.tocsin.start()

    async def call(self, method: str, **params: object) -> Json:
        """Call a method of Tocsin's HTTP API, and return its result."""
        async with httpx.AsyncClient(trust_env=False, timeout=SOON, verify=NO_TLS) as http:
            response = await http.post(
                f"{self.tocsin_url}/api/{method}",
                json=params,
                headers={"X-API-Key": self.secrets["TOCSIN_API__KEYS"]},
            )
        result: Json = response.json()["result"]
        return result


@contextlib.asynccontextmanager
async def run_application(guide: Guide, folder: Path) -> AsyncIterator[Application]:
    """Do what the page says, from its first line to its last, on free ports."""
    ports = free_ports("8000", "8001")
    (folder / "node_modules").symlink_to(NODE_MODULES)
    servers: list[str] = []
    for example in guide.page.examples:
        if example.file_name:
            write_file(example, folder, ports)
        elif example.language == "sh":
            script = replaced(example.text, ports)
            if SERVING.search(script):
                servers.append(script)
            else:
                await _run(script, folder)
    if guide.is_embedded:
        (script,) = servers
        own = ServerProcess(script, folder, ports["8000"], **API_KEY)
        application = Application(guide, own.url, f"{own.url}/push", API_KEY, None)
    else:
        beside, script = servers
        tocsin = ServerProcess(beside, folder, ports["8000"])
        own = ServerProcess(script, folder, ports["8001"])
        application = Application(guide, own.url, tocsin.url, _secrets(folder), tocsin)
    async with contextlib.AsyncExitStack() as stack:
        for server in filter(None, (application.tocsin, own)):
            stack.push_async_callback(server.stop)
            await server.start()
        yield application


async def _run(script: str, folder: Path) -> None:
    """Run the lines of a block, except those that install packages. Each must succeed."""
    lines = [line for line in script.splitlines() if not line.startswith(INSTALLING)]
    printed = await shell("\n".join(["set -e", "exec 2>&1", *lines, "echo done"]), folder, PREPARED)
    assert printed.endswith("done\n"), f"{script}\n{printed}"


def _secrets(folder: Path) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\w+)", (folder / "secrets.env").read_text()))
