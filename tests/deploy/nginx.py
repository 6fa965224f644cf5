"""A real nginx with the repository's configuration, on other addresses."""

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.timing import STARTED, TICK

DEPLOY = Path(__file__).parents[2] / "deploy"
HOST = "127.0.0.1"


Tls = tuple[Path, Path] | None
"""The files of a certificate and of its key."""


def configuration(text: str, port: int, nodes: Sequence[int], directory: Path, tls: Tls) -> str:
    """The repository's configuration with other addresses, one worker process, and files in `directory`.

    With `tls`, its lines for TLS are uncommented.
    """

    def servers(found: re.Match[str]) -> str:
        indent, options = found[1], found[2]
        return "".join(f"{indent}server {HOST}:{node}{options};\n" for node in nodes)

    text, upstreams = re.subn(r"(?:( +)server node-\d:8000( [^;]+);\n)+", servers, text)
    assert upstreams == 2
    if tls is not None:
        text = re.sub(r"(?m)^ +listen 80 .*\n", "", text)
        text = re.sub(r"(?m)^( +)# (listen 443|ssl_certificate)", r"\1\2", text)
        for name, file in zip(("tls.crt", "tls.key"), tls, strict=True):
            text = text.replace(f"/etc/nginx/tls/{name}", str(file))
    text, replaced = re.subn(r"(?m)^( +)listen (?:80|443) ", rf"\1listen {HOST}:{port} ", text)
    assert replaced == 1
    text = text.replace("worker_processes auto;", "worker_processes 1;")
    text = re.sub(r"worker_rlimit_nofile \d+;", "", text)  # only root may raise it
    text = text.replace("worker_connections 65536;", "worker_connections 4096;")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"    {kind}_temp_path {directory / kind};\n" for kind in kinds)
    return text.replace("http {\n", "http {\n" + paths)


@contextlib.contextmanager
def run_nginx(
    nodes: Sequence[int],
    port: int,
    directory: Path,
    *,
    tls: Tls = None,
    without: str = "(?!)",
    added: str = "",
) -> Iterator[Path]:
    """Run nginx in front of nodes. The value is its error log. It must start without warnings.

    Lines of the configuration that match `without` are left out, and `added` is added to `http`.
    """
    file, errors = directory / "nginx.conf", directory / "errors.log"
    text = re.sub(rf"(?m)^.*{without}.*\n", "", (DEPLOY / "nginx" / "nginx.conf").read_text())
    text = text.replace("http {\n", f"http {{\n{added}\n")
    file.write_text(configuration(text, port, nodes, directory, tls))
    directives = f"daemon off; pid {directory / 'nginx.pid'};"
    process = subprocess.Popen(
        ["nginx", "-p", str(directory), "-e", str(errors), "-c", str(file), "-g", directives],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _wait_until_listening(process, port)
        yield errors
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=STARTED)
    assert "[emerg]" not in output, output
    assert "[warn]" not in output, output


def _wait_until_listening(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + STARTED
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), STARTED):
            return
        time.sleep(TICK / 5)
    raise AssertionError("nginx does not listen")
