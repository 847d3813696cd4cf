"""The pause between two attempts. Invariant: it is finite, random, and never below what the server asks for."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

__all__ = ["UNREACHABLE_CAP_SECONDS", "Backoff", "pause_of"]

BASE_SECONDS = 0.5  # the ceiling of the first delay; it doubles with each failure
CAP_SECONDS = 30.0  # a server that is back is found within this time
UNREACHABLE_CAP_SECONDS = 5.0  # where nothing listens an attempt costs little, so the next one comes sooner
RETRY_AFTER_CAP = 3600.0  # a Retry-After past an hour is a mistake, or hostile


def pause_of(retry_after: float | None) -> float:
    """Return the seconds to stay away for a Retry-After, which may be absent or absurd: from 0 to an hour."""
    if retry_after is None or math.isnan(retry_after):
        return 0.0
    return min(max(retry_after, 0.0), RETRY_AFTER_CAP)


class Backoff:
    """Full jitter: a random delay below a ceiling that doubles with each failure, up to `cap` seconds.

    `rng` returns a float in [0, 1); `sleep` waits that many seconds.
    """

    def __init__(
        self,
        *,
        rng: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        base: float = BASE_SECONDS,
        cap: float = CAP_SECONDS,
    ) -> None:
        self._rng = rng
        self.sleep = sleep
        self._base = base
        self._cap = cap
        self._failures = 0

    def next_delay(self, retry_after: float | None = None, *, cap: float = math.inf) -> float:
        """Count a failure and return the seconds to wait: at least `retry_after`, which the jitter then spreads.

        `cap` bounds the jitter of this delay, beside the cap that bounds all.
        """
        # The exponent is bounded before the ceiling is, so that a long outage doesn't overflow a float.
        ceiling = min(cap, self._cap, self._base * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return pause_of(retry_after) + self._rng() * ceiling

    def reset(self) -> None:
        """Begin again with the smallest ceiling, since something worked."""
        self._failures = 0
