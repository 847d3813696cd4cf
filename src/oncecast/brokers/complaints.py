"""What a broker logs about a fault that lasts: its beginning, a reminder every `REMIND_SECONDS`, and its end."""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger("oncecast.brokers")

REMIND_SECONDS = 60.0


class Complaints:
    """One fault. `name` begins each line of `logger`; `monotonic` gives seconds. Any thread may call it."""

    def __init__(self, name: str, monotonic: Callable[[], float], logger: logging.Logger = logger) -> None:
        self._logger = logger
        self._name = name
        self._monotonic = monotonic
        self._said: float | None = None  # when, and None while there is no fault

    def complain(self, text: str) -> None:
        """Say what is wrong, unless that was said within `REMIND_SECONDS`."""
        now = self._monotonic()
        if self._said is None or now - self._said >= REMIND_SECONDS:
            self._said = now
            self._logger.error("%s %s", self._name, text)

    def recover(self, text: str) -> None:
        """Say that it is over, if something was wrong."""
        if self._said is not None:
            self._said = None
            self._logger.warning("%s %s", self._name, text)
