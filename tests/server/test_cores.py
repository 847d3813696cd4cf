"""How many workers `auto` means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oncecast.server import cores
from oncecast.server.cores import usable_cores, worker_count


@pytest.mark.parametrize(
    "quota, expected",
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("9900000 100000", 8), ("", 8)],
)
def test_a_containers_share_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int) -> None:
    """As many as the process is bound to, or as the container's quota lets run at once, whichever is less."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    file = tmp_path / "cpu.max"
    assert 8 == usable_cores(file)
    file.write_text(quota)
    assert expected == usable_cores(file)


def test_auto_is_one_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number is itself; `auto` follows the machine, up to what may be set."""
    monkeypatch.setattr(cores, "usable_cores", lambda: 3)
    assert (3, 7) == (worker_count("auto"), worker_count(7))
    monkeypatch.setattr(cores, "usable_cores", lambda: 1000)
    assert 256 == worker_count("auto")
