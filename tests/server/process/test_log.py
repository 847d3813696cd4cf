"""The log: each line has its time, and a worker's its number."""

from __future__ import annotations

import logging

import pytest

from oncecast.server.process.log import begin_log


@pytest.mark.parametrize("worker, whose", [(None, ""), (2, "[2] ")])
def test_a_line(
    worker: int | None, whose: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line has the time in UTC with milliseconds, the worker, the level, the logger and the text."""
    monkeypatch.setattr(logging, "root", logging.RootLogger(logging.WARNING))
    begin_log(worker)
    record = logging.LogRecord("n", logging.WARNING, "", 0, "text", (), None)
    record.created = 1769903999.1239
    logging.root.handle(record)
    assert f"2026-01-31T23:59:59.123Z {whose}WARNING n: text\n" == capsys.readouterr().err
