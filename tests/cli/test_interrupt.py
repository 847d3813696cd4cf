"""Ctrl-C."""

from __future__ import annotations

import signal

from oncecast.cli import interrupt


def test_an_interrupt_that_is_ignored_stays_ignored() -> None:
    """What a shell runs in the background is not ended by Ctrl-C while it starts either."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupt.ending_at_once():
            signal.raise_signal(signal.SIGINT)
            assert signal.SIG_IGN == signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
