"""Faults of real broker servers, in short; `make proof` runs 50 schedules of each."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.brokers.servers import require

from . import broker_faults

SERVERS = ("redis", "nats")  # in the short run; the names of scripts/broker_servers
EACH = [
    "restarted whole",
    "restarted empty",
    "put back to an older copy",
    "partitioned from a node",
    "acknowledgement lost",
    "subscription killed",
    "replica promoted",
]
OF_REDIS = ["subscription killed", "replica promoted"]


@pytest.mark.parametrize("kind", SERVERS)
async def test_each_fault_is_survived(kind: str, tmp_path: Path) -> None:
    """One schedule with each fault of `EACH`, two or three nodes, four transports."""
    require(kind)
    names = EACH if kind == "redis" else [name for name in EACH if name not in OF_REDIS]
    report = await broker_faults.BrokerRun(kind, 7, tmp_path, long=False).play(names)
    assert dict.fromkeys(names, 1) == dict(report.faults)
    assert report.gaps > 0
    assert report.stood > 0
    assert report.served > 0
    assert report.delivered > report.published > 20


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_drawn_schedule(kind: str) -> None:
    """A schedule as `make proof` draws it."""
    require(kind)
    report = await broker_faults.run(kind, 1, long=False)
    assert sum(report.faults.values()) == broker_faults.FAULTS


@pytest.mark.parametrize("kind", ["rabbitmq", "kafka"])
async def test_a_node_is_partitioned_from_a_server_that_names_its_own_address(kind: str) -> None:
    """Its connections go by the pipe all the same; their other faults are in brokers/followed/test_faults.py."""
    require(kind)
    report = await broker_faults.run(kind, 1, names=["partitioned from a node"], long=False)
    assert (1, 0) == (report.faults["partitioned from a node"], report.gaps)
    assert report.delivered > report.published > 20


def test_the_report_adds_up() -> None:
    """The line that a run ends with."""
    report = broker_faults.Report()
    report.add(broker_faults.Report(schedules=1, published=2, delivered=3, gaps=1, noticed=0.5, ready=0.25))
    report.faults["restarted empty"] += 2
    assert str(report).startswith("2 restarted empty; 2 messages acknowledged, 3 delivered once and in order, 1 gaps")


def test_an_interrupted_program_leaves_no_process_behind(tmp_path: Path) -> None:
    """SIGINT while servers run and start: the program ends its servers, removes their files and says so."""
    require("redis")
    command = [sys.executable, "-m", broker_faults.__name__, "--broker", "redis", "--at-once", "3"]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as program:
        try:
            _until(lambda: len(_processes_in(tmp_path)) >= 2)
            program.send_signal(signal.SIGINT)
            said, _ = program.communicate(timeout=60)
        finally:
            program.kill()
    assert program.returncode == 130
    assert said.splitlines()[-1] == "interrupted: its servers have ended"
    assert _processes_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def _processes_in(folder: Path) -> list[Path]:
    """Return the processes that work below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if Path(os.readlink(process / "cwd")).is_relative_to(folder):
                found.append(process)
    return found


def _until(held: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not held():
        assert time.monotonic() < end
        time.sleep(0.02)
