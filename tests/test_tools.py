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
    "initdb": "postgresql",
}
"""Each program, with its Debian package."""
SDK_PACKAGES = {
    "node": "nodejs",
    "npm": "npm",
    "redis-server": "redis-server",
    "go": "golang-go",
    "javac": "default-jdk-headless",
    "mvn": "maven",
}
"""The same of `make test-sdks`."""

GUIDE_PACKAGES = {
    "node": "nodejs",
    "npm": "npm",
    "chromium": "chromium",
    "openssl": "openssl",
    "php": "php-cli php-sqlite3",
}
"""The same of `make test-guides`."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH with every program under its name. The programs do nothing."""
    for program in PACKAGES:
        (tmp_path / program).symlink_to("/bin/true")
    return tmp_path


def tools(path: Path, target: str = "tools") -> subprocess.CompletedProcess[str]:
    make = shutil.which("make")
    assert make is not None
    command = [make, "--directory", str(TOP), target, f"PATH={path}"]
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


@pytest.fixture
def sdk_path(path: Path) -> Path:
    """A PATH with every program of the tests of SDKs, and with a recent Go."""
    for program in SDK_PACKAGES:
        if not (path / program).exists():
            (path / program).symlink_to("/bin/true")
    _make_go(path, "go1.26.8")
    (path / "awk").symlink_to(shutil.which("awk") or "")
    return path


def test_a_machine_with_all_programs_of_the_sdks_gets_no_message(sdk_path: Path) -> None:
    ended = tools(sdk_path, "sdk-tools")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("absent", [["go"], ["javac", "mvn"], list(SDK_PACKAGES)], ids=" ".join)
def test_the_installation_command_has_every_missing_package_of_the_sdks(
    sdk_path: Path, absent: list[str]
) -> None:
    for program in absent:
        (sdk_path / program).unlink()
    ended = tools(sdk_path, "sdk-tools")
    assert ended.returncode != 0
    packages = " ".join(SDK_PACKAGES[program] for program in absent)
    assert f"apt-get install --no-install-recommends {packages}\n" in ended.stderr


def test_an_old_go_is_refused(sdk_path: Path) -> None:
    _make_go(sdk_path, "go1.19.8")
    ended = tools(sdk_path, "sdk-tools")
    assert ended.returncode != 0
    assert "need Go 1.21 or later, and this is go version go1.19.8 linux/amd64." in ended.stderr


@pytest.fixture
def guide_path(path: Path) -> Path:
    """A PATH with every program of the tests of guides."""
    for program in GUIDE_PACKAGES:
        if not (path / program).exists():
            (path / program).symlink_to("/bin/true")
    return path


def test_a_machine_with_all_programs_of_the_guides_gets_no_message(guide_path: Path) -> None:
    ended = tools(guide_path, "guide-tools")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("absent", [["openssl"], ["npm", "php"], list(GUIDE_PACKAGES)], ids=" ".join)
def test_the_installation_command_has_every_missing_package_of_the_guides(
    guide_path: Path, absent: list[str]
) -> None:
    for program in absent:
        (guide_path / program).unlink()
    ended = tools(guide_path, "guide-tools")
    assert ended.returncode != 0
    packages = " ".join(GUIDE_PACKAGES[program] for program in absent)
    assert f"apt-get install --no-install-recommends {packages}\n" in ended.stderr


def test_a_php_without_sqlite_needs_a_package(guide_path: Path) -> None:
    (guide_path / "php").unlink()
    (guide_path / "php").symlink_to("/bin/false")
    assert "install --no-install-recommends php-sqlite3\n" in tools(guide_path, "guide-tools").stderr


def _make_go(path: Path, version: str) -> None:
    program = path / "go"
    program.unlink(missing_ok=True)
    program.write_text(f"#!/bin/sh\necho go version {version} linux/amd64\n")
    program.chmod(0o755)
