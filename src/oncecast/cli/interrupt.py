"""Ctrl-C while modules are still being imported.

Invariant: this imports nothing but what Python itself has loaded or loads in a moment.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

__all__ = ["INTERRUPTED", "ending_at_once"]

INTERRUPTED = 128 + signal.SIGINT  # as a shell says it of a command that Ctrl-C ended


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process with nothing said: for imports, which an exception would leave half done."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, as in a shell's background, or someone else's
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
