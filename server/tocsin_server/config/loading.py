"""Loading the configuration of a node from a TOML file, the environment and flags, in rising priority.

The configuration is read once, at start. Every key of the file is also an environment variable:
`[client] insecure` is `TOCSIN_CLIENT__INSECURE`.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from tocsin_server.config.admin_options import AdminOptions
from tocsin_server.config.api_key_options import ApiKeyOptions, shared_keys
from tocsin_server.config.channel_options import NAMESPACE_PATTERN, ChannelOptions
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.errors import ConfigError, Location, is_section, sentences, suggestion
from tocsin_server.config.event_options import EventOptions
from tocsin_server.config.issuer_options import IssuerOptions
from tocsin_server.config.limit_options import LimitOptions
from tocsin_server.config.options import ApiOptions, EngineOptions, ServerOptions
from tocsin_server.config.proxy_options import ProxyOptions
from tocsin_server.config.proxy_use import proxies_without_url, proxy_uses, unknown_proxies
from tocsin_server.config.source_options import OutboxOptions, PublishStreamOptions
from tocsin_server.config.values import Options
from tocsin_server.config.webhook_options import WebhookOptions

KEY_NAME_PATTERN = r"[-a-zA-Z0-9_]{1,64}"
"""Valid names of API keys: they are labels of metrics, and part of a header."""

_PREFIX = "TOCSIN_"
_SEPARATOR = "__"
_ENVIRONMENT = "the environment"
_SERVICE_LINKS = ("tcp://", "udp://", "sctp://")
"""How values begin that Kubernetes sets for a Service whose name begins with "tocsin"."""


def _namespace_name(value: str) -> str:
    if not re.fullmatch(NAMESPACE_PATTERN, value):
        raise ValueError('two or more letters, digits, "-" or "_"')
    return value


def _key_name(value: str) -> str:
    if not re.fullmatch(KEY_NAME_PATTERN, value):
        raise ValueError('at most 64 letters, digits, "-" or "_"')
    return value


class Settings(Options):
    """All sections of the configuration. Without arguments it holds the safe defaults."""

    server: ServerOptions = ServerOptions()
    engine: EngineOptions = EngineOptions()
    client: ClientOptions = ClientOptions()
    api: ApiOptions = ApiOptions()
    admin: AdminOptions = AdminOptions()
    api_keys: dict[Annotated[str, AfterValidator(_key_name)], ApiKeyOptions] = Field(default_factory=dict)
    """Keys of the HTTP API that have a name and may be limited, by name."""
    limits: LimitOptions = LimitOptions()
    events: EventOptions = EventOptions()
    channels: ChannelOptions = ChannelOptions()
    """Options of channels without a namespace."""
    namespaces: dict[Annotated[str, AfterValidator(_namespace_name)], ChannelOptions] = Field(
        default_factory=dict
    )
    """Options of the channels `NAME:…`, by namespace."""
    issuers: dict[Annotated[str, AfterValidator(_namespace_name)], IssuerOptions] = Field(
        default_factory=dict
    )
    """Issuers of tokens beside the one of `[client]`."""
    webhooks: dict[Annotated[str, AfterValidator(_key_name)], WebhookOptions] = Field(default_factory=dict)
    """Receivers of lifecycle events, by name."""
    proxies: dict[Annotated[str, AfterValidator(_key_name)], ProxyOptions] = Field(default_factory=dict)
    """Back ends that decide by HTTP what clients may do, by name."""
    outbox: OutboxOptions = OutboxOptions()
    publish_stream: PublishStreamOptions = PublishStreamOptions()

    @model_validator(mode="after")
    def _personal_channels_have_a_namespace(self) -> Self:
        name = self.client.personal_channel_namespace
        if name and name not in self.namespaces:
            raise ValueError(
                f'client.personal_channel_namespace is "{name}", but there is no section [namespaces.{name}]'
            )
        return self

    @model_validator(mode="after")
    def _publish_stream_is_in_redis(self) -> Self:
        if self.publish_stream.enabled and self.engine.is_in_memory:
            raise ValueError(
                "publish_stream.enabled is true, but engine.url is memory://, and the stream is in Redis"
            )
        return self

    @model_validator(mode="after")
    def _issuers_are_complete(self) -> Self:
        names: dict[str, str] = {}
        if self.client.token_issuer:
            names[self.client.token_issuer] = "client.token_issuer"
        for name, issuer in self.issuers.items():
            section = f"[issuers.{name}]"
            if not issuer.issuer:
                raise ValueError(f"{section} needs issuer, the `iss` of its tokens")
            if not (issuer.secrets or issuer.keys or issuer.jwks_url):
                raise ValueError(f"{section} needs secrets, keys or jwks_url, or no token can be verified")
            if issuer.issuer in names:
                raise ValueError(f'{section} has the issuer "{issuer.issuer}", as {names[issuer.issuer]} has')
            names[issuer.issuer] = section
        return self

    @model_validator(mode="after")
    def _webhooks_are_complete(self) -> Self:
        for name, webhook in self.webhooks.items():
            if not webhook.url:
                raise ValueError(f"[webhooks.{name}] needs url, the address to which events are sent")
        return self

    @model_validator(mode="after")
    def _keys_have_one_name(self) -> Self:
        for name, options in self.api_keys.items():
            if not options.keys:
                raise ValueError(f"[api_keys.{name}] must have at least one key in keys")
        sections = [("[api]", self.api.keys)]
        sections += [(f"[api_keys.{name}]", options.keys) for name, options in self.api_keys.items()]
        if found := shared_keys(sections):
            raise ValueError(f"{found[0]} and {found[1]} have the same key, so that its rights are not clear")
        return self

    @model_validator(mode="after")
    def _proxies_are_complete(self) -> Self:
        uses = proxy_uses(self.client, self.channels, self.namespaces)
        for problem in (*proxies_without_url(self.proxies), *unknown_proxies(uses, self.proxies)):
            raise ValueError(problem)
        return self


class _Variables(BaseSettings, Settings):
    """Reads the settings from environment variables."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_nested_delimiter=_SEPARATOR, enable_decoding=False
    )


_NAMED: Mapping[str, type[Options]] = {
    "namespaces": ChannelOptions,
    "issuers": IssuerOptions,
    "api_keys": ApiKeyOptions,
    "webhooks": WebhookOptions,
    "proxies": ProxyOptions,
}
"""The sections that have names, and the options of each."""


@dataclass(frozen=True)
class _Layer:
    """The values that one source sets, and its name in messages."""

    name: str
    values: Mapping[str, Any]

    def has(self, location: Location) -> bool:
        table: object = self.values
        for part in location:
            if isinstance(part, int) or part == "[key]":  # a list's item or a name: set with the whole
                break
            if not isinstance(table, Mapping) or part not in table:
                return False
            table = table[part]
        return True


def load_settings(
    path: Path | None = None, overrides: Mapping[str, Mapping[str, object]] | None = None
) -> Settings:
    """Load the settings: the file at `path`, the environment above it, and `overrides` above both.

    `overrides` are the flags of the command line, by section and key; a flag that was not given is None.
    Raises ConfigError with every configuration error that was found.
    """
    layers = [
        _Layer("a flag", _given(overrides or {})),
        _Layer(_ENVIRONMENT, _without_ends(EnvSettingsSource(_Variables)())),
    ]
    if path:
        layers.append(_Layer(str(path), _read(path)))
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = _merge(merged, layer.values)
    problems = [*_unknown_variables(os.environ), *_quoted_variables(os.environ)]
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        problems += sentences(error, lambda location: _origin(location, layers), _known_keys)
    if problems:
        raise ConfigError(*problems)
    return settings


def _given(overrides: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, object]]:
    return {
        section: {key: value for key, value in keys.items() if value is not None}
        for section, keys in overrides.items()
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"The configuration file {path} is not UTF-8: {error.reason}.") from error
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise ConfigError(f"The configuration file {path} is not valid TOML: {error}.") from error
    except OSError as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error.strerror}.") from error


def _without_ends(values: Any) -> Any:
    """The values of the environment without what files and shells put around them: white space, a BOM."""
    if isinstance(values, Mapping):
        return {key: _without_ends(value) for key, value in values.items()}
    return values.strip("\ufeff \t\r\n") if isinstance(values, str) else values


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both_are_tables = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both_are_tables else value
    return merged


def _origin(location: Location, layers: Iterable[_Layer]) -> str:
    """The source that sets a key; for a section, every source that sets one of its keys."""
    setting = [layer.name for layer in layers if layer.has(location)]
    if len(location) > 1 and setting[:1] == [_ENVIRONMENT]:
        return f"the environment variable {_variable(location)}"
    return " and ".join(setting if is_section(location) else setting[:1])


def _variable(location: Location) -> str:
    return _PREFIX + _SEPARATOR.join(part for part in location if isinstance(part, str)).upper()


def _known_keys(location: Location) -> Iterable[str]:
    """The keys that are valid in place of an unknown one."""
    if len(location) == 1:
        return Settings.model_fields
    if location[0] in _NAMED:
        return _NAMED[str(location[0])].model_fields
    section = Settings.model_fields[str(location[0])].annotation
    return getattr(section, "model_fields", ())


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each variable of an unknown section, which pydantic-settings ignores silently."""
    for name in sorted(environment):
        section, separator, _ = name.lower().removeprefix(_PREFIX.lower()).partition(_SEPARATOR)
        if name.upper().startswith(_PREFIX) and separator and section not in Settings.model_fields:
            end = suggestion(section, Settings.model_fields)
            yield f"The environment variable {name} belongs to no known section{end}"
        elif (meant := _meant_by(name)) and not environment[name].startswith(_SERVICE_LINKS):
            yield f"The environment variable {name} sets nothing; did you mean {meant}?"


def _meant_by(name: str) -> str:
    """The variable of a key whose name has one underscore in place of two; empty if there is none."""
    rest = name.lower().removeprefix(_PREFIX.lower())
    if rest == name.lower():
        return ""
    for section in Settings.model_fields:
        key = rest.removeprefix(f"{section}_")
        if key != rest and section not in _NAMED and key in _known_keys((section, key)):
            return _variable((section, key))
    return ""


def _quoted_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each value in quotation marks: a shell removes them, `docker --env-file` does not."""
    for name in sorted(environment):
        value = environment[name].strip()
        is_ours = name.upper().startswith(_PREFIX) and _SEPARATOR in name
        if is_ours and len(value) > 1 and value[0] == value[-1] and value[0] in "\"'`":
            yield f"The value of the environment variable {name} is in quotation marks: remove them."
