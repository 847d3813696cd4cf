"""Faults of real broker servers, in short; `make proof` runs 50 schedules of each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.broker_servers.kinds import KINDS
from scripts.broker_servers.system import Missing

from . import broker_faults

SERVERS = ("redis", "nats")  # in the short run; the names of scripts/broker_servers
EACH = [
    "restarted whole",
    "restarted empty",
    "put back to an older copy",
    "partitioned from a node",
    "acknowledgement lost",
    "subscription killed",
]


@pytest.mark.parametrize("kind", SERVERS)
async def test_each_fault_is_survived(kind: str, tmp_path: Path) -> None:
    """One schedule with each fault of `EACH`, two or three nodes, four transports."""
    _require(kind)
    run = broker_faults.BrokerRun(kind, 7, tmp_path, piped=True, long=False)
    names = [name for name in EACH if name in run.faults]
    report = await run.play_these(names)
    assert dict.fromkeys(names, 1) == dict(report.faults)
    assert report.gaps > 0
    assert report.delivered > report.published > 20


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_drawn_schedule(kind: str) -> None:
    """A schedule as `make proof` draws it."""
    _require(kind)
    report = await broker_faults.run(kind, 1, faults=2, long=False)
    assert sum(report.faults.values()) == 2


def test_the_report_adds_up() -> None:
    """The line that a run ends with."""
    report = broker_faults.Report()
    report.add(broker_faults.Report(schedules=1, published=2, delivered=3, gaps=1, noticed=0.5, ready=0.25))
    report.faults["restarted empty"] += 2
    assert str(report).startswith("1 schedules: 2 restarted empty; 2 messages acknowledged, 3 delivered once")


def _require(kind: str) -> None:
    try:
        KINDS[kind].require()
    except Missing as missing:
        if os.environ.get("CI"):
            pytest.fail(f"{kind}: {missing}")
        pytest.skip(f"{kind}: {missing}")
