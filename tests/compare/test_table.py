"""The table in a terminal: it fits in any width, has colours to take off, and says what went wrong."""

from __future__ import annotations

import click
import msgspec
import pytest

from oncecast.compare.report import ORDER, ComparisonReport, LaneMarks
from oncecast.compare.table import ROWS, render_table
from tests.compare.conftest import LANES, blocked, report_of

MARKS = {name: LaneMarks([(0.1 * n, 0.0004 * 1.4**n) for n in range(20)], [1.0, 2.0]) for name in ORDER}


def _text(report: ComparisonReport, width: int = 80, *, unicode: bool = True) -> str:
    return click.unstyle(render_table(report, MARKS, width=width, unicode=unicode))


@pytest.mark.parametrize("width", [1, 40, 59, 60, 61, 80, 120, 400])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Down to forty columns every line fits, and every figure is there."""
    text = _text(report_of(), width)
    assert max(40, width) >= max(len(line) for line in text.splitlines())
    for label, _ in ROWS:
        assert label in text
    assert "Take Server-Sent Events" in " ".join(text.split())


def test_the_figures() -> None:
    """A row has the figure of each transport, in their order."""
    lines = {line[:20].strip(): line[20:].split() for line in _text(report_of()).splitlines()}
    assert ["500", "ms", "2.00", "ms", "1.00", "ms", "1.00", "ms"] == lines["delay, p50"]
    assert ["30", "0", "none", "none"] == lines["empty answers"]
    assert ["not", "ours"] * 4 == lines["CPU, a message"]
    assert ["no", "no", "no", "yes"] == lines["full duplex"]


def test_cpu_time_within_the_noise_is_not_given_as_a_figure() -> None:
    """It is said to be below what two equal servers differ by, also where it is negative."""
    lane = msgspec.structs.replace(LANES["sse"], ours=True, cpu_seconds=-0.001)
    more = msgspec.structs.replace(LANES["websocket"], ours=True, cpu_seconds=0.02)
    lost = msgspec.structs.replace(LANES["long-poll"], ours=True)
    text = _text(report_of(long_poll=lost, sse=lane, websocket=more))
    assert ["not", "ours", "–", "<", "100", "µs", "1.00", "ms"] == next(
        x for x in text.splitlines() if x.startswith("CPU")
    ).split()[3:]


def test_without_unicode() -> None:
    """In ASCII the same is said."""
    text = _text(report_of(), unicode=False)
    assert text.isascii()
    assert "ms" in text
    assert "@" in text


def test_what_went_wrong_is_said() -> None:
    """A transport that is blocked, messages that were not published and an early end stand below the table."""
    report = msgspec.structs.replace(
        report_of(websocket=blocked("websocket", "the server answers 403")),
        ended="interrupted",
        unpublished=2,
        publish_failure="gone",
        late=0.5,
        cpu_of_all=0.25,
    )
    text = " ".join(_text(report, 110).split())
    for expected in (
        "WebSocket did not get through: the server answers 403",
        "Cut short: interrupted. The figures are those until then.",
        "2 of 12 messages were not published: gone",
        "A message was published up to 500 ms after its moment",
        "The server used 250 ms of CPU time in all",
    ):
        assert expected in text
    assert "blocked" in text


def test_no_marks() -> None:
    """Where nothing arrived there is no strip of delays, and nothing fails."""
    report = report_of(None, **{name.replace("-", "_"): blocked(name, "no") for name in ORDER})
    text = click.unstyle(render_table(report, {}, width=80, unicode=True))
    assert "how the delays are spread" not in text
    assert "No transport brought its messages here" in text
