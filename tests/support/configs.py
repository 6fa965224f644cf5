"""The configurations under test. Each namespace is named after the property that it has."""

from typing import Any

from tests.support.tokens import SECRET

API_KEY = "the-key-of-the-tests"
SECOND_API_KEY = "another-key"
TRUSTED_ORIGIN = "https://app.example"

Table = dict[str, Any]

PERMIT_ALL: Table = {
    "allow_subscribe_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "allow_publish_for_client": True,
    "allow_publish_for_anonymous": True,
    "allow_history_for_client": True,
    "allow_history_for_anonymous": True,
    "allow_presence_for_client": True,
    "allow_presence_for_anonymous": True,
}
HISTORY: Table = {"history_size": 100, "history_ttl": "300s"}
PRESENCE: Table = {"presence": True, "join_leave": True}

NAMESPACES: dict[str, Table] = {
    "open": {**PERMIT_ALL, **HISTORY, **PRESENCE, "force_recovery": True, "force_push_join_leave": True},
    "closed": {**HISTORY, **PRESENCE},
    "plain": PERMIT_ALL,
    "short": {**PERMIT_ALL, "history_size": 5, "history_ttl": "300s", "force_recovery": True},
    "brief": {**PERMIT_ALL, "history_size": 10, "history_ttl": "1s", "force_recovery": True},
    "long": {**PERMIT_ALL, "history_size": 400, "history_ttl": "300s", "force_recovery": True},
    "cache": {**PERMIT_ALL, **HISTORY, "force_recovery": True, "force_recovery_mode": "cache"},
    "autocache": {
        **PERMIT_ALL,
        **HISTORY,
        "force_recovery": True,
        "force_recovery_mode": "cache",
        "auto_cache_recover": True,
    },
    "known": {"allow_subscribe_for_client": True},
    "member": {
        **HISTORY,
        **PRESENCE,
        "allow_subscribe_for_client": True,
        "allow_publish_for_subscriber": True,
        "allow_history_for_subscriber": True,
        "allow_presence_for_subscriber": True,
    },
    "asked": {
        **HISTORY,
        **PRESENCE,
        "allow_subscribe_for_client": True,
        "allow_subscribe_for_anonymous": True,
        "allow_presence_for_client": True,
        "allow_recovery": True,
        "allow_positioning": True,
    },
    "readable": {**PERMIT_ALL, **HISTORY},
    "unasked": {**HISTORY, "allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True},
    "deltas": {
        **PERMIT_ALL,
        **HISTORY,
        "force_recovery": True,
        "allowed_delta_types": ["fossil"],
        "delta_publish": True,
    },
    "updates": {**PERMIT_ALL, "allowed_delta_types": ["fossil"]},
    "filtered": {**PERMIT_ALL, **HISTORY, "force_recovery": True, "allow_tags_filter": True},
    "limited": {"allow_user_limited_channels": True},
    "digits": {**PERMIT_ALL, "channel_regex": "^[0-9]+$"},
    "objects": {**PERMIT_ALL, "publication_data_format": "json_object"},
}

STANDARD: Table = {
    "server": {"drain_seconds": 1, "allowed_origins": [TRUSTED_ORIGIN, "http://127.0.0.1:*"]},
    "client": {"allow_anonymous": True, "token_hmac_secret": SECRET},
    "api": {"keys": [API_KEY, SECOND_API_KEY], "allow_key_in_address": True},
    "channels": PERMIT_ALL,
    "namespaces": NAMESPACES,
}
"""The configuration of most tests. Anonymous clients may connect; the namespaces set the permissions."""

SHORT_TIMEOUTS: Table = {
    **STANDARD,
    "client": {
        "allow_anonymous": True,
        "token_hmac_secret": SECRET,
        "ping_interval": 1,
        "pong_timeout": 0.9,
        "stale_timeout": 1,
        "expired_close_delay": 1,
        "token_leeway": 0,
    },
}
"""Short timeouts, for tests of what follows them. A slow machine may be late for others."""

FEW_CHANNELS: Table = {
    **STANDARD,
    "client": {**STANDARD["client"], "channel_limit": 10, "personal_channel": True},
}
"""A client may have ten channels, and each user has a personal one."""

TOKEN_ONLY: Table = {
    "server": {"drain_seconds": 1},
    "client": {"token_hmac_secret": SECRET},
    "api": {"keys": [API_KEY], "error_mode": "transport"},
}
"""Clients need a token, no origin is allowed, every channel is closed, and API errors are HTTP errors."""

INSECURE: Table = {
    "server": {"drain_seconds": 1},
    "client": {"insecure": True},
    "namespaces": {"closed": HISTORY},
}
"""The configuration file's equivalent of `--insecure`."""
