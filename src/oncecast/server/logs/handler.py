"""The server's own log: records of `logging`, written to a descriptor by a thread, so that no reader holds up the loop.

Invariant: a call of a logger takes no longer where nobody reads the lines. Those past `writer.HELD_BYTES` are dropped
and counted, and a line says how many once there is room. At the end of the process, or at `close`, what is left has
`writer.CLOSE_SECONDS` to be written.
"""

from __future__ import annotations

import logging

from .writer import LineWriter

__all__ = ["LineHandler"]


class LineHandler(logging.Handler):
    """Writes each record as a line to `descriptor`, which stays its owner's. Any thread may log."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._writer = LineWriter(descriptor, self._report)
        self._writer.begin()

    @property
    def dropped(self) -> int:
        """How many lines were never written."""
        return self._writer.dropped

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record over to the thread; `handle`, which calls this, holds the handler's lock."""
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - `handleError` would write to standard error here, and wait for its reader
            text = self.format(
                _plain(record.levelno, f"a line of {record.name} could not be formatted: {record.msg!r}")
            )
        self._put(text)

    def say(self, text: str) -> None:
        """Write a text that is no record, behind what was logged before it."""
        self.acquire()
        try:
            self._put(text)
        finally:
            self.release()

    def close(self) -> None:
        """Write what is left, and take no more. `logging` calls it at the end of the process."""
        super().close()
        self._writer.end()

    # -- helpers

    def _put(self, text: str) -> None:
        self._writer.put(f"{text}\n".encode("utf-8", "backslashreplace"))
        self._writer.flush()

    def _report(self, count: int) -> bytes:
        text = f"{count} lines of this log were dropped, as nobody took them: let something read standard error"
        return f"{self.format(_plain(logging.WARNING, text))}\n".encode()


def _plain(level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord("oncecast.server", level, "", 0, "%s", (text,), None)
