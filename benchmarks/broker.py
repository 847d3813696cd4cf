"""A broker between nodes: publishes a second, delivery from one process to another, and the CPU time of each node.

Three processes of a node: one publishes, one has listeners, one has none. Beside them the floor: the same by two
processes of a bare client library, in turns. Nothing is pinned to a core: the broker's server needs one too.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec

from .base import BenchError, Measured, Plan, Row, number, numbers
from .broker_peers import isolated, kind_of
from .processes import Bench, Program

ONE = 600
MANY = 24_000  # a full round; a multiple of the batch
STAMPS = 600
CHANNELS = 10_000
BATCHED_TARGET = 10_000.0  # messages a second, at least
IDLE_TARGET = 15.0  # µs of a node without listeners
WANT_TARGET = 1.0  # seconds
BATCH = 100


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield the rows of each URL, or of each standing server."""
    faults: list[str] = []
    for name, url in _given(plan) if plan.urls else _standing(faults):
        try:
            yield from _rows(bench, plan, name, url)
        except BenchError as error:
            faults.append(f"{name}: {error}")
        finally:
            bench.stop_all()
    if faults:
        raise BenchError("; ".join(faults))


class Side:
    """The processes of one side: the node's three, or the floor's two."""

    def __init__(self, bench: Bench, url: str, *, floor: bool) -> None:
        what = "floor" if floor else "node"
        self.url = url
        self.publisher = bench.module("benchmarks.broker_node", what)
        self.listener = bench.module("benchmarks.broker_node", what)
        self.idle: Program | None = None if floor else bench.module("benchmarks.broker_node", what)
        for each in (self.publisher, self.listener, *(() if self.idle is None else (self.idle,))):
            each.command(f"open {url}")
        self.listener.command("want w 1")  # the channel w0; what nobody listens to is q

    def one(self, count: int) -> tuple[float, float]:
        """Publish one after the other; return messages a second, and microseconds of CPU time for each."""
        done = self.publisher.command(f"one q {count}")
        return count / number(done, "seconds"), number(done, "cpu") / count * 1e6

    def many(self, count: int) -> tuple[float, float, float, float | None]:
        """Publish in batches to the listener; return the rate, and the µs at publisher, listener and idle node."""
        self.listener.command("reset")
        if self.idle is not None:
            self.idle.command("reset")
        done = self.publisher.command(f"many w0 {count}")
        heard = self.listener.command(f"await {count}")
        idle = None if self.idle is None else number(self.idle.command("cpu"), "cpu") / count * 1e6
        return (
            count / number(done, "seconds"),
            number(done, "cpu") / count * 1e6,
            number(heard, "cpu") / count * 1e6,
            idle,
        )

    def delivery(self, count: int) -> list[float]:
        """Return the milliseconds from publish to delivery."""
        self.listener.command("reset")
        self.publisher.command(f"stamps w0 {count}")
        return [micros / 1000 for micros in numbers(self.listener.command(f"await {count}"), "micros")]

    def want(self, prefix: str, count: int) -> float:
        """Return the seconds until that number of channels is delivered."""
        return number(self.listener.command(f"want {prefix} {count}"), "seconds")

    def close(self) -> None:
        """Disconnect."""
        for each in (self.publisher, self.listener, *(() if self.idle is None else (self.idle,))):
            each.command("close")


def _rows(bench: Bench, plan: Plan, name: str, server: str) -> Iterator[Row]:
    kind = kind_of(server)
    url = isolated(server)
    ours = Side(bench, url, floor=False)
    floor = None if kind.floor is None else Side(bench, url, floor=True)
    try:
        one, many, stamps = plan.rounds(ONE), plan.rounds(MANY // BATCH) * BATCH, plan.rounds(STAMPS)
        for side in filter(None, (ours, floor)):  # not counted
            side.one(20)
            side.many(1_000)
        ones = [(ours.one(one), None if floor is None else floor.one(one)) for _ in range(plan.pairs)]
        yield _row(
            [(a[0], b and b[0]) for a, b in ones],
            f"{name}, one by one",
            "messages per second",
            "each publish waits for the acknowledgement of the last",
        )
        yield _row(
            [(a[1], b and b[1]) for a, b in ones],
            f"{name}, CPU, one by one",
            "µs at the node that publishes",
            "the same run",
        )
        manys = [(ours.many(many), None if floor is None else floor.many(many)) for _ in range(plan.pairs)]
        rates = [a[0] for a, _ in manys]
        yield _row(
            [(a[0], b and b[0]) for a, b in manys],
            f"{name}, in batches",
            "messages per second",
            f"batches of {BATCH}, 8 under way, delivered to another node; target: at least {BATCHED_TARGET:,.0f}",
            met=statistics.median(rates) >= BATCHED_TARGET,
        )
        for at, what in ((1, "publishing node"), (2, "listening node")):
            yield _row(
                [(a[at] or 0.0, b and b[at]) for a, b in manys],
                f"{name}, CPU, {what}",
                "µs for a message",
                "in batches, the same run",
            )
        idle = statistics.median([a[3] or 0.0 for a, _ in manys])
        yield Row(
            name=f"{name}, CPU, idle node",
            unit="µs for a message",
            figure=idle,
            judged="figure",
            target=IDLE_TARGET,
            note="a node that nobody listens at, its probes included",
        )
        pairs = [(ours.delivery(stamps), None if floor is None else floor.delivery(stamps)) for _ in range(plan.pairs)]
        for percent, target in ((50, kind.delivery_ms), (99, None)):
            yield _tail(pairs, percent, f"{name}, delivery p{percent}", target)
        channels = CHANNELS // 10 if plan.quick else CHANNELS
        seconds = ours.want("n", channels)
        bare = None if floor is None else floor.want("n", channels)
        yield Row(
            name=f"{name}, {channels:,} channels",
            unit="s until all are delivered",
            figure=seconds,
            floor=bare,
            ratio=None if bare is None else seconds / bare,
            judged="figure",
            target=WANT_TARGET,
            note="wanted at once" if kind.option else "a file delivers every channel: nothing is to be done",
        )
    finally:
        for side in filter(None, (ours, floor)):
            with contextlib.suppress(BenchError):
                side.close()
        with contextlib.suppress(BenchError):  # after a fault too: the log is deleted, whatever is answered
            ours.publisher.command(f"remove {url}")


def _row(pairs: list[tuple[float, float | None]], name: str, unit: str, note: str, met: bool | None = None) -> Row:
    both = [(figure, floor) for figure, floor in pairs if floor is not None]
    if both:
        return msgspec.structs.replace(Measured.of(both).row(name, unit, note), met=met)
    figures = [figure for figure, _ in pairs]
    return Row(name=name, unit=unit, figure=statistics.median(figures), note=note, met=met)


def _tail(pairs: list[tuple[list[float], list[float] | None]], percent: int, name: str, target: float | None) -> Row:
    unit, note = "ms to another node", f"{sum(len(a) for a, _ in pairs)} messages, 2 ms apart"
    both = [(figures, floors) for figures, floors in pairs if floors]
    if both:
        return Measured.tails(both, percent).row(name, unit, note, target=target, judged="figure")
    measured = Measured.tails([(figures, figures) for figures, _ in pairs], percent)
    return Row(name=name, unit=unit, figure=measured.figure, note=note, judged="figure", target=target)


def _given(plan: Plan) -> Iterator[tuple[str, str]]:
    for url in plan.urls:
        kind_of(url)
        yield urlsplit(url).netloc.rpartition("@")[2] or urlsplit(url).scheme, url


def _standing(faults: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the servers of `scripts/brokers` whose kind is known here, each started if need be."""
    try:
        from scripts.broker_servers import kinds, system
    except ImportError:
        raise BenchError("scripts/brokers is not here: give the URL of a broker, or run it in a checkout") from None
    for name in kinds.KINDS:
        server = kinds.standing(name)
        try:
            kind_of(server.url)
        except BenchError:
            continue  # its broker is not in this release
        ran = server.pid is not None
        try:
            server.start()
        except (system.Missing, system.Broken) as error:
            faults.append(f"{name}: {error}")
            continue
        try:
            yield name, server.url.partition("?")[0]
        finally:
            if not ran:
                server.stop()
