"""`make tools` names all programs that the tests need and pip cannot install, before any test runs."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import browser
from tests.support.timing import STARTED

TOP = Path(__file__).parents[1]
PACKAGES = {
    "node": "nodejs",
    "npm": "npm",
    "chromium": "chromium",
    "nginx": "nginx-light",
    "redis-server": "redis-server",
    "faketime": "faketime",
    "curl": "curl",
}
"""Each program, with its Debian package."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH with every program under its name. The programs do nothing."""
    for program in PACKAGES:
        (tmp_path / program).symlink_to("/bin/true")
    return tmp_path


def tools(path: Path) -> subprocess.CompletedProcess[str]:
    make = shutil.which("make")
    assert make is not None
    command = [make, "--directory", str(TOP), "tools", f"PATH={path}"]
    return subprocess.run(command, env={}, capture_output=True, text=True, timeout=STARTED, check=False)


def test_a_machine_with_all_programs_gets_no_message(path: Path) -> None:
    assert (tools(path).returncode, tools(path).stderr) == (0, "")


@pytest.mark.parametrize("name", browser.NAMES)
def test_every_name_of_the_browser_is_accepted(
    path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `make tools` and by the tests that drive the browser."""
    (path / "chromium").rename(path / name)
    assert tools(path).returncode == 0
    monkeypatch.setenv("PATH", str(path))
    assert browser.chromium() == str(path / name)


@pytest.mark.parametrize("absent", [["nginx"], ["node", "chromium"], list(PACKAGES)], ids=" ".join)
def test_the_installation_command_has_every_missing_package(path: Path, absent: list[str]) -> None:
    for program in absent:
        (path / program).unlink()
    ended = tools(path)
    assert ended.returncode != 0
    packages = " ".join(PACKAGES[program] for program in absent)
    assert f"apt-get install --no-install-recommends {packages}\n" in ended.stderr


def test_an_old_nodejs_counts_as_missing(path: Path) -> None:
    (path / "node").unlink()
    (path / "node").symlink_to("/bin/false")
    assert "install --no-install-recommends nodejs\n" in tools(path).stderr
