"""Writes lines to a descriptor, such as standard error, on a thread of its own: the loop never waits for a disk.

`put` collects, `flush` hands over, once in a turn of the server's clock. Lines that nobody takes, as a pipe is full or
a disk is slow, are held up to `HELD_BYTES`; past that, and where a write fails, they are dropped and counted, and the
next line that is written says how many.

Invariants: a write has whole lines, and at most `WRITE_BYTES`, so lines of several processes are never mixed. No method
raises, and none waits but `close` and `end`, which have a deadline. The thread is a daemon: one that hangs in a write
to a pipe that nobody reads is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

__all__ = ["CLOSE_SECONDS", "HELD_BYTES", "WRITE_BYTES", "LineWriter"]

HELD_BYTES = 4 << 20  # about 20,000 lines
WRITE_BYTES = 4096  # PIPE_BUF of Linux: pipe(7)
CLOSE_SECONDS = 2.0  # for the last lines to be written

Report = Callable[[int], bytes]  # the line that says how many were dropped


class LineWriter:
    """Writes to `descriptor`, which stays its owner's. The thread begins with the first line, or with `begin`."""

    def __init__(self, descriptor: int, report: Report) -> None:
        self._descriptor = descriptor
        self._report = report
        self._refused = 0  # lines that had no room
        self._failed = 0  # lines whose write has failed; the thread counts them
        self._reported = 0  # of both, those that a line has reported
        self._lines: list[bytes] = []  # not handed over yet
        self._size = 0  # of `_lines`
        self._handed: deque[list[bytes] | None] = deque()  # None ends the thread
        self._held = 0  # bytes that are handed over and not written
        self._changed = threading.Condition()
        self._ended: Callable[[], object] = int  # called at the end of the thread, on it
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def dropped(self) -> int:
        """How many lines were never written."""
        return self._refused + self._failed

    def begin(self) -> None:
        """Start the thread now: once the process has no memory left there is none for a thread either."""
        if self._thread is None or not self._thread.is_alive():
            self._start()

    def put(self, line: bytes) -> None:
        """Take a line, with its line end."""
        if self._closed or self._size + self._held + len(line) > HELD_BYTES:
            self._refused += 1
            return
        self._lines.append(line)
        self._size += len(line)

    def flush(self) -> None:
        """Hand over what was put."""
        if not self._lines:
            return
        lines, self._lines, size, self._size = self._lines, [], self._size, 0
        self.begin()
        with self._changed:
            self._held += size
            self._handed.append(lines)
            self._changed.notify()

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write what is left, for at most `seconds`, and take no more."""
        self.flush()
        self._closed = True
        if self._thread is None:
            return
        over = asyncio.Event()
        self._ended = partial(asyncio.get_running_loop().call_soon_threadsafe, over.set)
        with self._changed:
            self._handed.append(None)
            self._changed.notify()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), seconds)

    def end(self, seconds: float = CLOSE_SECONDS) -> None:
        """Do as `close`, where no loop runs: it waits itself."""
        self.flush()
        self._closed = True
        if self._thread is not None and self._thread.is_alive():
            with self._changed:
                self._handed.append(None)
                self._changed.notify()
            self._thread.join(seconds)

    # -- the thread

    def _start(self) -> None:
        """Start the thread, again too where it has died: nothing that one line does may end the log."""
        self._thread = threading.Thread(target=self._main, name="oncecast-log", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread can be had now: the lines are held until the next flush
            self._thread.start()

    def _main(self) -> None:
        while True:
            with self._changed:
                while not self._handed:
                    self._changed.wait()
                lines = self._handed.popleft()
            if lines is None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    self._ended()
                return
            try:
                self._write_all(lines)
            finally:
                with self._changed:
                    self._held -= sum(map(len, lines))

    def _write_all(self, lines: list[bytes]) -> None:
        dropped = self.dropped
        if dropped > self._reported and self._write(self._report(dropped - self._reported), 1, counted=False):
            self._reported = dropped
        begin, size = 0, 0
        for place, line in enumerate(lines):
            if size + len(line) > WRITE_BYTES and size:
                self._write(b"".join(lines[begin:place]), place - begin)
                begin, size = place, 0
            size += len(line)
        self._write(b"".join(lines[begin:]), len(lines) - begin)

    def _write(self, data: bytes, count: int, *, counted: bool = True) -> bool:
        """Write whole lines. Return False where they could not be written, which counts them as dropped."""
        try:
            written = os.write(self._descriptor, data)
            while 0 < written < len(data):  # a file on a disk that gets full, or a slow terminal
                data = data[written:]
                written = os.write(self._descriptor, data)
        except OSError:
            if counted:
                self._failed += count
            return False
        return True
