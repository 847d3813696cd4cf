"""A report as an SVG: each message's delay over time, a lane for each transport, and the empty answers as hollow marks.

Invariant: it stands alone, without scripts, fonts or addresses of other places, and follows the reader's choice of a
light or a dark ground. All lanes have one logarithmic axis of delays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape

from . import figures
from .report import ORDER, TITLES, ComparedLane, ComparisonReport, LaneMarks

__all__ = ["render_picture"]

WIDTH = 960
LEFT = 156
RIGHT = 24
TOP = 76
LANE = 104  # height
GAP = 22
EMPTY_ROOM = 16  # below a lane's axis, for its empty answers

LIGHT = {"short-poll": "#b45309", "long-poll": "#8a3ffc", "sse": "#0563c1", "websocket": "#0a7d4f"}
DARK = {"short-poll": "#f59e4b", "long-poll": "#c4a1ff", "sse": "#6cb6ff", "websocket": "#4cc38a"}


def render_picture(report: ComparisonReport, marks: Mapping[str, LaneMarks]) -> str:
    """Return the SVG's text."""
    height = TOP + len(ORDER) * (LANE + GAP) + 44
    scale = _Scale(report, marks)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-labelledby="title description" font-family="system-ui, sans-serif" font-size="13">',
        f'<title id="title">{escape(report.describes)}</title>',
        f'<desc id="description">{escape(_description(report))}</desc>',
        f"<style>{_style()}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
        f'<text class="head" x="24" y="32">{escape(report.describes)}</text>',
        f'<text class="quiet" x="24" y="54">Delay from publish to arrival, on {escape(report.server)}. '
        "A dot is a message, a ring an answer that had nothing new.</text>",
    ]
    for place, name in enumerate(ORDER):
        top = TOP + place * (LANE + GAP)
        parts += _lane(report.lane(name), marks.get(name, LaneMarks((), ())), top, scale)
    parts += _time_axis(height - 34, scale)
    return "\n".join([*parts, "</svg>", ""])


class _Scale:
    """From seconds to places: time from the left, and the logarithm of delays from a lane's bottom."""

    def __init__(self, report: ComparisonReport, marks: Mapping[str, LaneMarks]) -> None:
        delays = [max(delay, 1e-5) for lane in marks.values() for _, delay in lane.arrivals] or [0.001, 1.0]
        self.low = math.floor(math.log10(min(delays)))
        self.high = max(math.ceil(math.log10(max(delays))), self.low + 1)
        self.seconds = max(report.seconds, 0.001)

    def x(self, at: float) -> float:
        return LEFT + min(max(at / self.seconds, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)

    def y(self, top: float, delay: float) -> float:
        share = (math.log10(max(delay, 1e-5)) - self.low) / (self.high - self.low)
        return top + (1 - min(max(share, 0.0), 1.0)) * (LANE - EMPTY_ROOM)


def _lane(lane: ComparedLane, marks: LaneMarks, top: float, scale: _Scale) -> Iterator[str]:
    bottom = top + LANE - EMPTY_ROOM
    yield f'<g class="{lane.transport}">'
    for power in range(scale.low, scale.high + 1):
        y = scale.y(top, 10.0**power)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        if (power - scale.low) % 2 == 0:
            label = figures.seconds(10.0**power).replace(".00", "").replace(".0", "")
            yield f'<text class="quiet small" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    yield f'<text class="name" x="24" y="{top + 14:.0f}">{TITLES[lane.transport]}</text>'
    said = lane.state if lane.delay is None else f"p50 {figures.seconds(lane.delay.p50)}"
    yield f'<text class="quiet small" x="24" y="{top + 32:.0f}">{escape(said)}</text>'
    dots = "".join(f"M{scale.x(at):.1f} {scale.y(top, delay):.1f}h0" for at, delay in marks.arrivals)
    if dots:
        yield f'<path class="dots" d="{dots}"/>'
    ring = "a3 3 0 1 0 6 0a3 3 0 1 0 -6 0"
    rings = "".join(f"M{scale.x(at) - 3:.1f} {bottom + EMPTY_ROOM - 5:.1f}{ring}" for at in marks.empty)
    if rings:
        yield f'<path class="rings" d="{rings}"/>'
    yield "</g>"


def _time_axis(y: float, scale: _Scale) -> Iterator[str]:
    step = next(step for step in (1, 2, 5, 10, 20, 60, 120, 300, 600, 1200) if scale.seconds / step <= 12)
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
    for tick in range(0, int(scale.seconds) + 1, step):
        yield f'<text class="quiet small" x="{scale.x(tick):.1f}" y="{y + 18}" text-anchor="middle">{tick} s</text>'


def _description(report: ComparisonReport) -> str:
    said = []
    for lane in report.lanes:
        delay = (
            "nothing arrived"
            if lane.delay is None
            else f"half of the messages within {figures.seconds(lane.delay.p50)}"
        )
        empty = f", {lane.empty_answers} empty answers" if lane.transport.endswith("poll") else ""
        said.append(f"{TITLES[lane.transport]}: {delay}{empty}")
    return "; ".join(said) + "."


def _style() -> str:
    def colours(table: Mapping[str, str]) -> str:
        return "".join(f".{name}{{color:{colour}}}" for name, colour in table.items())

    return (
        "svg{color-scheme:light dark}.ground{fill:#fff}text{fill:#1b1f24}.head{font-size:16px;font-weight:600}"
        ".small{font-size:11px}.quiet{fill:#57606a}.name{font-weight:600;fill:currentColor}"
        ".grid{stroke:#d0d7de;stroke-width:.6}.axis{stroke:#57606a}"
        ".dots{fill:none;stroke:currentColor;stroke-width:5;stroke-linecap:round;stroke-opacity:.7}"
        ".rings{fill:none;stroke:currentColor;stroke-width:1;stroke-opacity:.8}"
        + colours(LIGHT)
        + "@media(prefers-color-scheme:dark){.ground{fill:#0d1117}text{fill:#e6edf3}.quiet{fill:#9aa4af}"
        ".grid{stroke:#30363d}.axis{stroke:#9aa4af}" + colours(DARK) + ".name{fill:currentColor}}"
    )
