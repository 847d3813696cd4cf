"""What one process has measured, or several together.

Invariant: the measures of several workers are those of one server: sums, or the maximum where all measure the same
thing. `metrics.py` says what is measured.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..core.delays import BOUNDS
from .app import App
from .metrics import DELAYS, LABELLED, METRICS

__all__ = ["ALONE", "Buckets", "Crew", "Measures", "add", "lasting", "measure"]


class Buckets(msgspec.Struct, frozen=True):
    """A histogram: how many values each bucket of `core.delays.BOUNDS` has, the last what is above; and their sum."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    total: float = 0.0


class Measures(msgspec.Struct, frozen=True):
    """What one process has measured, or several together, by the metric's name.

    `labelled` has the values by their labels, of which several are divided by spaces.
    """

    values: dict[str, float] = {}
    labelled: dict[str, dict[str, float]] = {}
    delays: dict[str, Buckets] = {}


class Crew(msgspec.Struct, frozen=True):
    """How many workers serve, how many were restarted, and how many did not answer in time."""

    workers: int = 1
    restarts: int = 0
    silent: int = 0


ALONE = Crew()


def measure(app: App) -> Measures:
    """Return what this process has measured up to now."""
    return Measures(
        {metric.name: float(metric.read(app)) for metric in METRICS},
        {metric.name: {label: float(v) for label, v in metric.read(app).items()} for metric in LABELLED},
        {delay.name: Buckets(tuple(delay.read(app).counts), delay.read(app).total) for delay in DELAYS},
    )


def add(measured: Iterable[Measures]) -> Measures:
    """Return what several processes have measured together."""
    found = list(measured)
    if not found:
        return Measures()
    labelled: dict[str, dict[str, float]] = {}
    delays: dict[str, Buckets] = {}
    for each in found:
        for name, by_label in each.labelled.items():
            sums = labelled.setdefault(name, {})
            for label, value in by_label.items():
                sums[label] = sums.get(label, 0) + value
        for name, more in each.delays.items():
            known = delays.get(name, Buckets())
            counts = tuple(one + other for one, other in zip(known.counts, more.counts, strict=True))
            delays[name] = Buckets(counts, known.total + more.total)
    values = {metric.name: metric.join([each.values.get(metric.name, 0) for each in found]) for metric in METRICS}
    return Measures(values, labelled, delays)


def lasting(measures: Measures) -> Measures:
    """Return the counters of a process that has ended, without which the sum would go backwards."""
    return Measures(
        {m.name: measures.values.get(m.name, 0) for m in METRICS if m.counter},
        {m.name: measures.labelled[m.name] for m in LABELLED if m.counter and m.name in measures.labelled},
        measures.delays,
    )
