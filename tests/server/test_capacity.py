"""How many connections fit under a limit of open files."""

from __future__ import annotations

import os
import resource

import pytest

from oncecast.errors import ConfigurationError
from oncecast.server.capacity import LEAST, RESERVE, SPARE_FILES, Capacity, own_files, plan


@pytest.mark.parametrize("wanted, own, files", [(0, 20, 1024), (100, 20, 1024), (5000, 20, 1024), (0, 25, 64)])
def test_all_files_together_stay_within_the_limit(wanted: int, own: int, files: int) -> None:
    """Connections, what the server has open and the spare files fit; a ceiling that is set is not exceeded."""
    found = plan(wanted, own, files)
    assert found.total + own + SPARE_FILES <= files
    assert 0 < found.ceiling <= (wanted or files)
    assert 0 < found.reserve <= RESERVE


def test_a_ceiling_below_the_limit_is_kept() -> None:
    """The reserve comes on top of it."""
    assert Capacity(10, RESERVE) == plan(10, 20, 1024)


def test_too_few_files_are_an_error_that_says_how_many_are_needed() -> None:
    """With the limit that the error names, the server starts."""
    with pytest.raises(ConfigurationError, match=f"is 40, and the server needs 49 .*ulimit -n.* to {49 + LEAST}"):
        plan(0, 25, 40)
    assert plan(0, 25, 49 + LEAST).ceiling > 0


def test_this_processs_own_limit_is_the_default() -> None:
    """Without a number, the system is asked."""
    assert plan(5, 1).ceiling == 5


def test_files_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a limit has the ceiling that is set."""
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY,) * 2)
    assert Capacity(100_000, RESERVE) == plan(100_000, 20)


def test_own_files_are_those_that_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each descriptor counts, connections do not; where the system does not list them, an estimate holds."""
    before = own_files()
    descriptor = os.dup(0)
    assert (before + 1, before) == (own_files(), own_files(connections=1))
    os.close(descriptor)

    def refuse(path: str) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert own_files() > 0
