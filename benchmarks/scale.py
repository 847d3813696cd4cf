"""Scale: whether a delivery costs the same to 10 subscribers as to 10,000, and on one channel as on 10,000.

What the publishes cost is measured apart, on a channel of their own to which one subscriber listens, and taken off:
with few subscribers to each channel there would else be little but publishes, and the encoding of messages. (Where
there are many channels, the writes to that one are joined to one in a round.) As many subscribers on more channels are
more messages for as many deliveries, so for the number of channels two other rows are judged: one where each delivery
has a message of its own at every size, and one with the same sockets, and ten listeners to a channel, at every size, so
that the number of channels is all that changes. The machine's caches hold 10 sockets and not 10,000, so the C loop gets
dearer too; what is judged is how far the multiple of it moves.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .arena import Arena
from .base import Plan, Row, alternate
from .processes import Bench

SUBSCRIBERS = (10, 100, 1000, 10_000)
CHANNELS = (1, 100, 10_000)
ALONE = (50, 1000, 10_000)  # not fewer than are published at once
SHARERS, LISTENERS = 1000, 10  # subscribers that share channels, and how many each channel has
EACH = (1, 10, 100)  # channels of one of them
DELIVERIES = 40_000  # of each measurement, about
BATCH = 50  # publishes at once, where there are many channels
TARGET = 1.2
MOST_ROUNDS = 2000
SLICES = 8
MINIMUM = 0.01  # µs: a run too short to tell a delivery from the noise of the publishes still has a quotient


@dataclass(frozen=True, slots=True)
class _Point:
    size: int
    cost: float
    floor: float
    ratio: float


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield a row for subscribers, and two for channels: of as many subscribers in all, and of one subscriber each."""
    most = plan.count(1000 if plan.quick else SUBSCRIBERS[-1])
    deliveries = DELIVERIES // 50 if plan.quick else DELIVERIES
    sizes = [size for size in SUBSCRIBERS if size < most] + [most]
    yield _row(
        "scale, subscribers",
        [_by_subscribers(bench, plan, size, deliveries) for size in sizes],
        f"{sizes[0]} to {most} subscribers of one channel",
        target=TARGET,
    )
    spread = [size for size in CHANNELS if size < most] + [most]
    yield _row(
        "scale, channels",
        [_by_channels(bench, plan, size, most, deliveries) for size in spread],
        f"{most} subscribers on {spread[0]} to {most} channels: from one message for all to one for each",
        target=None,
    )
    alone = [size for size in ALONE if size < most] + [most]
    yield _row(
        "scale, channels of one",
        [_by_channels(bench, plan, size, size, deliveries) for size in alone],
        f"{alone[0]} to {most} channels with one subscriber each",
        target=TARGET,
    )
    groups = max(1, min(most, SHARERS) // LISTENERS)
    sharers = groups * LISTENERS
    yield _row(
        "scale, channels of ten",
        [_by_channels(bench, plan, groups * each, sharers, deliveries, each=each) for each in EACH],
        f"{groups * EACH[0]} to {groups * EACH[-1]} channels with {LISTENERS} listeners each: {sharers} subscribers "
        f"of {EACH[0]} to {EACH[-1]} channels",
        target=TARGET,
    )


def _by_subscribers(bench: Bench, plan: Plan, size: int, deliveries: int) -> _Point:
    rounds = _rounds(deliveries, size)
    arena, quiet = _arenas(bench, size, 1)
    quiet.subscribe(1)
    arena.floor()

    def cost() -> float:
        return _beyond(arena, quiet, rounds) / (size - 1)

    return _point(bench, plan, size, cost, lambda: arena.floor_cost(rounds))


def _by_channels(
    bench: Bench, plan: Plan, channels: int, subscribers: int, deliveries: int, *, each: int = 1
) -> _Point:
    """Measure subscribers spread over channels, each listening to `each` of them."""
    listeners = subscribers * each // channels
    batch = min(BATCH, channels // each)  # for nobody two in one write
    rounds = _rounds(deliveries, listeners * batch)
    arena, quiet = _arenas(bench, subscribers, channels, each)
    quiet.subscribe(1)
    arena.rounds(-(-channels // batch), batch=batch)  # once everybody has a message, all have done with attaching
    arena.floor()
    floor_rounds = _rounds(deliveries, subscribers)

    def cost() -> float:
        return _beyond(arena, quiet, rounds, batch) / (batch * listeners)

    return _point(bench, plan, channels, cost, lambda: arena.floor_cost(floor_rounds))


def _arenas(bench: Bench, subscribers: int, channels: int, each: int = 1) -> tuple[Arena, Arena]:
    """Return a server's subscribers, and a publisher on the same server to whom nobody listens yet."""
    # Of each channel little is kept, so that the log of 10,000 soon grows no more.
    server = bench.server(retention__messages=4, limits__channels_per_subscription=max(64, each))
    arena = Arena(bench, server, "websocket")
    arena.subscribe(subscribers, channels=channels, each=each)
    arena.publisher()
    quiet = Arena(bench, server, "websocket", channel="quiet@@@@@")
    quiet.publisher()
    return arena, quiet


def _beyond(arena: Arena, quiet: Arena, rounds: int, batch: int = 1) -> float:
    """Return by how much a round costs more than its publishes, measured in short turns: it is a small difference."""
    each = max(1, rounds // SLICES)
    return statistics.fmean(
        arena.round_cost(each, batch=batch) - quiet.round_cost(each, batch=batch) for _ in range(min(SLICES, rounds))
    )


def _point(bench: Bench, plan: Plan, size: int, cost: Callable[[], float], floor: Callable[[], float]) -> _Point:
    measured = alternate(cost, floor, plan.pairs)
    bench.stop_all()
    return _Point(size, measured.figure, measured.floor, measured.ratio)


def _row(name: str, points: list[_Point], what: str, *, target: float | None) -> Row:
    shown = ", ".join(f"{point.size}: {point.cost:.2f}/{point.floor:.2f}" for point in points)
    ratios = [point.ratio for point in points]
    return Row(
        name=name,
        unit="dearest / cheapest",
        figure=_spread([point.cost for point in points]),
        floor=_spread([point.floor for point in points]),
        ratio=_spread(ratios),
        low=min(ratios),
        high=max(ratios),
        target=target,
        note=f"{what}; µs CPU per delivery / per send() in C: {shown}",
    )


def _rounds(deliveries: int, each: int) -> int:
    return min(MOST_ROUNDS, max(2, deliveries // each))


def _spread(values: list[float]) -> float:
    return max(values) / max(min(values), MINIMUM)
