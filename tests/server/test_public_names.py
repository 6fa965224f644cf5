"""The names that an embedding application imports from `tocsin_server`."""

import subprocess
import sys

import pytest

import tocsin_server
from tocsin_server import app


@pytest.mark.parametrize("name", tocsin_server.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(tocsin_server, name)


def test_a_public_name_is_that_of_its_module() -> None:
    assert tocsin_server.create_app is app.create_app


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'create_ap'"):
        tocsin_server.create_ap  # type: ignore[attr-defined]  # noqa: B018 - the access is the test


def test_importing_the_package_does_not_import_the_server() -> None:
    """A single module, such as `tocsin_server.errors`, stays cheap to import."""
    heavy = {"pydantic", "starlette", "uvicorn"}
    program = f"import sys, tocsin_server.errors; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
