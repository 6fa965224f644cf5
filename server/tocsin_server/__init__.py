"""Tocsin's server: a WebSocket and SSE push server with an HTTP API.

An application that embeds the server imports everything from here:

    from tocsin_server import create_app, load_settings

The names below are loaded on first use, so that importing a single module of the package does not import the
whole server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tocsin_server.version import __version__

if TYPE_CHECKING:
    from tocsin_server.app import TocsinApp, create_app
    from tocsin_server.config.errors import ConfigError
    from tocsin_server.config.loading import Settings, load_settings
    from tocsin_server.core.lifecycle import LifecycleEvent
    from tocsin_server.engine.broker import NewPublication
    from tocsin_server.errors import Disconnect, EngineError, Refusal, Refused
    from tocsin_server.hooks.answers import (
        EXPIRED,
        Capability,
        Connected,
        Override,
        Published,
        Refreshed,
        RpcAnswer,
        Subscribed,
    )
    from tocsin_server.hooks.events import (
        ClientRequest,
        ConnectEvent,
        PublishEvent,
        RefreshEvent,
        RpcEvent,
        SubRefreshEvent,
        SubscribeEvent,
    )
    from tocsin_server.hooks.registry import Hooks
    from tocsin_server.node.node import Node
    from tocsin_server.node.operations import RpcMethod
    from tocsin_server.serving.server import serve

__all__ = [
    "EXPIRED",
    "Capability",
    "ClientRequest",
    "ConfigError",
    "ConnectEvent",
    "Connected",
    "Disconnect",
    "EngineError",
    "Hooks",
    "LifecycleEvent",
    "NewPublication",
    "Node",
    "Override",
    "PublishEvent",
    "Published",
    "RefreshEvent",
    "Refreshed",
    "Refusal",
    "Refused",
    "RpcAnswer",
    "RpcEvent",
    "RpcMethod",
    "Settings",
    "SubRefreshEvent",
    "SubscribeEvent",
    "Subscribed",
    "TocsinApp",
    "__version__",
    "create_app",
    "load_settings",
    "serve",
]

_MODULES = {
    "Capability": "hooks.answers",
    "ClientRequest": "hooks.events",
    "ConfigError": "config.errors",
    "ConnectEvent": "hooks.events",
    "Connected": "hooks.answers",
    "Disconnect": "errors",
    "EXPIRED": "hooks.answers",
    "EngineError": "errors",
    "Hooks": "hooks.registry",
    "LifecycleEvent": "core.lifecycle",
    "NewPublication": "engine.broker",
    "Node": "node.node",
    "Override": "hooks.answers",
    "PublishEvent": "hooks.events",
    "Published": "hooks.answers",
    "RefreshEvent": "hooks.events",
    "Refreshed": "hooks.answers",
    "Refusal": "errors",
    "Refused": "errors",
    "RpcAnswer": "hooks.answers",
    "RpcEvent": "hooks.events",
    "RpcMethod": "node.operations",
    "Settings": "config.loading",
    "SubRefreshEvent": "hooks.events",
    "SubscribeEvent": "hooks.events",
    "Subscribed": "hooks.answers",
    "TocsinApp": "app",
    "create_app": "app",
    "load_settings": "config.loading",
    "serve": "serving.server",
}
"""The module of each name that is loaded on first use."""

if not TYPE_CHECKING:  # type checkers use the imports above, and report unknown names

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
