"""Ctrl-C while modules are still being imported.

Invariant: this imports nothing but what the interpreter has loaded at its start.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

__all__ = ["INTERRUPTED", "ending_at_once"]

INTERRUPTED = 128 + signal.SIGINT  # a shell's status of a command that SIGINT ended


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """End the process without a word at Ctrl-C: for imports, which an exception would leave half done."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, as for a shell's background job, or replaced
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
