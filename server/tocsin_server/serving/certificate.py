"""The certificate of a listening address, read again when its files change. Open connections stay.

The mutable state is the context of new handshakes, the files' state when they were last read, and the problem
with them. Only `reload` changes it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import ssl

import structlog

from tocsin_server.config.tls_files import certificate_problems, expiry_of

CHECK_SECONDS = 5.0
"""How often the files are looked at."""

EXPIRY_WARNING_DAYS = 14
"""Automatic renewals happen 30 days before the end; so late, a renewal has failed."""

log = structlog.get_logger()


class ServerCertificate:
    """A certificate and its key. `context` is for asyncio, and stays the same when they change."""

    def __init__(self, certificate: str, key: str) -> None:
        """Raises ValueError with a sentence if the files cannot be used."""
        self._certificate = certificate
        self._key = key
        if problems := certificate_problems(certificate, key):
            raise ValueError(" ".join(problems))
        self._current = self._new_context()
        self._state = self._files_state()
        self._problem = ""
        self.expires_at = expiry_of(certificate)
        self.context = self._new_context()
        # OpenSSL calls it for every handshake, with or without a server name
        self.context.sni_callback = self._choose

    def reload(self, *, is_forced: bool = False) -> None:
        """Read the files if they have changed. If they cannot be used, the certificate before them stays."""
        state = self._files_state()
        if state == self._state and not is_forced:
            return
        self._state = state
        problem = " ".join(certificate_problems(self._certificate, self._key)) or self._load()
        if problem:
            self._problem = f"The new TLS certificate cannot be used, and the old one stays: {problem}"
            log.error("certificate_not_loaded", file=self._certificate, error=problem)
        else:
            self._problem = ""
            log.info("certificate_loaded", file=self._certificate, expires_at=self.expires_at.isoformat())

    def _load(self) -> str:
        """Use the files from now on. Returns why they cannot: they changed since the check."""
        try:
            context, expires_at = self._new_context(), expiry_of(self._certificate)
        except (OSError, ValueError) as error:
            return str(error)
        self._current, self.expires_at = context, expires_at
        return ""

    def warnings(self) -> list[str]:
        """Sentences about what an operator should do now."""
        left = (self.expires_at - dt.datetime.now(dt.UTC)) / dt.timedelta(days=1)
        found = [self._problem] if self._problem else []
        if left <= 0:
            found.append(f"The TLS certificate {self._certificate} has expired.")
        elif left < EXPIRY_WARNING_DAYS:
            found.append(f"The TLS certificate {self._certificate} expires in {left:.0f} days.")
        return found

    async def watch(self) -> None:
        """Reload the files when they change, until the task is cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self.reload()

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        # A callback for the password, since OpenSSL would ask for it on the terminal
        context.load_cert_chain(self._certificate, self._key, password=lambda: "")
        return context

    def _files_state(self) -> list[tuple[int, int, int]]:
        states = []
        for name in (self._certificate, self._key):
            try:
                found = os.stat(name)  # noqa: PTH116 - names are strings here
                states.append((found.st_ino, found.st_mtime_ns, found.st_size))
            except OSError:
                states.append((0, 0, 0))
        return states
