"""The report as Markdown."""

from __future__ import annotations

import msgspec

from oncecast.compare.markdown import render_markdown
from oncecast.compare.table import FACTS, ROWS
from tests.compare.conftest import blocked, report_of


def test_the_table() -> None:
    """Each row of the table is one of Markdown's, with five columns."""
    text = render_markdown(msgspec.structs.replace(report_of(), rtt_ms=100, through="http://proxy:1"))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert 2 + len(ROWS) + len(FACTS) == len(rows)
    assert {6} == {row.count("|") for row in rows}
    assert "100 ms are added to each round trip. Through http://proxy:1." in text
    assert text.endswith(".")


def test_what_a_peer_says_is_no_markup() -> None:
    """A reason that has Markdown's or HTML's characters is shown as it is."""
    text = render_markdown(report_of(sse=blocked("sse", "<b>|no")))
    assert "SSE did not get through: &lt;b>\\|no" in text
