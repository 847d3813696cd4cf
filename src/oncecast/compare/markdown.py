"""A report as Markdown, for a page or an issue. The rows are those of `table.py`."""

from __future__ import annotations

from .advice import equivalent_sentence
from .report import ORDER, TITLES, ComparisonReport
from .table import FACTS, ROWS, cell, notes

__all__ = ["render_markdown"]


def render_markdown(report: ComparisonReport) -> str:
    """Return what was measured, a table, the notes and the recommendation."""
    head = " | ".join(TITLES[name] for name in ORDER)
    lines = [f"**{report.describes}**, on {report.server}, a poll every {report.poll_interval:g} s."]
    if report.rtt_ms or report.through:
        through = f" Through {report.through}." if report.through else ""
        lines.append(
            f"{report.rtt_ms:g} ms are added to each round trip.{through}" if report.rtt_ms else through.strip()
        )
    lines += ["", f"| | {head} |", "| --- |" + " ---: |" * len(ORDER)]
    for label, value in ROWS:
        lines.append(f"| {label} | " + " | ".join(_escaped(cell(lane, value)) for lane in report.lanes) + " |")
    lines += [f"| {label} | " + " | ".join(texts) + " |" for label, texts in FACTS]
    lines += [text for note in notes(report) for text in ("", _escaped(note))]
    verdict = [*report.verdict.sentences, equivalent_sentence(report.equivalent, report.lane("websocket"))]
    return "\n".join([*lines, "", _escaped(" ".join(verdict))])


def _escaped(text: str) -> str:
    """Return a text of a peer or of ours that Markdown shows as it is."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
