"""The log of a server's processes: lines on standard error, which workers share with their supervisor.

Invariant: each record begins with the time in UTC (RFC 3339 §5.6); a worker's has the worker's number after it. A
record is one line, of at most `LINE_BYTES`, its traceback included; only in development, as soon as `adopt_log` knows
of that, a traceback has its own lines.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
import traceback
from datetime import UTC, datetime
from types import TracebackType

from ..logs import Logs
from ..logs.handler import LineHandler
from ..logs.line import LINE_BYTES, MORE
from ..settings import Settings

__all__ = ["adopt_log", "begin_log", "end_log", "open_logs", "say"]

DEFAULTS = Settings()
NOWHERE = -1  # a descriptor that nothing can be written to


def begin_log(worker: int | None = None, settings: Settings = DEFAULTS) -> None:
    """Log on standard error, in the form and from the level of these settings.

    `worker` is the number of this process's slot, None where it is not a worker.

    A thread writes the lines. Only a stream that has no descriptor, such as one that a program has put there, is
    written to at once.
    """
    descriptor = _descriptor()
    handler: logging.Handler = LineHandler(NOWHERE if descriptor is None else descriptor)
    if descriptor is None and sys.stderr is not None:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(worker))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    adopt_log(settings)
    sys.excepthook = _say_crash


def end_log() -> None:
    """Write what was logged, so that what is written to standard error from here on stands behind it."""
    for handler in _handlers():
        logging.getLogger().removeHandler(handler)
        handler.close()


def adopt_log(settings: Settings) -> None:
    """Log in the form and from the level of these settings from now on, where `begin_log` was called."""
    for formatter in _formatters():
        formatter.form = settings.log
        formatter.folds = not settings.dev
        level = logging.getLevelNamesMapping()[settings.log_level.upper()]
        logging.getLogger("oncecast").setLevel(level)
        logging.getLogger().setLevel(max(level, logging.INFO))  # what libraries say to their own developers is left out


def open_logs(worker: int | None = None) -> Logs:
    """Return the access log and the audit log, on standard error too; `worker` as for `begin_log`."""
    descriptor = _descriptor()
    return Logs(NOWHERE if descriptor is None else descriptor, worker, time.monotonic, besides=_dropped)


def say(text: str) -> None:
    """Write a text for the person at the terminal, behind the lines that were logged before it."""
    for handler in _handlers():
        handler.say(text)
        return
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - for the person at the terminal


# Helpers ---------------------------------------------------------------------------------------------------------


def _descriptor() -> int | None:
    """Return standard error's; None where the process began without one: 2 may be the number of another file by now."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            return sys.stderr.fileno()
    return None


def _say_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write the traceback that ends a process behind the log's lines: Python's own would be mixed with them."""
    if any(formatter.form == "json" or formatter.folds for formatter in _formatters()):
        logging.getLogger("oncecast.server").critical("the process ends by an exception", exc_info=(kind, error, trace))
        return
    say("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"))


def _handlers() -> list[LineHandler]:
    return [each for each in logging.getLogger().handlers if isinstance(each, LineHandler)]


def _dropped() -> int:
    return sum(each.dropped for each in _handlers())


def _formatters() -> list[_Formatter]:
    return [each.formatter for each in logging.getLogger().handlers if isinstance(each.formatter, _Formatter)]


class _Formatter(logging.Formatter):
    """Writes the time as 2026-01-31T23:59:59.123Z; as text, or where `form` is so as JSON.

    Where `folds`, a record is one line of text too.
    """

    def __init__(self, worker: int | None) -> None:
        whose = "" if worker is None else f"[{worker}] "
        super().__init__(f"%(asctime)s {whose}%(levelname)s %(name)s: %(message)s")
        self.form = "text"
        self.folds = True
        self._worker = worker

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - the base class's
        """Return the record's time."""
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text, or as one line of JSON."""
        if self.form == "text":
            text = super().format(record)
            return _fold(text) if self.folds else text
        fields: dict[str, str | int] = {"time": self.formatTime(record), "log": "server"}
        if self._worker is not None:
            fields["worker"] = self._worker
        fields |= {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[0] is not None:
            fields["error"] = self.formatException(record.exc_info)
        return _cut(fields)


def _fold(text: str) -> str:
    """Return a text as a line of at most `LINE_BYTES`: what is too long loses its middle."""
    line = text.replace("\r", "\\r").replace("\n", "\\n")
    data = line.encode("utf-8", "backslashreplace")
    if len(data) < LINE_BYTES:
        return data.decode()
    # The begin has the message, and the end of a traceback says what went wrong.
    begin = LINE_BYTES // 4
    end = LINE_BYTES - 1 - begin - len(MORE)
    return data[:begin].decode(errors="ignore") + MORE + data[-end:].decode(errors="ignore")


def _cut(fields: dict[str, str | int]) -> str:
    """Return fields as JSON that is a line of at most `LINE_BYTES`: what is too long loses the begin of its error."""
    while True:
        line = json.dumps(fields, separators=(",", ":"))
        if len(line) < LINE_BYTES:
            return line
        name = "error" if len(str(fields.get("error", ""))) > 200 else "message"
        text = str(fields[name])
        # The end of a traceback says what went wrong, the begin of a message does.
        part = text[len(text) // 8 + len(MORE) :] if name == "error" else text[: -len(text) // 8 - len(MORE)]
        fields[name] = MORE + part if name == "error" else part + MORE
