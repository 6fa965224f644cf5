"""Proxies cost nothing unless an option names one, and need a package that a node may lack."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.server.hooks.proxy.events import proxies_to
from tocsin_server.config.loading import Settings
from tocsin_server.config.proxy_use import AIOHTTP_IS_MISSING
from tocsin_server.hooks.proxy.proxies import Proxies
from tocsin_server.hooks.registry import Hooks
from tocsin_server.metrics.registry import Metrics

PROGRAM = """
import sys
from tocsin_server.app import create_app
from tocsin_server.config.loading import Settings
back = {"back": {"url": "http://127.0.0.1:1/"}}
create_app(Settings.model_validate({"proxies": back}))
print("aiohttp" in sys.modules)
sys.modules["aiohttp"] = None
try:
    create_app(Settings.model_validate({"client": {"rpc_proxy": "back"}, "proxies": back}))
except ValueError as error:
    print(error)
"""


def test_aiohttp_is_imported_only_for_proxies_that_are_used_and_its_lack_has_a_sentence() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", AIOHTTP_IS_MISSING]


def test_certificates_that_cannot_be_used_have_a_sentence() -> None:
    settings = Settings.model_validate(
        {
            "client": {"rpc_proxy": "back"},
            "proxies": {"back": {"url": "https://app.example/", "tls_ca": "/missing.pem"}},
        }
    )
    with pytest.raises(ValueError, match=r"\[proxies.back\] cannot be used: No such file"):
        Proxies(settings, Metrics())


async def test_hooks_have_the_proxies_with_their_timeouts_and_headers() -> None:
    async with proxies_to("http://127.0.0.1:1/", {"http_headers": ["Cookie"], "timeout": 2}) as proxies:
        hooks = Hooks()
        proxies.proxies.add_to(hooks)
        assert hooks.longest_seconds(1) > 2
        kept = hooks.kept_headers.request(
            "websocket", "json", "", {b"cookie": b"a=1", b"x-other": b"1"}, "", cookies_count=True
        )
        assert dict(kept.headers) == {"cookie": "a=1"}
