"""Where log lines go and how they look: one stream, one form, whoever logs.

For people on a terminal: `time level event key=value`; elsewhere one JSON object a line. Tracebacks carry no
local variables: those hold tokens and keys.
"""

import logging
import os
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_SERVER_LOGGERS = ("uvicorn", "uvicorn.access", "uvicorn.error", "uvicorn.asgi")


def configure_logging(level: str = "info", *, json: bool | None = None) -> None:
    """Send the process's log lines of at least `level` to standard error; call it again to change them.

    `json` None means: JSON unless standard error is a terminal. Lines of the standard library's loggers take
    the same form, uvicorn's too: give `uvicorn.Config` a `log_config` of None, or it takes its loggers back.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    as_json = not sys.stderr.isatty() if json is None else json
    structlog.configure(
        processors=[*_facts(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=_facts(), processors=_rendering(as_json))
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name in _SERVER_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def _facts() -> list[Processor]:
    """What every line says besides its event."""
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
        ]
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty() and "NO_COLOR" not in os.environ,
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]


def _event_first(_logger: WrappedLogger, _method: str, facts: EventDict) -> EventDict:
    """The line's own order, so that eyes find the same thing at the same place in every line."""
    first = {key: facts.pop(key) for key in ("timestamp", "level", "event", "logger") if key in facts}
    return {**first, **facts}
