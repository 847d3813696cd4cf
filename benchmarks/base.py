"""The plan of a run, the row of a result, and the alternating measurement of a figure and its floor."""

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
    """A benchmark can't run on this machine, or failed. The message says why, and what to do."""


# -- the plan and the rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options of the command. Where `subscribers` or `transport` is None, each benchmark has its own."""

    subscribers: int | None = None
    transport: Transport | None = None
    quick: bool = False
    urls: tuple[str, ...] = ()  # of brokers
    tls: bool = False

    def count(self, usual: int) -> int:
        """Return the number of subscribers; `usual` is the benchmark's own."""
        return self.subscribers or usual

    def rounds(self, usual: int) -> int:
        """Return the number of rounds; `usual` is that of a full run."""
        return max(2, usual // 6) if self.quick else usual

    @property
    def pairs(self) -> int:
        """The number of alternating measurements of the server and its floor."""
        return 3 if self.quick else 5

    def ways(self) -> tuple[bool, ...]:
        """Return whether to measure with TLS: no, or both ways beside each other."""
        return (False, True) if self.tls else (False,)

    def transports(self) -> tuple[Transport, ...]:
        """Return the streaming transports to measure."""
        return (self.transport,) if self.transport else ("websocket", "sse")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One result. `judged` names the field that `target` bounds. Without a target or a value, `met` is None."""

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
    """A figure and its floor, measured alternately: their medians, and the median and extremes of the ratios."""

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
        """Summarize pairs of (values, values of the floor): percentiles over all, and the pairs' extreme ratios."""
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
    """Measure `one` and `other` alternately, so that other work on the machine affects both alike."""
    one()
    other()  # not counted: the first pair warms code, caches and socket buffers
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
    """Return the smallest value that at least `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1]
