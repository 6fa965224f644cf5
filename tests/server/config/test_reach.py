"""What is printed about each listening address."""

import pytest

from tocsin_server.config.loading import Settings
from tocsin_server.config.reach import reach


@pytest.mark.parametrize(
    ("sections", "lines"),
    [
        (
            {},
            (
                "http://127.0.0.1:8000 serves connections, the API to no caller (api.keys is not set), docs, "
                "health, metrics to private networks or with a key."
            ),
        ),
        (
            {"api": {"keys": ["key"]}, "admin": {"host": "::1"}},
            (
                "http://127.0.0.1:8000 serves connections.\n"
                "http://[::1]:8001 serves the API with a key, docs, health, metrics."
            ),
        ),
        (
            {"server": {"host": ["::", "unix:/s"], "tls_certificate": "a"}, "api": {"insecure": True}},
            "https://[::]:8000, unix:/s serves connections, the API without a key, docs, health, metrics.",
        ),
        (
            {"server": {"proxy_protocol": True}, "admin": {"serve": []}},
            "http://127.0.0.1:8000 serves connections, through proxies alone (PROXY protocol).",
        ),
        (
            {"admin": {"host": "::1", "serve": ["health"], "public": ["health"], "tls_certificate": "a"}},
            "http://127.0.0.1:8000 serves connections, health.\nhttps://[::1]:8001 serves health.",
        ),
    ],
)
def test_each_address_has_a_line(sections: dict[str, object], lines: str) -> None:
    assert "\n".join(reach(Settings.model_validate(sections))) == lines
