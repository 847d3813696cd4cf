"""What holds for every test: SIGINT is heard, even where the shell that started the run lets its jobs ignore it."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
