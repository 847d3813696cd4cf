"""A report for a terminal: the table, a strip of delays for each transport, and the recommendation.

Invariant: no line is wider than the terminal, down to `NARROWEST` columns; without colour and without Unicode the same
is said. The rows are in `ROWS`, for `markdown.py` too; to add one, add it there.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence

import click

from . import figures
from .advice import equivalent_sentence
from .report import ORDER, TITLES, ComparedLane, ComparisonReport, LaneMarks

__all__ = ["FACTS", "ROWS", "cell", "notes", "render_table"]

Cell = Callable[[ComparedLane], str]

NARROWEST = 40
WIDEST = 110
LABEL = 20  # columns of a row's name
COLUMN = 10  # least columns of a transport: with the names 60 in all
STACKED = LABEL + len(ORDER) * COLUMN  # below this the transports stand below each other

# The middle of the 256 colours, which can be read on a light and on a dark ground.
COLOURS: Mapping[str, int] = {"short-poll": 166, "long-poll": 134, "sse": 32, "websocket": 29}
QUIET = 244

NOISE_SECONDS = 0.002  # of CPU time, within which the counts of two equal servers differ


def _delay(name: str) -> Cell:
    return lambda lane: figures.seconds(None if lane.delay is None else getattr(lane.delay, name))


def _received(lane: ComparedLane) -> str:
    if lane.received == lane.expected:
        return f"all {figures.count(lane.received)}"
    return f"{lane.received / lane.expected:.1%}" if lane.expected else "0"


def _empty(lane: ComparedLane) -> str:
    return figures.count(lane.empty_answers) if lane.transport.endswith("poll") else "none"


def _cpu(lane: ComparedLane) -> str:
    if not lane.ours:
        return "not ours"
    if lane.cpu_seconds is None or not lane.received:
        return figures.UNKNOWN
    if lane.cpu_seconds < NOISE_SECONDS:
        return f"< {figures.seconds(NOISE_SECONDS / lane.received)}"
    return figures.seconds(lane.cpu_seconds / lane.received)


# What was measured, by the row's name. A `*` in `markdown.py` and here marks what is explained below the table.
ROWS: Sequence[tuple[str, Cell]] = (
    ("delay, p50", _delay("p50")),
    ("delay, p99", _delay("p99")),
    ("delay, longest", _delay("max")),
    ("messages received", _received),
    ("requests made", lambda lane: figures.count(lane.requests)),
    ("empty answers", _empty),
    ("up, a message", lambda lane: figures.size(lane.a_message(lane.bytes_up))),
    ("down, a message", lambda lane: figures.size(lane.a_message(lane.bytes_down))),
    ("to connect, up+down", lambda lane: figures.size(lane.connect_up + lane.connect_down)),
    ("CPU, a message", _cpu),
    ("connections held", lambda lane: f"{lane.held:.0f}" if lane.held >= 9.95 else f"{lane.held:.1f}"),
    ("reconnects", lambda lane: figures.count(lane.reconnects)),
)

# What each transport is, in the order of `ORDER`.
FACTS: Sequence[tuple[str, Sequence[str]]] = (
    ("direction", ("ask", "ask, wait", "one way", "both ways")),
    ("full duplex", ("no", "no", "no", "yes")),
    ("binary", ("base64", "base64", "base64", "yes")),
    ("complexity", ("low", "medium", "low", "high")),
)


def cell(lane: ComparedLane, value: Cell) -> str:
    """Return a figure; of a transport that did not work only what is true of it."""
    return "blocked" if lane.state == "blocked" else value(lane)


def render_table(report: ComparisonReport, marks: Mapping[str, LaneMarks], *, width: int, unicode: bool) -> str:
    """Return the lines, with the codes of colours, for a terminal of `width` columns."""
    width = max(NARROWEST, min(width, WIDEST))
    lines = [*_wrapped(report.describes, width, bold=True), *_wrapped(_setting(report), width), ""]
    lines += _stacked(report) if width < STACKED else _columns(report, width)
    lines += ["", *_strips(marks, width)]
    for note in notes(report):
        lines += ["", *_wrapped(note, width)]
    lines.append("")
    for sentence in report.verdict.sentences[:1]:
        lines += _wrapped(sentence, width, bold=True)
    for sentence in [*report.verdict.sentences[1:], equivalent_sentence(report.equivalent, report.lane("websocket"))]:
        lines += _wrapped(sentence, width)
    text = "\n".join(lines)
    return text if unicode else _plain(text)


def notes(report: ComparisonReport) -> list[str]:
    """Return what a reader has to know of this run beside its figures, a paragraph each."""
    found = []
    if report.ended:
        found.append(f"Cut short: {report.ended}. The figures are those until then.")
    if report.unpublished:
        total = report.published + report.unpublished
        found.append(f"{report.unpublished} of {total} messages were not published: {report.publish_failure}")
    if report.late > 0.1:
        found.append(
            f"A message was published up to {figures.seconds(report.late)} after its moment: this machine could not "
            "keep the schedule."
        )
    for lane in report.lanes:
        if lane.reason:
            state = {"blocked": "did not get through", "silent": "brought nothing"}.get(lane.state, "was cut off")
            found.append(f"{TITLES[lane.transport]} {state}: {lane.reason}")
        if lane.gaps or lane.repeated:
            found.append(f"{TITLES[lane.transport]}: {lane.gaps} gaps, {lane.repeated} messages came twice.")
    if report.cpu_of_all is not None:
        found.append(
            f"The server used {figures.seconds(report.cpu_of_all)} of CPU time in all, by its /metrics: for the "
            "publishes and the four transports together."
        )
    return found


def _setting(report: ComparisonReport) -> str:
    """Return what was measured, and how, as a line."""
    parts = [f"on {report.server}", f"a poll every {report.poll_interval:g} s"]
    if report.rtt_ms:
        parts.append(f"{report.rtt_ms:g} ms added to each round trip")
    if report.through:
        parts.append(f"through {report.through}")
    return ", ".join(parts)


def _columns(report: ComparisonReport, width: int) -> list[str]:
    column = min(15, (width - LABEL) // len(ORDER))
    rule = click.style("─" * (LABEL + column * len(ORDER)), fg=QUIET)
    head = "".join(click.style(TITLES[name].rjust(column), fg=COLOURS[name], bold=True) for name in ORDER)
    lines = [" " * LABEL + head, rule]
    for label, value in ROWS:
        lines.append(label.ljust(LABEL) + "".join(cell(lane, value).rjust(column) for lane in report.lanes))
    lines.append(rule)
    lines += [label.ljust(LABEL) + "".join(text.rjust(column) for text in texts) for label, texts in FACTS]
    return lines


def _stacked(report: ComparisonReport) -> list[str]:
    lines: list[str] = []
    for place, lane in enumerate(report.lanes):
        lines.append(click.style(TITLES[lane.transport], fg=COLOURS[lane.transport], bold=True))
        lines += [f"  {label.ljust(LABEL)} {cell(lane, value)}" for label, value in ROWS]
        lines += [f"  {label.ljust(LABEL)} {texts[place]}" for label, texts in FACTS]
    return lines


# -- the strips: how the delays of each transport are spread, on one logarithmic axis

BLOCKS = " ▁▂▃▄▅▆▇█"
TITLE = 11


def _strips(marks: Mapping[str, LaneMarks], width: int) -> list[str]:
    delays = {name: [delay for _, delay in marks[name].arrivals] for name in ORDER if name in marks}
    every = [max(delay, 1e-5) for values in delays.values() for delay in values]
    if not every:
        return []
    low, high = math.floor(math.log10(min(every))), max(math.ceil(math.log10(max(every))), -1)
    high = max(high, low + 1)
    columns = width - TITLE - 1
    lines = ["how the delays are spread"]
    for name, values in delays.items():
        counts = [0] * columns
        for delay in values:
            place = (math.log10(max(delay, 1e-5)) - low) / (high - low)
            counts[min(columns - 1, max(0, int(place * columns)))] += 1
        most = max(counts)
        strip = "".join(BLOCKS[0 if not n else max(1, round(n / most * (len(BLOCKS) - 1)))] for n in counts)
        lines.append(
            click.style(TITLES[name].ljust(TITLE), fg=COLOURS[name], bold=True) + click.style(strip, fg=COLOURS[name])
        )
    axis = [" "] * columns
    ticks = [" "] * (columns + TITLE)
    for power in range(low, high + 1):
        at = min(columns - 1, round((power - low) / (high - low) * columns))
        axis[at] = "┴"
        label = figures.seconds(10.0**power).replace(".00", "").replace(".0", "")
        begin = min(len(ticks) - len(label), TITLE + at - len(label) // 2)
        ticks[begin : begin + len(label)] = label
    lines.append(click.style(" " * TITLE + "".join(axis).replace(" ", "─"), fg=QUIET))
    lines.append(click.style("".join(ticks).rstrip(), fg=QUIET))
    return lines


def _wrapped(text: str, width: int, *, bold: bool = False) -> list[str]:
    return [click.style(line, bold=True) if bold else line for line in textwrap.wrap(text, width)]


_PLAIN = str.maketrans({**dict(zip(BLOCKS, " .:-=+*#@", strict=True)), "─": "-", "┴": "+", "–": "-", "µ": "u"})


def _plain(text: str) -> str:
    """Return the text in ASCII, for an output that has no more."""
    return text.translate(_PLAIN).encode("ascii", "replace").decode()
