"""This machine's own load, from `/proc`: real data for the start page, published to `demo.machine`.

proc(5). Rates need two readings, so the first sample has none yet. Time is passed in.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

CHANNEL = "demo.machine"
SECONDS = 0.25


class Memory(msgspec.Struct, frozen=True):
    """Bytes, and percent of the total."""

    used: int
    total: int
    percent: float


class Network(msgspec.Struct, frozen=True):
    """Bytes a second, over all interfaces, loopback included: that is where a demonstration's traffic is."""

    rx: float
    tx: float


class Sample(msgspec.Struct, frozen=True):
    """One reading. `n` counts up from 1 and `time` is in Unix seconds, so that a reader can see what it missed."""

    n: int
    time: float
    cpu: float
    cores: list[float]
    memory: Memory
    network: Network
    load: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class _Reading:
    at: float
    busy: list[tuple[int, int]]  # busy and all ticks: of the whole machine first, then of each core
    rx: int
    tx: int


class Machine:
    """Reads `/proc`; `root` is another place to read from."""

    def __init__(self, root: Path = Path("/proc")) -> None:
        self._root = root
        self._last: _Reading | None = None
        self._n = 0

    def sample(self, monotonic: float, wall: float) -> Sample:
        """Return the load since the last sample. Raises `OSError` where there is no `/proc`."""
        now = self._read(monotonic)
        last = self._last or now
        self._last = now
        self._n += 1
        seconds = max(now.at - last.at, 1e-9)
        shares = [_share(before, after) for before, after in zip(last.busy, now.busy, strict=False)]
        return Sample(
            n=self._n,
            time=round(wall, 3),
            cpu=shares[0],
            cores=shares[1:],
            memory=self._memory(),
            network=Network(rx=round(max(0, now.rx - last.rx) / seconds), tx=round(max(0, now.tx - last.tx) / seconds)),
            load=tuple(round(value, 2) for value in os.getloadavg()),  # type: ignore[arg-type]  # always three
        )

    def _read(self, at: float) -> _Reading:
        busy = []
        for line in (self._root / "stat").read_text().splitlines():
            if not line.startswith("cpu"):
                break
            ticks = [int(field) for field in line.split()[1:9]]  # guest time stands inside user time already
            total = sum(ticks)
            busy.append((total - ticks[3] - ticks[4], total))  # all but idle and iowait
        rx = tx = 0
        for line in (self._root / "net" / "dev").read_text().splitlines()[2:]:
            fields = line.partition(":")[2].split()
            rx += int(fields[0])
            tx += int(fields[8])
        return _Reading(at, busy, rx, tx)

    def _memory(self) -> Memory:
        lines = (self._root / "meminfo").read_text().splitlines()
        kib = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
        total = kib["MemTotal"] * 1024
        used = total - kib["MemAvailable"] * 1024
        return Memory(used, total, round(100 * used / total, 1))


def _share(before: tuple[int, int], after: tuple[int, int]) -> float:
    ticks = after[1] - before[1]
    return round(100 * max(0, after[0] - before[0]) / ticks, 1) if ticks > 0 else 0.0
