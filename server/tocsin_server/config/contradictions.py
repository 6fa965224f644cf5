"""Contradictions: options that are valid each by itself and do not agree, in sentences that name the keys.

`tocsin check-config` fails with them. `tocsin serve` prints them and starts, because the node works as long
as no client reaches the limits.
"""

from __future__ import annotations

from collections.abc import Iterator

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.loading import Settings
from tocsin_server.config.patterns import LinearPattern
from tocsin_server.config.proxy_use import AIOHTTP_IS_MISSING, is_missing_package, proxy_uses
from tocsin_server.config.token_keys import HMAC_ALGORITHMS, configured_key, secret_key

SUBSCRIBE_BYTES = 4096
"""The size of a subscribe command whose token has many claims, such as the groups of an identity provider."""

ENVELOPE_BYTES = 65_536
"""What a message has around its payload: channel, position, tags, the positions of an event stream."""

RETRY_MARGIN_SECONDS = 3600.0
"""The longest `Retry-After` of a webhook's receiver: the last attempt may be so late."""


def contradictions(settings: Settings) -> list[str]:
    """A sentence for each pair of options that do not agree. Empty for the defaults."""
    return [
        *_addresses(settings),
        *_limits(settings),
        *_rates(settings),
        *_times(settings),
        *_personal_channels(settings),
        *_channels(settings),
        *_issuers(settings),
        *_webhooks(settings),
        *_proxies(settings),
    ]


def _addresses(settings: Settings) -> Iterator[str]:
    server, admin = settings.server, settings.admin
    if server.proxy_protocol and not server.trusted_proxies:
        yield (
            "server.proxy_protocol is true, but server.trusted_proxies is empty, so that no connection is "
            "accepted."
        )
    if not admin.host:
        for key in ("public", "tls_certificate", "tls_key"):
            if getattr(admin, key):
                yield f"admin.{key} is set, but has no effect without a separate address (admin.host)."
    for part in admin.public:
        if part not in admin.serve:
            yield f"admin.public has {part}, but admin.serve has not, so that it is not served."


def _limits(settings: Settings) -> Iterator[str]:
    client, body_bytes = settings.client, settings.api.body_limit_bytes
    needed = client.channel_limit * SUBSCRIBE_BYTES
    if client.message_limit_bytes < needed:
        yield (
            f"client.message_limit_bytes is {client.message_limit_bytes}, but must be at least {needed}, "
            f"because an SDK sends client.channel_limit ({client.channel_limit}) subscribe commands with "
            f"tokens of up to {SUBSCRIBE_BYTES} bytes in one message."
        )
    if client.queue_limit_bytes < body_bytes + ENVELOPE_BYTES:
        yield (
            f"client.queue_limit_bytes is {client.queue_limit_bytes}, but must be at least "
            f"{body_bytes + ENVELOPE_BYTES}, because a publication may have api.body_limit_bytes "
            f"({body_bytes}) and its subscribers would be disconnected as slow."
        )
    if client.queue_limit_bytes < client.message_limit_bytes + ENVELOPE_BYTES:
        yield (
            f"client.queue_limit_bytes is {client.queue_limit_bytes}, but must be at least "
            f"{client.message_limit_bytes + ENVELOPE_BYTES}, because a client's publication may have "
            f"client.message_limit_bytes ({client.message_limit_bytes}) and its subscribers would be "
            "disconnected as slow."
        )


def _rates(settings: Settings) -> Iterator[str]:
    """An SDK that reconnects sends the commands of all its channels at once, and must not be refused."""
    client, channels = settings.client, settings.client.channel_limit
    commands = channels + 1
    reason = (
        f"because an SDK that reconnects subscribes to client.channel_limit ({channels}) channels at once"
    )
    for key, burst, needed in (
        ("client.command_burst", client.command_rate and client.command_burst, commands),
        ("client.user_command_burst", client.user_command_rate and client.user_command_burst, commands),
        ("client.new_channel_burst", client.new_channel_rate and client.new_channel_burst, channels),
        (
            "client.user_new_channel_burst",
            client.user_new_channel_rate and client.user_new_channel_burst,
            channels,
        ),
        (
            "limits.new_channel_burst",
            settings.limits.new_channel_rate and settings.limits.new_channel_burst,
            channels,
        ),
    ):
        if 0 < burst < needed:
            yield f"{key} is {burst}, but must be at least {needed}, {reason}."
    if client.error_limit < channels:
        yield (
            f"client.error_limit is {client.error_limit}, but must be at least {channels}, because a client "
            f"that is permitted none of its client.channel_limit ({channels}) channels would be disconnected "
            "for good (3509)."
        )


def _times(settings: Settings) -> Iterator[str]:
    client = settings.client
    if client.token_leeway > client.expired_close_delay:
        yield (
            f"client.token_leeway is {client.token_leeway:g} s, but must be at most "
            f"client.expired_close_delay ({client.expired_close_delay:g} s), because a client that is "
            "disconnected for its expired token would connect with the same token again."
        )
    if client.hook_timeout >= client.stale_timeout:
        yield (
            f"client.hook_timeout is {client.hook_timeout:g} s, but must be less than client.stale_timeout "
            f"({client.stale_timeout:g} s), because a connection whose hook takes so long would be closed."
        )


def _personal_channels(settings: Settings) -> Iterator[str]:
    client = settings.client
    if client.personal_channel_single_connection and not client.personal_channel:
        yield (
            "client.personal_channel_single_connection is true, but has no effect while "
            "client.personal_channel is false."
        )
    if client.personal_channel_namespace and not client.personal_channel:
        yield (
            f'client.personal_channel_namespace is "{client.personal_channel_namespace}", but has no effect '
            "while client.personal_channel is false."
        )
    section, options = "channels", settings.channels
    if name := client.personal_channel_namespace:
        section, options = f"namespaces.{name}", settings.namespaces[name]
    if (
        client.personal_channel
        and options.channel_regex
        and not any(map(LinearPattern(options.channel_regex).is_found_in, ("#42", "#ann")))
    ):
        yield (
            f'{section}.channel_regex is "{options.channel_regex}", but does not match personal channels '
            'such as "#42", so that no user could connect.'
        )
    if client.personal_channel_single_connection and client.user_connection_limit == 1:
        yield (
            "client.user_connection_limit is 1, but refuses the new connection for which "
            "client.personal_channel_single_connection would close the old one: leave it at 0."
        )


def _channels(settings: Settings) -> Iterator[str]:
    yield from _options("channels", settings.channels)
    for name, options in settings.namespaces.items():
        yield from _options(f"namespaces.{name}", options)


def _options(section: str, options: ChannelOptions) -> Iterator[str]:
    if options.force_positioning and not options.keeps_history:
        yield (
            f"{section}.force_positioning is true, but positions need {section}.history_size and "
            f"{section}.history_ttl."
        )
    if options.slow_key and options.slow_policy != "latest":
        yield (
            f'{section}.slow_key is "{options.slow_key}", but has no effect while {section}.slow_policy is '
            f'"{options.slow_policy}".'
        )
    if options.delta_publish and not options.allowed_delta_types:
        yield (
            f"{section}.delta_publish is true, but has no effect while {section}.allowed_delta_types is "
            "empty."
        )
    if options.force_push_join_leave and not options.join_leave:
        yield (
            f"{section}.force_push_join_leave is true, but has no effect while {section}.join_leave is false."
        )


def _issuers(settings: Settings) -> Iterator[str]:
    for name, issuer in settings.issuers.items():
        section = f"issuers.{name}"
        if issuer.leeway > settings.client.expired_close_delay:
            yield (
                f"{section}.leeway is {issuer.leeway:g} s, but must be at most client.expired_close_delay "
                f"({settings.client.expired_close_delay:g} s), because a client that is disconnected for its "
                "expired token would connect with the same token again."
            )
        keys = [*map(secret_key, issuer.secrets), *map(configured_key, issuer.keys)]
        fitting = frozenset[str]().union(*(key.limited_to(issuer.algorithms).algorithms for key in keys))
        if issuer.jwks_url:
            fitting |= {*issuer.algorithms} - {*HMAC_ALGORITHMS}
        for algorithm in issuer.algorithms:
            if algorithm not in fitting:
                yield f"{section}.algorithms has {algorithm}, but no key of [{section}] fits it."
        for template in issuer.channels:
            namespace, boundary, _ = template.partition(":")
            if boundary and "#" not in namespace and namespace.lstrip("$") not in settings.namespaces:
                yield (
                    f'{section}.channels has "{template}", but there is no section '
                    f"[namespaces.{namespace.lstrip('$')}], so that no client of this issuer could connect."
                )


def _webhooks(settings: Settings) -> Iterator[str]:
    for name, webhook in settings.webhooks.items():
        section = f"webhooks.{name}"
        if webhook.retry_for < webhook.timeout:
            yield (
                f"{section}.retry_for is {webhook.retry_for:g} s, but must be at least {section}.timeout "
                f"({webhook.timeout:g} s), because an event is sent again at least once after a late answer."
            )
        if webhook.retry_for + RETRY_MARGIN_SECONDS > settings.events.retention:
            yield (
                f"{section}.retry_for is {webhook.retry_for:g} s, but must be at least "
                f"{RETRY_MARGIN_SECONDS:g} s less than events.retention ({settings.events.retention:g} s), "
                "because an event that is removed from the log cannot become a dead letter."
            )
        if not settings.events.types:
            yield f"[{section}] has no effect, because events.types is empty, so that no event is recorded."
        for kind in webhook.types:
            if settings.events.types and kind not in (*settings.events.types, "state_lost"):
                yield f"{section}.types has {kind}, but events.types has not, so that it is not recorded."
        if webhook.dead_letter_ttl < webhook.retry_for:
            yield (
                f"{section}.dead_letter_ttl is {webhook.dead_letter_ttl:g} s, but must be at least "
                f"{section}.retry_for ({webhook.retry_for:g} s)."
            )
        if (webhook.tls_ca or webhook.tls_certificate) and webhook.url.startswith("http:"):
            yield f"{section}.url begins with http://, so that its files for TLS have no effect."


def _proxies(settings: Settings) -> Iterator[str]:
    uses = proxy_uses(settings.client, settings.channels, settings.namespaces)
    if is_missing_package(uses):
        yield AIOHTTP_IS_MISSING
    used = {use.proxy for use in uses}
    for name, options in settings.proxies.items():
        section = f"proxies.{name}"
        if name not in used:
            yield f"[{section}] has no effect, because no option such as client.connect_proxy names it."
        for key in ("tls_ca", "tls_certificate", "tls_key"):
            if getattr(options, key) and not options.is_https:
                yield f"{section}.{key} is set, but has no effect while {section}.url is no https:// address."
        for header in options.http_headers:
            if header in options.static_headers:
                yield (
                    f"{section}.http_headers has {header}, but {section}.static_headers replaces it in every "
                    "request."
                )
