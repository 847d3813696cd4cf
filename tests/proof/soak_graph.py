"""A soak as an SVG: memory, descriptors, deliveries and delay over time, with the restarts and the failover.

Invariant: it stands alone, without scripts, fonts or addresses of other places, and follows the reader's choice of a
light or a dark ground.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from .soak_judge import late
from .soak_report import Moment, Report
from .soak_site import NODES, Usage

__all__ = ["render_soak"]

WIDTH, LEFT, RIGHT, TOP = 960, 92, 24, 104
PANEL, GAP = 118, 44  # the height of one, and the room above it
POINTS = 400  # of one line: more than that no eye can see
NEAR, FAR = "#0563c1 #b45309 #0a7d4f", "#6cb6ff #f59e4b #4cc38a"  # the nodes' colours on a light and a dark ground
Points = Sequence[tuple[float, float | None]]


@dataclass(frozen=True, slots=True)
class _Panel:
    """One graph: its lines, each of (seconds, value), a value being None where the line is broken."""

    title: str
    lines: Sequence[Points]
    text: Callable[[float], str]
    logarithmic: bool = False


def render_soak(report: Report) -> str:
    """Return the SVG's text."""
    bins = list(_bins(report))
    width = report.seconds / max(len(bins), 1)
    each = "each second" if width < 1.5 else f"each {width:.0f} s"
    panels = [
        _Panel("Memory of each node, MiB", _of_nodes(bins, lambda usage: usage.memory / 2**20), lambda v: f"{v:.0f}"),
        _Panel("Descriptors of each node", _of_nodes(bins, lambda usage: usage.descriptors), lambda v: f"{v:.0f}"),
        _Panel(
            "Deliveries a second",
            [[(at, sum(m.deliveries for m in some) / len(some)) for at, some in bins]],
            lambda v: f"{v:,.0f}",
        ),
        _Panel(
            f"Delay from publish to a live subscriber, 99th percentile of {each}, logarithmic",
            [[(at, late(sum((m.delays for m in some), Counter()), 0.99) * 1e3 or None) for at, some in bins]],
            lambda v: f"{v:.0f} ms" if v < 1000 else f"{v / 1000:.0f} s",
            logarithmic=True,
        ),
    ]
    height = TOP + len(panels) * (PANEL + GAP) + 12
    length = f"{report.seconds / 60:.0f} minutes" if report.seconds >= 120 else f"{report.seconds:.0f} seconds"
    head = (
        f"{length}, {report.subscribers:,} subscribers, {report.published:,} messages, "
        f"{sum(report.verdict.deliveries.values()):,} deliveries"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-labelledby="title description" font-family="system-ui, sans-serif" font-size="13">',
        f'<title id="title">{escape(head)}</title>',
        f'<desc id="description">{escape(str(report))}</desc>',
        f"<style>{_style()}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
        f'<text class="head" x="24" y="32">{escape(head)}</text>',
        *_legend(report),
    ]
    for place, panel in enumerate(panels):
        parts += _panel(panel, TOP + place * (PANEL + GAP) + 18, report)
    return "\n".join([*parts, "</svg>", ""])


def _bins(report: Report) -> Iterator[tuple[float, Sequence[Moment]]]:
    """Yield the moments in `POINTS` groups at most, each with its time."""
    size = max(1, math.ceil(len(report.moments) / POINTS))
    for first in range(0, len(report.moments), size):
        some = report.moments[first : first + size]
        yield some[len(some) // 2].at, some


def _of_nodes(bins: Sequence[tuple[float, Sequence[Moment]]], of: Callable[[Usage], float]) -> list[Points]:
    """Return a line for each node: the mean of each group, and None in a group in which it restarted."""
    lines: list[Points] = []
    for node in range(NODES):
        line: list[tuple[float, float | None]] = []
        for at, some in bins:
            found = [of(usage) for moment in some if (usage := moment.nodes[node])]
            line.append((at, sum(found) / len(found) if len(found) == len(some) else None))
        lines.append(line)
    return lines


def _legend(report: Report) -> Iterator[str]:
    x = 24
    for node in range(1, NODES + 1):
        yield f'<path class="line n{node}" d="M{x} 56h22"/><text x="{x + 28}" y="60">node {node}</text>'
        x += 102
    kinds = {mark.kind for mark in report.marks}
    for kind, text in (("restart", "a rolling restart of the nodes"), ("failover", "failover of Redis")):
        if kind in kinds:
            yield f'<path class="{kind}" d="M{x} 48h14v16h-14z"/><text x="{x + 22}" y="60">{text}</text>'
            x += 228


def _panel(panel: _Panel, top: int, report: Report) -> Iterator[str]:
    values = [value for line in panel.lines for _, value in line if value is not None]
    ticks = _decades(values) if panel.logarithmic else _ticks(max(values, default=1.0))
    low, high = ticks[0], ticks[-1]
    span = WIDTH - LEFT - RIGHT
    seconds = max(report.seconds, 1.0)

    def down(value: float) -> float:
        share = math.log(value / low) / math.log(high / low) if panel.logarithmic else (value - low) / (high - low)
        return top + PANEL * (1 - min(max(share, 0.0), 1.0))

    def across(at: float) -> float:
        return LEFT + span * min(at / seconds, 1.0)

    yield f'<text class="title" x="{LEFT}" y="{top - 9}">{escape(panel.title)}</text>'
    for mark in report.marks:
        width = max(across(mark.ended) - across(mark.began), 2)
        yield (
            f'<rect class="{mark.kind}" x="{across(mark.began):.1f}" y="{top}" width="{width:.1f}" height="{PANEL}"/>'
        )
    for tick in ticks:
        y = f"{down(tick):.1f}"
        yield f'<path class="axis" d="M{LEFT} {y}h{span}"/>'
        yield f'<text class="quiet" text-anchor="end" x="{LEFT - 8}" y="{float(y) + 4:.1f}">{panel.text(tick)}</text>'
    for number, line in enumerate(panel.lines, 1):
        path, pen = [], "M"
        for at, value in line:
            if value is None:
                pen = "M"
                continue
            path.append(f"{pen}{across(at):.1f} {down(value):.1f}")
            pen = "L"
        yield f'<path class="line n{number}" d="{"".join(path)}"/>'
    for at in _times(seconds):
        label = f"{at / 60:g} min" if seconds >= 120 else f"{at:g} s"
        place = f'text-anchor="middle" x="{across(at):.1f}" y="{top + PANEL + 16}"'
        yield f'<text class="quiet" {place}>{label}</text>'


def _ticks(most: float) -> list[float]:
    """Return 0 and up to five round values, the last of them above `most`."""
    power = 10 ** math.floor(math.log10(max(most, 1e-9)))
    step = next(each * power for each in (0.25, 0.5, 1, 2, 2.5) if most < each * power * 4)
    return [step * number for number in range(5)]


def _decades(values: Sequence[float]) -> list[float]:
    """Return the powers of ten around the values."""
    low = math.floor(math.log10(min(values, default=1.0)))
    high = max(math.ceil(math.log10(max(values, default=10.0))), low + 1)
    return [float(10**power) for power in range(low, high + 1)]


def _times(seconds: float) -> list[float]:
    step = next((each for each in (1, 2, 5, 10, 30, 60, 120, 300, 600, 1200) if seconds / each <= 8), 3600)
    return [float(at) for at in range(0, int(seconds) + 1, step)]


def _style() -> str:
    def ground(back: str, ink: str, quiet: str, axis: str, colours: str) -> str:
        lines = "".join(f".n{number}{{stroke:{each}}}" for number, each in enumerate(colours.split(), 1))
        return f".ground{{fill:{back}}}text{{fill:{ink}}}.quiet{{fill:{quiet}}}.axis{{stroke:{axis}}}{lines}"

    light = ground("#ffffff", "#1c2430", "#5a6675", "#dfe4ea", NEAR)
    dark = ground("#14181e", "#e8edf3", "#9aa7b5", "#2c343e", FAR)
    return (
        f"{light}.head{{font-size:18px;font-weight:600}}.title{{font-weight:600}}.line{{fill:none;stroke-width:1.4}}"
        ".restart{fill:#7d8896;fill-opacity:.28}.failover{fill:#d0342c;fill-opacity:.75}"
        f"@media(prefers-color-scheme:dark){{{dark}}}"
    )
