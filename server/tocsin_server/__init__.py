"""The server: live connections on one side, an HTTP API on the other, and the channels between them."""

from importlib.metadata import version

__version__ = version("tocsin")
