"""The log of a server's processes: lines on standard error, which workers share with their supervisor.

Invariant: each record begins with the time in UTC (RFC 3339 §5.6); a worker's has the worker's number after it.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import traceback
from datetime import UTC, datetime
from types import TracebackType

from ..logs import Logs
from ..logs.handler import LineHandler

__all__ = ["begin_log", "end_log", "open_logs", "say"]

NOWHERE = -1  # a descriptor that nothing can be written to


def begin_log(worker: int | None = None) -> None:
    """Log on standard error; `worker` is the number of this process's slot, None where it is not a worker.

    A thread writes the lines. Only a stream that has no descriptor, such as one that a program has put there, is
    written to at once.
    """
    whose = "" if worker is None else f"[{worker}] "
    descriptor = _descriptor()
    handler: logging.Handler = LineHandler(NOWHERE if descriptor is None else descriptor)
    if descriptor is None and sys.stderr is not None:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(f"%(asctime)s {whose}%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    sys.excepthook = _say_crash


def end_log() -> None:
    """Write what was logged, so that what is written to standard error from here on stands behind it."""
    for handler in _handlers():
        logging.getLogger().removeHandler(handler)
        handler.close()


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
    say("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"))


def _handlers() -> list[LineHandler]:
    return [each for each in logging.getLogger().handlers if isinstance(each, LineHandler)]


def _dropped() -> int:
    return sum(each.dropped for each in _handlers())


class _Formatter(logging.Formatter):
    """Writes the time as 2026-01-31T23:59:59.123Z."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - the base class's
        """Return the record's time."""
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
