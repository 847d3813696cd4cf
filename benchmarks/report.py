"""Rows as a table for a terminal, as Markdown for the docs, and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from .base import Row

__all__ = ["HEADINGS", "as_json", "as_line", "as_markdown", "heading"]

HEADINGS = ("benchmark", "figure", "floor", "ratio", "min–max", "target", "")
WIDTHS = (36, 10, 10, 8, 13, 10, 8)


def heading() -> str:
    """Return the first line of the table."""
    return _padded(HEADINGS)


def as_line(row: Row) -> str:
    """Return the line of a row, and below it its unit and note."""
    return f"{_padded(_cells(row))}\n    {row.unit}; {row.note}"


def as_json(rows: Sequence[Row]) -> bytes:
    """Return the machine and the rows."""
    made = msgspec.json.encode({"machine": machine(), "rows": rows})
    return msgspec.json.format(made, indent=2)


def as_markdown(rows: Iterable[Row]) -> str:
    """Return a table, with the machine above it."""
    about = machine()
    lines = [f"{about['cpu']}, {about['cores']} cores, {about['system']}, Python {about['python']}.", ""]
    lines.append("| benchmark | figure | floor | ratio | min–max | target | | |")
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        name, figure, *others = _cells(row)
        lines.append(f"| {' | '.join([name, f'{figure} {row.unit}', *others, row.note])} |")
    return "\n".join(lines)


def machine() -> dict[str, str | int]:
    """Return the properties of this machine that the figures depend on."""
    cpu = platform.machine()
    for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def _cells(row: Row) -> tuple[str, ...]:
    spread = "" if row.low is None or row.high is None else f"{row.low:.2f}–{row.high:.2f}"
    target = "" if row.target is None else f"≤ {row.target:g}"
    met = {True: "met", False: "missed", None: ""}[row.met]
    return (row.name, _short(row.figure), _short(row.floor), _short(row.ratio), spread, target, met)


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _padded(cells: Sequence[str]) -> str:
    first, *rest = zip(cells, WIDTHS, strict=True)
    return (f"{first[0]:<{first[1]}}" + "".join(f"{cell:>{width}}" for cell, width in rest)).rstrip()
