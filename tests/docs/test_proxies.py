"""docs/proxies.md: its configuration is valid; its verification accepts only what a node signs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tocsin_server.config.loading import load_settings
from tocsin_server.config.proxy_use import proxy_uses
from tocsin_server.hooks.signing import signature

PAGE = (Path(__file__).parents[2] / "docs" / "proxies.md").read_text()
SECRET = b"a secret of 32 random bytes, once"
BODY = b'{"client": "1"}'

IsGenuine = Callable[..., bool]


def block_with(text: str, language: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    (found,) = (block for block in blocks if text in block)
    return found


@pytest.fixture(scope="module")
def is_genuine() -> IsGenuine:
    """The function of the page."""
    names: dict[str, Any] = {}
    exec(block_with("def is_genuine", "python"), names)
    function: IsGenuine = names["is_genuine"]
    return function


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "tocsin.toml"
    file.write_text(block_with("[proxies.app]", "toml"))
    settings = load_settings(file)
    keys = [use.key for use in proxy_uses(settings.client, settings.channels, settings.namespaces)]
    assert keys == ["client.connect_proxy", "namespaces.room.subscribe_proxy"]


def test_the_back_end_of_the_page_is_valid_python() -> None:
    compile(block_with("/centrifugo/connect", "python"), "page", "exec")


def test_a_request_of_the_node_is_genuine(is_genuine: IsGenuine) -> None:
    now = int(time.time())
    assert is_genuine(signature([SECRET], BODY, now), BODY, SECRET)
    assert is_genuine(signature([b"the next secret", SECRET], BODY, now), BODY, SECRET)


def test_a_forged_or_repeated_request_is_not(is_genuine: IsGenuine) -> None:
    now = int(time.time())
    genuine = signature([SECRET], BODY, now)
    assert not is_genuine(genuine, BODY + b" ", SECRET)
    assert not is_genuine(genuine, BODY, b"another secret")
    assert not is_genuine(signature([SECRET], BODY, now - 120), BODY, SECRET)
    assert not is_genuine(genuine.replace(f"t={now}", f"t={now + 1}"), BODY, SECRET)
    for broken in ("", "t=", "v1=", "t=x,v1=y", genuine.partition(",")[0], "t=1,v1=é", genuine[:-1]):
        assert not is_genuine(broken, BODY, SECRET)
