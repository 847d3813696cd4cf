"""How figures are written: seconds, bytes and counts, in at most nine characters, with three digits.

Invariant: a figure that is not known is `–`, and never 0.
"""

from __future__ import annotations

import math

__all__ = ["UNKNOWN", "count", "seconds", "size"]

UNKNOWN = "–"


def seconds(value: float | None) -> str:
    """Return seconds as µs, ms or s."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    for unit, factor in (("µs", 1e6), ("ms", 1e3)):
        if abs(value) * factor < 999.5:
            return f"{_three(value * factor)} {unit}"
    return f"{_three(value)} s"


def size(value: float | None) -> str:
    """Return bytes as B, kB or MB, of a thousand each."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if abs(value) < 999.5:
        return f"{value:.0f} B"
    return f"{_three(value / 1e3)} kB" if abs(value) < 999_500 else f"{_three(value / 1e6)} MB"


def count(value: float) -> str:
    """Return a count; from 10,000 on in thousands."""
    if value < 9999.5:
        return f"{value:.0f}"
    return f"{_three(value / 1e3)} k" if value < 999_500 else f"{_three(value / 1e6)} M"


def _three(value: float) -> str:
    """Return three digits, but no more than one behind the point from 10 on."""
    if abs(value) < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"
