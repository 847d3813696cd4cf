"""The log of a server's processes: lines on standard error, which workers share with their supervisor.

Invariant: each record begins with the time in UTC (RFC 3339 §5.6); a worker's has the worker's number after it.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

__all__ = ["begin_log"]


def begin_log(worker: int | None = None) -> None:
    """Log on standard error; `worker` is the number of this process's slot, None where it is not a worker."""
    whose = "" if worker is None else f"[{worker}] "
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(f"%(asctime)s {whose}%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class _Formatter(logging.Formatter):
    """Writes the time as 2026-01-31T23:59:59.123Z."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - the base class's
        """Return the record's time."""
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
