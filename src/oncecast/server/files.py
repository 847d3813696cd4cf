"""Reading a small file whole, on the event loop's thread: a settings file, a certificate.

Invariant: the read ends. A regular file is at hand; a pipe, as the shell's `<(…)` makes one, may have no writer, or one
that never writes, and is waited for `PIPE_SECONDS` at most.
"""

from __future__ import annotations

import errno
import os
import pathlib
import select
import time

__all__ = ["read_whole"]

PIPE_SECONDS = 2.0


def read_whole(path: pathlib.Path, most: int) -> bytes:
    """Return the file's first `most` bytes. Raises `OSError`, for a pipe too that is empty or does not end in time."""
    # O_NONBLOCK: to open a pipe that nobody writes to would wait for ever (fifo(7)).
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as opened:
        until = time.monotonic() + PIPE_SECONDS
        content = b""
        while len(content) < most:
            ready, _, _ = select.select([opened], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError(errno.ETIMEDOUT, f"this pipe has not ended within {PIPE_SECONDS:g} s")
            piece = opened.read(most - len(content))
            if not piece:
                break
            content += piece
        if not content and not opened.seekable():
            raise OSError(errno.ENODATA, "this pipe is empty, or was read before: give a file")
        return content
