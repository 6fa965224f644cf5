"""docs/configuration.md agrees with the code."""

import re
import tomllib
from pathlib import Path

import pytest

from tocsin_server.config.admin_options import AdminOptions
from tocsin_server.config.api_key_options import ApiKeyOptions
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.event_options import EventOptions
from tocsin_server.config.issuer_options import IssuerOptions
from tocsin_server.config.limit_options import LimitOptions
from tocsin_server.config.loading import load_settings
from tocsin_server.config.options import ApiOptions, EngineOptions, ServerOptions
from tocsin_server.config.proxy_options import ProxyOptions
from tocsin_server.config.source_options import OutboxOptions, PublishStreamOptions
from tocsin_server.config.values import Options
from tocsin_server.config.webhook_options import WebhookOptions

PAGE = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()


@pytest.mark.parametrize(
    ("section", "options"),
    [
        ("[server]", ServerOptions()),
        ("[engine]", EngineOptions()),
        ("[client]", ClientOptions()),
        ("[api]", ApiOptions()),
        ("[admin]", AdminOptions()),
        ("[api_keys.NAME]", ApiKeyOptions()),
        ("[outbox]", OutboxOptions()),
        ("[publish_stream]", PublishStreamOptions()),
        ("[limits]", LimitOptions()),
        ("[events]", EventOptions()),
        ("[issuers.NAME]", IssuerOptions()),
        ("[webhooks.NAME]", WebhookOptions()),
        ("[proxies.NAME]", ProxyOptions()),
        ("[channels] and [namespaces.NAME]", ChannelOptions()),
    ],
)
def test_the_page_has_every_key_with_its_default(section: str, options: Options) -> None:
    """The defaults in the table, read as TOML, are those of the section. No key is missing or unknown."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, re.MULTILINE)
    written = {key: tomllib.loads(f"value = {default}")["value"] for key, default in rows}
    assert list(written) == list(type(options).model_fields)
    for key, default in written.items():
        assert getattr(type(options)(**{key: default}), key) == getattr(options, key)


def test_the_example_is_a_valid_configuration(tmp_path: Path) -> None:
    """The example is used unchanged."""
    file = tmp_path / "tocsin.toml"
    file.write_text(PAGE.partition("```toml\n")[2].partition("```")[0])
    assert load_settings(file).namespaces["chat"].keeps_history
