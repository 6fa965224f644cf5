"""The configuration of the two nodes."""

from typing import Any

from tests.support.configs import API_KEY, HISTORY, PERMIT_ALL, PRESENCE
from tests.support.tokens import SECRET

CHANNEL_LIMIT = 6
SEND_ONCE = {"publish_rate": 0.001, "publish_burst": 1}

Table = dict[str, Any]

CONFIG: Table = {
    "server": {"drain_seconds": 0},
    "client": {"token_hmac_secret": SECRET, "channel_limit": CHANNEL_LIMIT},
    "api": {"keys": [API_KEY]},
    "namespaces": {
        "open": {**PERMIT_ALL, **HISTORY, **PRESENCE, "force_recovery": True, "force_push_join_leave": True},
        "closed": {**HISTORY, **PRESENCE},
        "plain": PERMIT_ALL,
        "seldom": {**PERMIT_ALL, **SEND_ONCE},
        "delta": {
            **PERMIT_ALL,
            **HISTORY,
            "force_recovery": True,
            "allowed_delta_types": ["fossil"],
            "delta_publish": True,
        },
        "filtered": {**PERMIT_ALL, **HISTORY, "force_recovery": True, "allow_tags_filter": True},
        "binary": {**PERMIT_ALL, **HISTORY, "publication_data_format": "binary"},
        "digits": {**PERMIT_ALL, "channel_regex": "^[0-9]+$"},
    },
}
"""Clients need a token."""
