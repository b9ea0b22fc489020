"""
Logs: one JSON object a line on standard error, safe to show in a terminal.

Rules of this module:

1. No token, secret or password is ever logged. Nobody logs one on purpose; what looks like one
   is masked here all the same, since URLs and foreign libraries' messages carry what they were
   given (attack K9).
2. Everything beyond printable ASCII is escaped, so that nobody writes lines or terminal commands
   of their own into a log (attack S4).
3. An unexpected exception is logged by its class and places in the code, without its message:
   that may quote what was being worked on.
4. A successful request is no event. Errors and events are always logged, requests only where
   `server.access_log` asks for it: a line costs a tenth of a token.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, TextIO

import structlog

from kagimori.events import Event, Severity

REQUEST_ID: ContextVar[str] = ContextVar("kagimori_request_id", default="")
"""The id of the request that is being answered."""

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_SEVERITIES = {
    Severity.INFO: "info",
    Severity.WARNING: "warning",
    Severity.ALARM: "error",
}

FREQUENT = frozenset(
    {"token.issued", "refresh.rotated", "refresh.kept", "refresh.replayed"}
)
"""Events that are told of by metrics, and logged only at the level ``debug``."""

_SECRET_NAMES = re.compile(
    r"(?i)\b(access_token|refresh_token|id_token|client_secret|client_assertion|password|"
    r"passphrase|assertion|code|code_verifier|token|secret)=[^&\s\"']+"
)
_TOKENS = re.compile(
    r"kgm_[a-z]+_[A-Za-z0-9_-]+|eyJ[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)+|"
    r"(?i:basic|bearer|dpop) +[A-Za-z0-9+/=._~-]{6,}"
)


def mask(text: str) -> str:
    """
    Return a text with everything that looks like a token or a secret taken out.
    """
    return _TOKENS.sub("***", _SECRET_NAMES.sub(r"\1=***", text))


def _masked(value: object) -> object:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {str(key): _masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return mask(str(value))


def _render(logger: object, method: str, event_dict: MutableMapping[str, Any]) -> str:
    request_id = REQUEST_ID.get()
    if request_id:
        event_dict.setdefault("request_id", request_id)
    # ASCII only: JSON's escapes make control and direction characters harmless.
    return json.dumps(_masked(event_dict), ensure_ascii=True, separators=(",", ":"))


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """
    Send our log, and that of every library, to a stream (standard error when left out).
    """
    number = _LEVELS[level]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Forward()]
    root.setLevel(max(number, logging.WARNING))


class _Forward(logging.Handler):
    """
    Takes what libraries log through the standard library.
    """

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            fields.update(describe(record.exc_info[1]))
        level = "warning" if record.levelno < logging.ERROR else "error"
        getattr(logger(), level)(record.getMessage(), **fields)


def logger() -> Any:
    """
    Return the logger, as it is configured now.
    """
    return structlog.get_logger()


def describe(error: BaseException) -> dict[str, Any]:
    """
    Return what may be logged of an unexpected exception: its class and where it came from.
    """
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    return {
        "exception": type(error).__qualname__,
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


class LogSink:
    """
    Logs the domain's events.

    Args:
        level: the least level that is logged.
    """

    def __init__(self, level: str = "info") -> None:
        self._logs_all = level == "debug"

    def emit(self, event: Event) -> None:
        """
        Log one event; frequent ones at the level ``debug`` only.
        """
        frequent = event.name in FREQUENT
        if frequent and not self._logs_all:
            return
        level = "debug" if frequent else _SEVERITIES[event.severity]
        getattr(logger(), level)(event.name, **_named(event.fields))


def _named(fields: Mapping[str, Any]) -> dict[str, Any]:
    # structlog's own argument is called "event".
    return {"event_" if key == "event" else key: value for key, value in fields.items()}
