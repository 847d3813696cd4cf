"""What is run again after a run with failures, and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import again

TESTS = """
from pathlib import Path


def test_twice():
    runs = Path("runs")
    runs.write_text(runs.read_text() + "." if runs.exists() else ".")
    assert len(runs.read_text()) != FAILS_AT
"""
OPTIONS = ("-c", "/dev/null", "--rootdir", ".", "-p", "xdist.plugin")


@pytest.fixture
def failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which one test has failed. Return where pytest keeps the names of those that failed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take most of the time
    again.LAST_FAILED.parent.mkdir(parents=True)
    again.LAST_FAILED.write_text(json.dumps({"test_it.py::test_twice": True}))
    return again.LAST_FAILED


@pytest.mark.slow
@pytest.mark.parametrize(("fails_at", "status", "runs"), [(0, 0, 3), (1, 1, 1), (3, 1, 3)])
def test_a_failed_test_is_run_alone(
    fails_at: int, status: int, runs: int, failed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It has to pass each time, and is named."""
    Path("test_it.py").write_text(TESTS.replace("FAILS_AT", str(fails_at)))
    assert status == again.run(1, OPTIONS)
    assert runs == len(Path("runs").read_text())
    assert (status == 0) == ("unsteady: test_it.py::test_twice" in capfd.readouterr().err)


@pytest.mark.parametrize("status", [0, 2, 3, 4, 5, -9])
def test_only_failed_tests_are_run_again(status: int, failed: Path) -> None:
    """A run that ended otherwise has its own status."""
    assert status == again.run(status, OPTIONS)


@pytest.mark.parametrize("names", [{}, dict.fromkeys("abcd", True)])
def test_none_or_many_are_no_accident(names: dict[str, bool], failed: Path) -> None:
    """Something else has failed, or much has."""
    failed.write_text(json.dumps(names))
    assert 1 == again.run(1, OPTIONS)
