"""The ports that the servers of tests listen on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scripts.broker_servers import system


def test_nobody_gets_a_port_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that picks meanwhile gets none of them, though nothing listens there yet."""
    monkeypatch.setattr(system, "PORTS", range(19_800, 20_000))
    mine = system.free_ports(60)
    code = f"from scripts.broker_servers import system; system.PORTS = {system.PORTS}; print(*system.free_ports(60))"
    theirs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=system.ROOT)
    assert 120 == len({*mine, *map(int, theirs.stdout.split())})
