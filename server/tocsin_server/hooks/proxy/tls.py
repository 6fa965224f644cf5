"""What TLS connections to a back end check and show, read again when its files change. Open connections stay.

The mutable state is that of `BackEndTls`; only `reload` changes it.
"""

from __future__ import annotations

import asyncio
import os
import ssl

import structlog

from tocsin_server.config.proxy_options import ProxyOptions

log = structlog.get_logger()


class BackEndTls:
    """The authorities, and the node's own certificate, for one proxy."""

    def __init__(self, name: str, options: ProxyOptions) -> None:
        """Raises ValueError with a sentence if a file cannot be used."""
        self._name = name
        self._options = options
        self._state = self._files_state()
        try:
            self.context = new_context(options)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ValueError(f"The certificates of [proxies.{name}] cannot be used: {reason}.") from error
        self.problem = ""
        """Why changed files cannot be used; empty if they can."""

    async def reload(self) -> bool:
        """Read the files if they have changed. True if there is a new context."""
        state = self._files_state()
        if state == self._state:
            return False
        self._state = state
        try:
            context = await asyncio.to_thread(new_context, self._options)
        except OSError as error:
            self.problem = error.strerror or type(error).__name__
            log.error(  # noqa: TRY400 - a file of the operator, which the sentence describes
                "proxy_certificates_not_loaded", proxy=self._name, error=self.problem
            )
            return False
        self.context, self.problem = context, ""
        log.info("proxy_certificates_loaded", proxy=self._name)
        return True

    def _files_state(self) -> list[tuple[int, int, int]]:
        states = []
        for name in (self._options.tls_ca, self._options.tls_certificate, self._options.tls_key):
            try:
                found = os.stat(name)  # noqa: PTH116 - names are strings here
                states.append((found.st_ino, found.st_mtime_ns, found.st_size))
            except OSError:
                states.append((0, 0, 0))
        return states


def new_context(options: ProxyOptions) -> ssl.SSLContext:
    """Return what checks the back end's certificate and host name. Raises OSError, or SSLError."""
    context = ssl.create_default_context(cafile=options.tls_ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.tls_certificate:
        # A callback for the password, since OpenSSL would ask for it on the terminal
        context.load_cert_chain(options.tls_certificate, options.tls_key or None, password=lambda: "")
    return context
