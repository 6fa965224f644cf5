"""The files for TLS that a configuration names: whether the node can use them, in sentences."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from tocsin_server.config.engine_url import parse_redis_url
from tocsin_server.config.loading import Settings
from tocsin_server.config.options import EngineOptions

_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def tls_file_problems(settings: Settings) -> list[str]:
    """A sentence for each file that cannot be read or does not hold what its option says."""
    problems = _engine_problems(settings.engine)
    for section, options in (("server", settings.server), ("admin", settings.admin)):
        problems += _pair_problems(section, options.tls_certificate, options.tls_key)
    for name, proxy in settings.proxies.items():
        problems += _pair_problems(f"proxies.{name}", proxy.tls_certificate, proxy.tls_key)
        problems += _authority_problems(f"proxies.{name}.tls_ca", proxy.tls_ca)
    return problems + webhook_file_problems(settings)


def webhook_file_problems(settings: Settings) -> list[str]:
    """The same, for the files of webhooks alone."""
    problems: list[str] = []
    for name, webhook in settings.webhooks.items():
        section = f"webhooks.{name}"
        problems += _pair_problems(section, webhook.tls_certificate, webhook.tls_key)
        problems += _authority_problems(f"{section}.tls_ca", webhook.tls_ca)
    return problems


def _authority_problems(key: str, path: str) -> list[str]:
    """Why a file has no certificates of authorities; empty if it has, or if there is none."""
    if not path:
        return []
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        return [f"{key} is {path}, but that file has no certificates in PEM form."]
    except OSError as error:
        return [f"{key} is {path}, but that file cannot be read: {error.strerror}."]
    return []


def _pair_problems(section: str, certificate: str, key: str) -> list[str]:
    """What is wrong with a certificate and its key."""
    if not certificate and not key:
        return []
    if not certificate or not key:
        given, missing = ("tls_key", "tls_certificate") if key else ("tls_certificate", "tls_key")
        return [f"{section}.{given} is set, but not {section}.{missing}: TLS needs both."]
    return certificate_problems(certificate, key, f"{section}.")


def expired_certificates(settings: Settings) -> list[str]:
    """A sentence for each certificate that has expired, so that no peer accepts it. The files are valid."""
    files = {"server": settings.server.tls_certificate, "admin": settings.admin.tls_certificate}
    files |= {f"proxies.{name}": proxy.tls_certificate for name, proxy in settings.proxies.items()}
    return [
        f"{section}.tls_certificate is {file}, but that certificate has expired."
        for section, file in files.items()
        if file and expiry_of(file) <= dt.datetime.now(dt.UTC)
    ]


def certificate_problems(certificate: str, key: str, prefix: str = "") -> list[str]:
    """Why these files are no certificate with its private key. Empty if they are."""
    problems = []
    for name, path in (("tls_certificate", certificate), ("tls_key", key)):
        try:
            Path(path).read_bytes()
        except OSError as error:
            problems.append(f"{prefix}{name} is {path}, but that file cannot be read: {error.strerror}.")
    if problems:
        return problems
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
        expiry_of(certificate)
    except (ssl.SSLError, ValueError):
        what = f"{prefix}tls_certificate is {certificate} and {prefix}tls_key is {key}"
        return [f"{what}, but that is no certificate and its private key in PEM form without a password."]
    return []


def expiry_of(certificate: str) -> dt.datetime:
    """When the first certificate of a file expires. Raises ValueError if it has none."""
    return x509.load_pem_x509_certificate(Path(certificate).read_bytes()).not_valid_after_utc


def _engine_problems(engine: EngineOptions) -> list[str]:
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
