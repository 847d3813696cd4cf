"""The memory of the quotas that processes share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from oncecast.server.build import build_quotas
from oncecast.server.quota_memory import QuotaMemory
from oncecast.server.settings import Settings

WORKER = """
import sys, time
from oncecast.server.quota_memory import QuotaMemory
memory = QuotaMemory(int(sys.argv[1]))
counts, place = memory.counts(int(sys.argv[2])), memory.hasher().place("address:192.0.2.1")
counts.add(place, 5)
counts.set_all(7)
memory.rates().spend(place, 30.0, 2.0, 1000.0)
print("counted", flush=True)
time.sleep(600)
"""


@pytest.fixture
def memory() -> Iterator[QuotaMemory]:
    """Memory for two processes."""
    memory = QuotaMemory.create(2)
    yield memory
    os.close(memory.descriptor)


def test_what_a_killed_process_has_counted_is_cleared(memory: QuotaMemory) -> None:
    """Another process sees its counts, and they are gone with its region; the rates stay."""
    mine, theirs = memory.take(), memory.take()
    assert mine is not None
    assert theirs is not None
    counts, place = memory.counts(mine), memory.hasher().place("address:192.0.2.1")
    counts.add(place, 1)
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(memory.descriptor), str(theirs)],
        stdout=subprocess.PIPE,
        pass_fds=[memory.descriptor],
    ) as process:
        try:
            assert process.stdout is not None
            assert b"counted\n" == process.stdout.readline()
            assert (6, 7) == (counts.count(place), counts.all)
        finally:
            process.kill()
    memory.free(theirs)
    assert (1, 0) == (counts.count(place), counts.all)
    assert 28.0 <= memory.rates().spend(place, 1.0, 2.0, 1000.0)
    assert theirs == memory.take()


def test_regions_run_out(memory: QuotaMemory) -> None:
    """A process without one counts for itself."""
    assert {0, 1} == {memory.take(), memory.take()}
    assert memory.take() is None
    memory.free(None)
    assert memory.take() is None
    alone = build_quotas(Settings(), memory, None)
    assert 1 == alone.room(5)
    assert 0 == memory.counts(0).all


def test_a_secret_for_each_memory(memory: QuotaMemory) -> None:
    """Each memory has another secret, so a client can't know which keys share slots."""
    other = QuotaMemory.create(1)
    assert other.hasher().place("a") != memory.hasher().place("a")
    os.close(other.descriptor)
