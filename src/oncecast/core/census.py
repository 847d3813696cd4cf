"""The channels of a node as its operator wants to see them: which have messages, how many a second, and who listens.

Nothing is counted for it while messages are delivered. A census is taken when it is asked for, from the log's windows
and the hub's subscriptions, `CHUNK` channels in a turn of the loop.

Invariant: one census is taken at a time, and answers all who ask meanwhile, and for `FRESH_SECONDS` after it. Of any
number of channels at most `MOST` by each of `ORDERS` are kept. To add an order, add it to `ORDERS`.

Time is passed in; `schedule` runs a callable at the end of the loop's turn.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from operator import attrgetter
from typing import Any

import msgspec

from ..message import INTERNAL
from .answers import answer
from .hub import Hub
from .log import Log
from .subscription import Subscription

__all__ = ["MOST", "ORDERS", "Census", "CensusTaker", "ListedChannel", "merge"]

logger = logging.getLogger("oncecast.core")

CHUNK = 500  # channels looked at in one turn: two milliseconds
MOST = 300  # channels kept by each order
NAMES = 20_000  # channels of subscriptions that are behind, which are looked at in one turn
RATE_SECONDS = 10.0
FRESH_SECONDS = 0.5  # for which a census is given again


class ListedChannel(msgspec.Struct, frozen=True):
    """One channel: what this node holds of it, and who listens here."""

    name: str
    rate: float
    """Messages a second, of the last ten seconds."""
    messages: int
    """How many are held in memory."""
    listeners: int
    """Subscriptions, and long polls that wait, those that are behind included."""
    behind: int
    """Listeners that catch up, or whose socket is full."""
    lag: int
    """Numbers of the log from the place of the one that is furthest behind to the newest message."""


class Census(msgspec.Struct, frozen=True):
    """The first channels by each of `ORDERS`, how many there are, and whether all is counted in."""

    channels: tuple[ListedChannel, ...] = ()
    total: int = 0
    complete: bool = True


Order = Callable[[ListedChannel], Any]

# The most comes first; channels that are equal in it stand by how much is heard and said on them.
ORDERS: Mapping[str, Order] = {
    "rate": attrgetter("rate", "listeners", "messages", "name"),
    "listeners": attrgetter("listeners", "rate", "messages", "name"),
    "lag": attrgetter("lag", "behind", "listeners", "rate", "name"),
}


class CensusTaker:
    """Takes the census of a node."""

    def __init__(
        self,
        log: Log,
        hub: Hub,
        monotonic: Callable[[], float],
        schedule: Callable[[Callable[[], None]], object],
    ) -> None:
        self._log = log
        self._hub = hub
        self._monotonic = monotonic
        self._schedule = schedule
        self._asking: list[Callable[[Census], None]] = []
        self._last = Census()
        self._taken = -FRESH_SECONDS
        self._rows: Iterator[ListedChannel] | None = None  # of the channels that are to be looked at yet
        self._top: dict[str, list[ListedChannel]] = {}
        self._total = 0
        self._complete = True

    def take(self, done: Callable[[Census], None]) -> None:
        """Call back with a census: at once where one is fresh."""
        if self._rows is None and self._monotonic() - self._taken < FRESH_SECONDS:
            done(self._last)
            return
        self._asking.append(done)
        if self._rows is None:
            behind, self._complete = self._behind()
            self._rows = self._look(behind, self._monotonic())
            self._top, self._total = {name: [] for name in ORDERS}, 0
            self._schedule(self._go_on)

    def listening(self, channel: str, most: int) -> tuple[list[tuple[Subscription, int]], int]:
        """Return at most so many listeners of a channel and how far each is behind, and how many there are.

        Those that are behind come first, by how far. Where too many are, some are missing, as in a census.
        """
        behind = [row for row in self._lagging()[0] if channel in row[0].channels]
        total = len(behind) + self._hub.live(channel)
        behind.sort(key=lambda row: row[1], reverse=True)
        live = self._hub.first_live(channel, most)
        return [*behind, *((each, 0) for each in live)][:most], total

    def _go_on(self) -> None:
        assert self._rows is not None
        try:
            rows = list(islice(self._rows, CHUNK))
        except Exception:  # a defect of ours, which must not leave those who ask without an answer
            logger.exception("the channels could not be counted")
            rows, self._complete = [], False
        self._total += len(rows)
        for name, order in ORDERS.items():
            self._top[name] = heapq.nlargest(MOST, [*self._top[name], *rows], order)
        if rows:
            self._schedule(self._go_on)
            return
        self._last = Census(_once(self._top.values()), self._total, self._complete)
        self._taken = self._monotonic()
        self._rows = None
        asking, self._asking = self._asking, []
        for done in asking:
            answer(done, self._last)

    def _behind(self) -> tuple[dict[str, list[int]], bool]:
        """Return how far those are behind that listen to each channel, and whether that is all of them."""
        found: dict[str, list[int]] = {}
        rows, complete = self._lagging()
        for subscription, lag in rows:
            for channel in subscription.channels:
                found.setdefault(channel, []).append(lag)
        return found, complete

    def _lagging(self) -> tuple[list[tuple[Subscription, int]], bool]:
        """Return who is behind, of `NAMES` channels at most, and how far; and whether that is all of them."""
        found: list[tuple[Subscription, int]] = []
        subscriptions, complete = self._hub.lagging()
        names = 0
        for subscription in subscriptions:
            names += len(subscription.channels)
            if names > NAMES:
                return found, False
            place = subscription.place
            found.append((subscription, 0 if place is None else max(0, self._log.head - place.seq)))
        return found, complete

    def _look(self, behind: Mapping[str, list[int]], now: float) -> Iterator[ListedChannel]:
        """Yield each channel once. Between two of them the log and the hub may change."""
        hub, seen = self._hub, set()
        for window in self._log.windows():
            name = window.name
            seen.add(name)
            lags = behind.get(name, ())
            listeners = hub.live(name) + len(lags)
            if name not in INTERNAL and (listeners or len(window)):
                rate = round(window.pace(now, RATE_SECONDS), 2)
                yield ListedChannel(name, rate, len(window), listeners, len(lags), max(lags, default=0))
        for name in (*hub.heard(), *behind):
            if name not in seen and name not in INTERNAL:
                seen.add(name)
                lags = behind.get(name, ())
                yield ListedChannel(name, 0.0, 0, hub.live(name) + len(lags), len(lags), max(lags, default=0))


def merge(censuses: Iterable[Census]) -> Census:
    """Return the census of several processes that serve one log.

    Each of them gets every message, so of the rates and the messages the most counts; the listeners are added. Where a
    process has more channels than it lists, a channel's listeners there may be missing: then it is not `complete`.
    """
    found = list(censuses)
    channels: dict[str, ListedChannel] = {}
    for each in found:
        for row in each.channels:
            known = channels.get(row.name)
            channels[row.name] = row if known is None else _both(known, row)
    total = max([len(channels), *(each.total for each in found)])
    listed = all(each.total == len(each.channels) for each in found) or len(found) == 1
    return Census(tuple(channels.values()), total, listed and all(each.complete for each in found))


def _both(one: ListedChannel, other: ListedChannel) -> ListedChannel:
    return ListedChannel(
        one.name,
        max(one.rate, other.rate),
        max(one.messages, other.messages),
        one.listeners + other.listeners,
        one.behind + other.behind,
        max(one.lag, other.lag),
    )


def _once(lists: Iterable[list[ListedChannel]]) -> tuple[ListedChannel, ...]:
    """Return what stands in any of the lists, once."""
    return tuple({row.name: row for rows in lists for row in rows}.values())
