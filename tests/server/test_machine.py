"""This machine's load, from a tree of files that stands for `/proc`, and from the real one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from oncecast.server.machine import Machine, Memory, Network

MEMINFO = "MemTotal:  1000 kB\nMemFree:  100 kB\nMemAvailable:  250 kB\nHugePages_Total:  0\n"
NETWORK = "Inter-| Receive | Transmit\n face |bytes packets|bytes packets\n"


def write(root: Path, cpus: list[str], interfaces: list[tuple[str, int, int]]) -> None:
    """Write what the kernel would."""
    (root / "net").mkdir(exist_ok=True)
    (root / "stat").write_text("\n".join([*cpus, "intr 1 2 3", "cpufreq 9", ""]))
    (root / "meminfo").write_text(MEMINFO)
    lines = [f"{name:>6}: {rx} 1 0 0 0 0 0 0 {tx} 1 0 0 0 0 0 0\n" for name, rx, tx in interfaces]
    (root / "net" / "dev").write_text(NETWORK + "".join(lines))


def test_the_first_sample_has_no_rates(tmp_path: Path) -> None:
    """Rates need two readings: the first has zeros, and the memory as it is."""
    write(tmp_path, ["cpu 10 0 10 80 0 0 0 0 0 0", "cpu0 10 0 10 80 0 0 0 0 0 0"], [("lo", 1000, 2000)])
    sample = Machine(tmp_path).sample(5.0, 1_764_000_000.12345)
    assert (1, 1_764_000_000.123, 0.0, [0.0]) == (sample.n, sample.time, sample.cpu, sample.cores)
    assert Memory(750 * 1024, 1000 * 1024, 75.0) == sample.memory
    assert Network(0, 0) == sample.network
    assert 3 == len(sample.load)


def test_rates_are_those_between_two_samples(tmp_path: Path) -> None:
    """CPU is the share of busy ticks, per core too; the network is bytes a second over all interfaces."""
    machine = Machine(tmp_path)
    write(
        tmp_path,
        ["cpu 10 0 10 80 0 0 0 0 7 7", "cpu0 5 0 5 40 0 0 0 0", "cpu1 5 0 5 40 0 0 0 0"],
        [("lo", 1000, 2000), ("eth0", 0, 0)],
    )
    machine.sample(5.0, 0.0)
    write(
        tmp_path,
        ["cpu 30 0 40 140 10 0 0 0 99 99", "cpu0 25 0 35 40 0 0 0 0", "cpu1 5 0 5 100 10 0 0 0"],
        [("lo", 3000, 2500), ("eth0", 1000, 500)],
    )
    sample = machine.sample(7.0, 1.0)
    assert (2, 41.7, [100.0, 0.0]) == (sample.n, sample.cpu, sample.cores)
    assert Network(1500, 500) == sample.network


def test_counters_that_go_back_and_a_clock_that_stands_still(tmp_path: Path) -> None:
    """An interface that vanished, a counter that wrapped and two samples at once give zeros, not nonsense."""
    machine = Machine(tmp_path)
    write(tmp_path, ["cpu 10 0 10 80 0 0 0 0"], [("lo", 1000, 2000), ("eth0", 5000, 5000)])
    machine.sample(5.0, 0.0)
    write(tmp_path, ["cpu 9 0 9 80 0 0 0 0"], [("lo", 1000, 2000)])
    sample = machine.sample(5.0, 0.0)
    assert (0.0, Network(0, 0)) == (sample.cpu, sample.network)


def test_a_core_that_goes_away(tmp_path: Path) -> None:
    """A core that was taken offline between two samples is left out."""
    machine = Machine(tmp_path)
    write(tmp_path, ["cpu 1 0 1 8 0 0 0 0", "cpu0 1 0 1 8 0 0 0 0", "cpu1 1 0 1 8 0 0 0 0"], [])
    machine.sample(1.0, 0.0)
    write(tmp_path, ["cpu 2 0 2 9 0 0 0 0", "cpu0 2 0 2 9 0 0 0 0"], [])
    assert [66.7] == machine.sample(2.0, 0.0).cores


def test_no_proc(tmp_path: Path) -> None:
    """Where there is no `/proc` the reading fails as a file does."""
    with pytest.raises(FileNotFoundError):
        Machine(tmp_path).sample(1.0, 0.0)


def test_a_stat_of_processors_alone(tmp_path: Path) -> None:
    """A file that ends with its processors is read to its end."""
    write(tmp_path, [], [])
    (tmp_path / "stat").write_text("cpu 1 0 1 8 0 0 0 0\n")
    assert [] == Machine(tmp_path).sample(1.0, 0.0).cores


def test_this_machine() -> None:
    """The real `/proc` gives values in their ranges, and JSON."""
    machine = Machine()
    machine.sample(1.0, 1.0)
    sample = machine.sample(2.0, 2.0)
    assert 0 <= sample.cpu <= 100
    assert 0 < sample.memory.used < sample.memory.total
    assert len(sample.cores) >= 1
    assert b'{"n":2,' == msgspec.json.encode(sample)[:7]
