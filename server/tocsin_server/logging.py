"""Logging: one stream and one format for the lines of every logger.

On a terminal a line is `time level event key=value`. Otherwise it is a JSON object. Tracebacks show no local
variables, because these may hold tokens and keys. No code of Tocsin logs these. A line of a library, or the
message of an exception, may hold a JSON Web Token, or an address with a secret in its query; it is replaced.
Libraries that log each request of theirs, with its address, log warnings only.
"""

import logging
import os
import re
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REPLACED = "[removed]"
"""What a line has in the place of a token."""

_SECRETS = re.compile(
    r"eyJ[\w-]{8,4000}\.[\w-]+\.[\w-]*"  # a JSON Web Token
    r"|(?<=[?&])((?:[\w.-]*(?:token|key|secret|password|signature)|cf_connect)=)[^&\s\"'\\]+",
    re.IGNORECASE,
)

_SERVER_LOGGERS = ("uvicorn", "uvicorn.access", "uvicorn.error", "uvicorn.asgi")


CLIENT_LOGGERS = ("httpx", "httpcore", "aiohttp", "asyncpg")
"""Loggers of libraries that log each request or query below WARNING, with what may be secret in it."""


def configure_logging(level: str = "info", *, json: bool | None = None) -> None:
    """Write the process's log lines of at least `level` to standard error. A further call replaces the first.

    `json` None means JSON unless standard error is a terminal. Loggers of the standard library get the same
    format, uvicorn's included. `uvicorn.Config` needs a `log_config` of None, or it configures them again.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    as_json = not sys.stderr.isatty() if json is None else json
    structlog.configure(
        processors=[*_fields(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=_fields(), processors=_rendering(as_json))
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name in _SERVER_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    for name in CLIENT_LOGGERS:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


def _fields() -> list[Processor]:
    """Adds the fields that every line has besides its event."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _rendering(as_json: bool) -> list[Processor]:
    if as_json:
        return [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _event_first,
            structlog.processors.JSONRenderer(ensure_ascii=False),
            _without_secrets,
        ]
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty() and "NO_COLOR" not in os.environ,
            exception_formatter=structlog.dev.plain_traceback,
        ),
        _without_secrets,
    ]


def _without_secrets(_logger: WrappedLogger, _method: str, line: Any) -> str:
    """The rendered line without tokens. It is the last step, and its argument the text of the one before."""
    return _SECRETS.sub(lambda found: f"{found[1] or ''}{REPLACED}", line)


def _event_first(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Order the fields, so that a reader finds time, level and event at the same place in every line."""
    first = {key: fields.pop(key) for key in ("timestamp", "level", "event", "logger") if key in fields}
    return {**first, **fields}
