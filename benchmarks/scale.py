"""Scale: the cost of a delivery to 10 and to 10,000 subscribers, and on one and on 10,000 channels.

The cost of the publishes is measured apart and subtracted: with few subscribers per channel it would be most of the
figure. It is measured on a channel with one subscriber, for which the writes of a round are joined.

A fixed number of subscribers on more channels needs more messages for the same deliveries. So that row has no target,
and two others judge the number of channels. In one, each delivery has a message of its own at every size. In the other,
the sockets and the ten listeners per channel stay the same, and only the number of channels changes.

The processor's caches hold 10 sockets but not 10,000, so the C loop costs more per send there too. The target bounds
how far the ratio to the C loop moves.
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
ALONE = (50, 1000, 10_000)  # channels; at least BATCH
SHARERS, LISTENERS = 1000, 10  # subscribers that share channels, and listeners of each channel
EACH = (1, 10, 100)  # channels of each subscriber that shares them
DELIVERIES = 40_000  # of each measurement, about
BATCH = 50  # publishes in one write, where there are many channels
TARGET = 1.2
MOST_ROUNDS = 2000
SLICES = 8
MINIMUM = 0.01  # µs; in a short run a delivery may be within the noise of the publishes, and the ratio needs a divisor


@dataclass(frozen=True, slots=True)
class _Point:
    size: int
    cost: float
    floor: float
    ratio: float


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield a row for subscribers, and three for channels: with a fixed total, with one listener, with ten."""
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
    batch = min(BATCH, channels // each)  # each subscriber has at most one message of a write
    rounds = _rounds(deliveries, listeners * batch)
    arena, quiet = _arenas(bench, subscribers, channels, each)
    quiet.subscribe(1)
    arena.rounds(-(-channels // batch), batch=batch)  # every subscription is live once each has had a message
    arena.floor()
    floor_rounds = _rounds(deliveries, subscribers)

    def cost() -> float:
        return _beyond(arena, quiet, rounds, batch) / (batch * listeners)

    return _point(bench, plan, channels, cost, lambda: arena.floor_cost(floor_rounds))


def _arenas(bench: Bench, subscribers: int, channels: int, each: int = 1) -> tuple[Arena, Arena]:
    """Return a server's subscribers, and a publisher on the same server, on a channel without subscribers."""
    # A short retention, so that the log of 10,000 channels is soon at its full size.
    server = bench.server(retention__messages=4, limits__channels_per_subscription=max(64, each))
    arena = Arena(bench, server, "websocket")
    arena.subscribe(subscribers, channels=channels, each=each)
    arena.publisher()
    quiet = Arena(bench, server, "websocket", channel="quiet@@@@@")
    quiet.publisher()
    return arena, quiet


def _beyond(arena: Arena, quiet: Arena, rounds: int, batch: int = 1) -> float:
    """Return the cost of a round less that of its publishes. Short alternating runs, as the difference is small."""
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
