"""What is asked of an SQLite file aside from its broker's threads, where the file can't be used."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from oncecast.brokers.sqlite import operate
from oncecast.brokers.sqlite.file import File
from oncecast.errors import Refusal


async def test_a_file_that_fails(tmp_path: Path) -> None:
    """The refusal names the cause."""

    def fail(file: File) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(Refusal, match=r"log.db can't be used: disk I/O error"):
        await operate.in_thread(tmp_path / "log.db", fail)


async def test_a_file_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait ends at its deadline, whatever the thread does."""
    monkeypatch.setattr(operate, "SECONDS", 0.01)
    over = threading.Event()
    with pytest.raises(Refusal, match=r"did not answer within 0\.01 s"):
        await operate.in_thread(tmp_path / "log.db", lambda file: over.wait(20))
    over.set()
