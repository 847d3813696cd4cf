"""What every benchmark stands on: what is asked, the row that answers, and measuring two things in turns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

__all__ = ["BenchError", "Measured", "Plan", "Row", "Transport", "alternate", "number", "numbers", "percentile"]

Transport = Literal["websocket", "sse"]


class BenchError(Exception):
    """A benchmark can't be run here, or broke; the message says why and what to do."""


# -- what is asked, and the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was asked for. `subscribers` None and `transport` None: each benchmark's own."""

    subscribers: int | None = None
    transport: Transport | None = None
    quick: bool = False

    def count(self, usual: int) -> int:
        """Return how many subscribers, where the benchmark would have `usual`."""
        return self.subscribers or usual

    def rounds(self, usual: int) -> int:
        """Return how often, where a full run would do it `usual` times."""
        return max(2, usual // 6) if self.quick else usual

    @property
    def pairs(self) -> int:
        """How often the server and its floor are measured, in turns."""
        return 3 if self.quick else 5

    def transports(self) -> tuple[Transport, ...]:
        """Return the streaming transports that are asked for."""
        return (self.transport,) if self.transport else ("websocket", "sse")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure. `judged` names the field that the target is for; without a target or a value, `met` is None."""

    name: str
    unit: str
    figure: float
    floor: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    judged: Literal["figure", "ratio"] = "ratio"
    target: float | None = None
    met: bool | None = None
    note: str = ""

    def __post_init__(self) -> None:
        value = self.figure if self.judged == "figure" else self.ratio
        if self.met is None and self.target is not None and value is not None:
            msgspec.structs.force_setattr(self, "met", value <= self.target)


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure and its floor, measured in turns: the medians, and the median and the extremes of the pairs' ratios."""

    figure: float
    floor: float
    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]]) -> Measured:
        """Summarize pairs of (figure, floor)."""
        ratios = [figure / floor for figure, floor in pairs]
        figures, floors = zip(*pairs, strict=True)
        return cls(
            statistics.median(figures), statistics.median(floors), statistics.median(ratios), min(ratios), max(ratios)
        )

    @classmethod
    def tails(cls, pairs: Sequence[tuple[Sequence[float], Sequence[float]]], percent: float) -> Measured:
        """Summarize pairs of (values, their floor's): the percentiles of all together, the extremes of the pairs'."""
        figure, floor = (
            percentile([value for part in side for value in part], percent) for side in zip(*pairs, strict=True)
        )
        apart = cls.of([(percentile(ours, percent), percentile(floors, percent)) for ours, floors in pairs])
        return cls(figure, floor, figure / floor, apart.low, apart.high)

    def row(
        self,
        name: str,
        unit: str,
        note: str,
        *,
        target: float | None = None,
        judged: Literal["figure", "ratio"] = "ratio",
    ) -> Row:
        """Return it as a row."""
        return Row(
            name=name,
            unit=unit,
            figure=self.figure,
            floor=self.floor,
            ratio=self.ratio,
            low=self.low,
            high=self.high,
            judged=judged,
            target=target,
            note=note,
        )


def alternate(one: Callable[[], float], other: Callable[[], float], pairs: int) -> Measured:
    """Measure in turns: what the rest of the machine does meanwhile then hits both."""
    one()
    other()  # not counted: code, caches and socket buffers are warm from here on
    return Measured.of([(one(), other()) for _ in range(pairs)])


# -- helpers


def number(answer: Mapping[str, object], name: str) -> float:
    """Return a number of a program's answer."""
    value = answer[name]
    assert isinstance(value, int | float)
    return value


def numbers(answer: Mapping[str, object], name: str) -> list[float]:
    """Return a list of numbers of a program's answer."""
    return msgspec.convert(answer[name], list[float])


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1]
