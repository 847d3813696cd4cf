"""The runs of the client through faults, and their command."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from . import client_runs
from .client_oracle import Wrong
from .client_runs import Report, run

SEEDS = range(40)
AT_ONCE = 5


@pytest.mark.parametrize("first", SEEDS[::AT_ONCE])
async def test_runs(first: int) -> None:
    """Each message once and in order, or a gap, whatever is cut, stalled or swallowed; each publish once."""
    reports = await asyncio.gather(*[run(seed) for seed in range(first, first + AT_ONCE)])
    assert AT_ONCE == sum(report.runs for report in reports)
    assert sum(report.cuts for report in reports) > 0


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what the runs met, and fails with the seed that is wrong."""
    seeds: list[int] = []

    async def one(seed: int) -> Report:
        seeds.append(seed)
        if seed == 60:
            raise Wrong("lost")
        return Report(1, messages=2, gaps=1, cuts=3)

    monkeypatch.setattr(client_runs, "run", one)
    assert 0 == client_runs.main(["--runs", "50", "--seed", "5"])
    assert (50, 5) == (len(seeds), seeds[0])
    printed: Any = capsys.readouterr()
    assert "50 runs from seed 5" in printed.out
    assert "100 messages seen once and in order, 50 gaps where they belong" in printed.out
    with pytest.raises(Wrong, match="seed 60"):
        client_runs.main(["--runs", "10", "--seed", "55"])
