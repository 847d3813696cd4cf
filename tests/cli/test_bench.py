"""`oncecast bench` where the benchmarks can't be imported; what it measures is tested in tests/benchmarks."""

from __future__ import annotations

import sys
import types

import pytest

from tests.cli.conftest import call, complaint


def test_without_the_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package does not have them; another package of that name is not taken for them."""
    expected = (
        "the benchmarks are not in an installed package: clone the repository, and run .venv/bin/oncecast bench there"
    )
    for module in (None, types.ModuleType("benchmarks")):
        for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "benchmarks", module)
        assert expected == complaint(call("bench", "fanout"), 1)


def test_without_a_package_that_the_benchmarks_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause is named, and not that the benchmarks are missing."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "websockets", None)
    monkeypatch.setitem(sys.modules, "msgspec", None)
    assert complaint(call("bench", "fanout"), 1).startswith("the benchmarks need another package: import of msgspec")


def test_elsewhere_than_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command refuses to run, as it reads /proc."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "oncecast bench reads CPU time from Linux's /proc: run it there" == complaint(call("bench"), 1)
