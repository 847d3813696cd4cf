"""The page about hardening names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^\| (?!input|fault|---)(.+?) \| (.+?) \| (.+) \|$", re.MULTILINE)
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ROWS = ROW.findall((ROOT / "docs/explanation/hardening.md").read_text("utf-8"))


def test_there_are_rows() -> None:
    """Both tables are read."""
    assert len(ROWS) > 25


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_line_has_a_test(row: tuple[str, str, str]) -> None:
    """Each row names at least one test, and each of them is there."""
    named = NAMED.findall(row[2])
    assert named
    for file, name in named:
        assert re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE), name
