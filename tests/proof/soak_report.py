"""What a soak has met, whether its nodes stayed flat, and the text that says both.

Memory and descriptors are judged in quiet windows: from `warm` seconds after a rolling restart, or after the failover,
to the next. There the load is steady, so what grows is kept by nobody's wish. A window is shorter than the time between
two restarts, and a leak of less than `GROWTH` in it is not seen there. So the windows' means are compared with each
other too, over the whole run. And once every client has gone, no node has more descriptors than before the first came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from .soak_crowd import Verdict
from .soak_judge import Fit, fit, late
from .soak_site import NODES, Usage

__all__ = ["Mark", "Moment", "Report", "merged", "windows"]

GROWTH = 0.05  # of the memory, in the longest window and over the run: the allocator's own noise is 1 to 2 %
DESCRIPTORS_GROWTH = 0.02  # of the sum of all nodes
LEFT_OVER = 2  # descriptors of a node: a connection to the broker that is being changed
JUDGED_SECONDS = 60.0  # of the longest window: in less, noise is more than a leak
JUDGED_WINDOWS = 3
NAMES = {"short_poll": "short polls", "long_poll": "long polls", "sse": "SSE", "websocket_v1": "WebSockets"}


@dataclass(slots=True)
class Moment:
    """A second of the run, `at` seconds from its start. A node that restarts has no usage."""

    at: float
    nodes: Sequence[Usage | None]
    deliveries: int = 0
    delays: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Mark:
    """A rolling restart or the failover, in seconds from the start."""

    kind: str
    began: float
    ended: float


@dataclass(slots=True)
class Report:
    """A run. `seconds` is how long was published; `outage` the longest time without an acknowledgement."""

    subscribers: int
    channels: int
    rate: float
    seed: int
    warm: float
    seconds: float = 0.0
    published: int = 0
    outage: float = 0.0
    moments: list[Moment] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)
    lost: int = 0  # acknowledged messages that some subscriber lacks, each in its gap
    wrongs: list[str] = field(default_factory=list)
    idle: list[tuple[int, int]] = field(default_factory=list)  # each node's descriptors before and after all clients

    # -- flat or not

    def memory(self) -> Fit | None:
        """Fit the memory of the nodes within the windows."""
        return fit([self._memory(node, *each) for node in range(NODES) for each in self.windows()])

    def memory_over(self) -> Fit | None:
        """Fit the means of the windows, over the run; None where they are too few."""
        pieces = []
        for node in range(NODES):
            found = [points for each in self.windows() if (points := self._memory(node, *each))]
            pieces.append([(_mean(points, 0), _mean(points, 1)) for points in found])
        return fit(pieces) if min(map(len, pieces)) >= JUDGED_WINDOWS else None

    def descriptors(self) -> Fit | None:
        """Fit the descriptors of all nodes together within the windows; one node's depend on who comes to it."""
        pieces = []
        for began, ended in self.windows():
            found = [each for each in self.moments if began <= each.at <= ended]
            sums = [(each.at, [usage.descriptors for usage in each.nodes if usage]) for each in found]
            pieces.append([(at, float(sum(counts))) for at, counts in sums if len(counts) == NODES])
        return fit(pieces)

    def windows(self) -> list[tuple[float, float]]:
        """Return the quiet windows."""
        return windows(self.marks, self.seconds, self.warm)

    def faults(self) -> list[str]:
        """Return what did not hold."""
        found = list(self.wrongs)
        if self.verdict.wrong > len(self.verdict.wrongs):
            found.append(f"and {self.verdict.wrong - len(self.verdict.wrongs)} more of the subscribers'")
        failovers = [mark for mark in self.marks if mark.kind == "failover"]
        if self.verdict.gaps and (not failovers or self.verdict.first_gap < failovers[0].began):
            found.append(f"{self.verdict.gaps} gaps, the first before any failover")
        memory, over, descriptors = self.memory(), self.memory_over(), self.descriptors()
        for name, line, seconds, most in (
            ("memory in a window", memory, memory.seconds if memory else 0, GROWTH),
            ("memory from window to window", over, self.seconds, GROWTH),
            ("descriptors", descriptors, descriptors.seconds if descriptors else 0, DESCRIPTORS_GROWTH),
        ):
            if line and self.judged and line.growth(seconds) > most:
                found.append(f"{name} grew by {line.growth(seconds):.1%}, and may by {most:.0%}")
        found += [
            f"node {number} has {after} descriptors without a client, and had {before}"
            for number, (before, after) in enumerate(self.idle, 1)
            if after > before + LEFT_OVER
        ]
        return found

    @property
    def judged(self) -> bool:
        """Whether the run was long enough to judge what grows."""
        memory = self.memory()
        return memory is not None and memory.seconds >= JUDGED_SECONDS

    def _memory(self, node: int, began: float, ended: float) -> list[tuple[float, float]]:
        found = ((each.at, each.nodes[node]) for each in self.moments if began <= each.at <= ended)
        return [(at, float(usage.memory)) for at, usage in found if usage]

    # -- the text

    def __str__(self) -> str:
        verdict = self.verdict
        kinds = ", ".join(f"{count} {NAMES[name]}" for name, count in verdict.subscribers.items())
        deliveries = ", ".join(f"{count:,} {NAMES[name]}" for name, count in verdict.deliveries.items())
        ends = ", ".join(f"{count:,} {name}" for name, count in sorted(verdict.ends.items(), key=lambda it: -it[1]))
        delays: Counter[int] = sum((each.delays for each in self.moments), Counter())
        lines = [
            f"{self.seconds / 60:.1f} minutes, seed {self.seed}: {NODES} nodes on Redis behind HAProxy, "
            f"{self.subscribers} subscribers ({kinds}) on {self.channels} channels",
            f"published: {self.published:,} messages, {self.published / max(self.seconds, 1):.0f} a second",
            f"delivered: {sum(verdict.deliveries.values()):,} ({deliveries})",
            f"connections: {verdict.dropped:,} dropped by their subscribers, {sum(verdict.ends.values()):,} ended "
            f"otherwise ({ends or 'none'})",
            f"delay from publish to a live subscriber: p50 {late(delays, 0.5) * 1e3:.1f} ms, p99 "
            f"{late(delays, 0.99) * 1e3:.0f} ms, p99.9 {late(delays, 0.999) * 1e3:.0f} ms, most "
            f"{late(delays, 1) * 1e3:.0f} ms; outside of restarts and failover p99 {self._quiet_late() * 1e3:.0f} ms",
            *self._events(),
            *self._growth(),
        ]
        faults = self.faults()
        lines += [f"WRONG: {each}" for each in faults] or ["right: nothing lost, repeated or reordered" + self._flat()]
        return "\n".join(lines)

    def _flat(self) -> str:
        return "; memory and descriptors are flat" if self.judged else "; too short to judge what grows"

    def _events(self) -> list[str]:
        rolls = [mark.ended - mark.began for mark in self.marks if mark.kind == "restart"]
        lines = [f"rolling restarts: {len(rolls)}, of {NODES} nodes each, in at most {max(rolls, default=0):.0f} s"]
        for mark in self.marks:
            if mark.kind == "failover":
                lines.append(
                    f"failover: after {mark.began:.0f} s; no publish was acknowledged for {self.outage:.1f} s; "
                    f"{self.verdict.gaps} gaps; {self.lost} acknowledged messages lost, each in the gap of whoever "
                    f"lacks it; {self.verdict.again} came again after the gap, as their publish was repeated"
                )
        return lines

    def _growth(self) -> list[str]:
        lines = []
        if memory := self.memory():
            lines.append(
                f"memory of a node: {memory.mean / 2**20:.1f} MiB; in {memory.seconds:.0f} s, the longest "
                f"quiet window of {len(self.windows())}, {memory.growth(memory.seconds):+.1%} "
                f"({memory.slope * 60 / 2**10:+.0f} KiB a minute)"
            )
        if over := self.memory_over():
            lines[-1] += f"; from window to window {over.growth(self.seconds):+.1%} over the run"
        if found := self.descriptors():
            before, after = ([each[place] for each in self.idle] for place in (0, 1))
            lines.append(
                f"descriptors of all nodes: {found.mean:.0f}; {found.growth(found.seconds):+.2%} in "
                f"{found.seconds:.0f} s; without a client {before} before and {after} after"
            )
        return lines

    def _quiet_late(self) -> float:
        quiet: Counter[int] = Counter()
        for each in self.moments:
            if any(began <= each.at <= ended for began, ended in self.windows()):
                quiet += each.delays
        return late(quiet, 0.99)


def windows(marks: Sequence[Mark], seconds: float, warm: float) -> list[tuple[float, float]]:
    """Return the times from `warm` after each mark, and after the start, to the next, or to the end."""
    ends = [mark.began for mark in marks] + [seconds]
    starts = [warm, *(mark.ended + warm for mark in marks)]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]


def merged(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdicts of several processes as one."""
    one = Verdict()
    for each in verdicts:
        for mine, theirs in (
            (one.subscribers, each.subscribers),
            (one.deliveries, each.deliveries),
            (one.ends, each.ends),
        ):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        one.dropped += each.dropped
        one.gaps += each.gaps
        one.again += each.again
        one.skips += each.skips
        one.wrong += each.wrong
        one.wrongs += each.wrongs
    firsts = [each.first_gap for each in verdicts if each.first_gap]
    one.first_gap, one.last_gap = min(firsts, default=0.0), max((each.last_gap for each in verdicts), default=0.0)
    return one


def _mean(points: Sequence[tuple[float, float]], axis: int) -> float:
    return sum(each[axis] for each in points) / len(points)
