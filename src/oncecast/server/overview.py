"""The overview of a node: from what each process has measured, and the census of each, to `http.overview.Overview`.

Invariant: the views of several workers are those of one node, as with `measures.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import msgspec

from .. import __version__
from ..core.census import ORDERS, Census, merge
from ..http.overview import (
    ConnectionCounts,
    ListedChannels,
    MessageCounts,
    NodeState,
    Overview,
    RefusalCount,
    SubscriptionCounts,
    WorkerFigures,
)
from .app import App
from .measures import Crew, Measures, measure

__all__ = ["View", "compose", "look"]


class View(msgspec.Struct, frozen=True):
    """What one process knows beside its measures."""

    pid: int
    epoch: str
    broker: str
    census: Census
    measures: Measures


def look(app: App, done: Callable[[View], None]) -> None:
    """Call back with the view of this process, some turns of the loop later where it has many channels."""
    app.node.census.take(lambda census: done(View(os.getpid(), app.node.log.epoch, app.broker, census, measure(app))))


def compose(measures: Measures, crew: Crew, views: Sequence[View], order: str, limit: int, *, now: float) -> Overview:
    """Return the overview of these processes, one at least, at `now` in Unix seconds."""
    value = measures.values.get
    reasons = {reason for view in views for reason in _labels(view.measures, "unready")}
    census = merge(view.census for view in views)
    listed = sorted(census.channels, key=ORDERS[order], reverse=True)[:limit]
    newest = max(views, key=lambda view: view.measures.values.get("log_head", 0))
    return Overview(
        time=now,
        node=NodeState(
            version=__version__,
            broker=newest.broker,
            epoch=newest.epoch,
            head=int(value("log_head", 0)),
            ready=not reasons and not crew.silent,
            reasons=sorted(reasons),
            workers=crew.workers,
            silent=crew.silent,
            restarts=crew.restarts,
            broker_lag=int(value("broker_lag", 0)),
            broker_silent_seconds=value("broker_silent_seconds", 0.0),
            memory_bytes=int(value("memory_bytes", 0)),
            cpu_seconds=value("cpu_seconds", 0.0),
            log_messages=int(value("log_messages", 0)),
            log_bytes=int(value("log_bytes", 0)),
        ),
        workers=[_figures(view) for view in views],
        connections=ConnectionCounts(
            open=int(value("connections", 0)),
            limit=int(value("connections_limit", 0)),
            opened=int(value("connections_opened", 0)),
            turned_away=int(value("connections_turned_away", 0)),
            listeners=_labels(measures, "listeners"),
            listens=_labels(measures, "listens"),
        ),
        subscriptions=SubscriptionCounts(
            open=int(value("subscriptions", 0)),
            catching_up=int(value("subscriptions_catching_up", 0)),
            blocked=int(value("subscriptions_blocked", 0)),
            lag=int(value("subscription_lag", 0)),
        ),
        messages=MessageCounts(
            published=int(value("publishes", 0)),
            received=int(value("messages", 0)),
            delivered=int(value("deliveries", 0)),
            gaps=_labels(measures, "gaps"),
        ),
        refusals=_refusals(measures),
        limited=_labels(measures, "limited"),
        channels=ListedChannels(order, census.total, census.complete, listed),
    )


def _figures(view: View) -> WorkerFigures:
    values = view.measures.values
    return WorkerFigures(
        view.pid,
        next(iter(_labels(view.measures, "unready")), None),
        int(values.get("connections", 0)),
        int(values.get("memory_bytes", 0)),
        values.get("cpu_seconds", 0.0),
    )


def _labels(measures: Measures, name: str) -> dict[str, int]:
    found: Mapping[str, float] = measures.labelled.get(name, {})
    return {label: int(number) for label, number in sorted(found.items()) if number}


def _refusals(measures: Measures) -> list[RefusalCount]:
    found = []
    for label, count in _labels(measures, "refusals").items():
        transport, code = label.split(" ", 1)
        found.append(RefusalCount(transport, code, count))
    return sorted(found, key=lambda row: (-row.count, row.transport, row.code))
