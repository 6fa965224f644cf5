"""The files that `engine.url` names for TLS: whether the node can use them, in sentences."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from tocsin_server.config.engine_url import parse_redis_url
from tocsin_server.config.options import EngineOptions

_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def tls_file_problems(engine: EngineOptions) -> list[str]:
    """A sentence for each file that cannot be read or does not hold what its option says."""
    if engine.is_in_memory:
        return []
    options = parse_redis_url(engine.url).options
    files = {name: options[name] for name in _OPTIONS if name in options}
    return list(_unreadable(files)) or list(_unusable(files))


def _unreadable(files: dict[str, str]) -> Iterator[str]:
    for name, path in files.items():
        try:
            Path(path).read_bytes()
        except OSError as error:
            yield f"engine.url has {name}={path}, but that file cannot be read: {error.strerror}."


def _unusable(files: dict[str, str]) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authorities, certificate, key = (files.get(name) for name in _OPTIONS)
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except ssl.SSLError:
            yield f"engine.url has ssl_ca_certs={authorities}, but that file has no certificates in PEM form."
    if key is not None and certificate is None:
        yield "engine.url has ssl_keyfile, but no ssl_certfile: a key is of no use without its certificate."
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, password=lambda: "")
        except ssl.SSLError:
            where = f"ssl_certfile={certificate}" + (f" and ssl_keyfile={key}" if key else "")
            yield f"engine.url has {where}, but that is not a certificate and its private key in PEM form."
