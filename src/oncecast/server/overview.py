"""The overview of a node: from what each process has measured, and the census of each, to `http.overview.Overview`.

Invariant: the views of several workers are those of one node, as with `measures.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import msgspec

from .. import __version__
from ..core.census import ORDERS, Census, merge
from ..http.overview import (
    ChannelListeners,
    ConnectionCounts,
    ListedChannels,
    MessageCounts,
    NodeState,
    Overview,
    OverviewRequest,
    PresentNode,
    RefusalCount,
    SubscriptionCounts,
    WorkerFigures,
)
from ..http.roll import PresentProcess
from .app import App
from .listeners import listeners_of, together
from .measures import Crew, Measures, measure

__all__ = ["View", "compose", "join_the_roll", "look", "others"]


class View(msgspec.Struct, frozen=True):
    """What one process knows beside its measures."""

    pid: int
    epoch: str
    broker: str
    census: Census
    measures: Measures
    listeners: ChannelListeners | None = None


def look(app: App, channel: str | None, done: Callable[[View], None]) -> None:
    """Call back with the view of this process, some turns of the loop later where it has many channels.

    The view has the listeners of `channel`, if one is given.
    """

    def seen(census: Census) -> None:
        listeners = None if channel is None else listeners_of(app, channel)
        done(View(os.getpid(), app.node.log.epoch, app.broker, census, measure(app), listeners))

    app.node.census.take(seen)


def others(app: App) -> list[PresentProcess]:
    """Return the processes that have said of late that they share the log, and ask them again now and then.

    One process of a node asks, for all of them. A log in memory is shared with nobody.
    """
    return [] if app.bulletin is None or app.broker == "memory" else app.bulletin.roll.look()


def join_the_roll(app: App, where: str) -> None:
    """Name the node of this process, and let it answer the others. `where` follows the name of the host."""
    app.name = f"{socket.gethostname()}{where}"
    if app.bulletin is not None:
        app.bulletin.roll.me = partial(_presence, app)


def _presence(app: App) -> PresentProcess:
    reason = app.unready
    return PresentProcess(
        app.name,
        _machine(),
        os.getpid(),
        __version__,
        len(app.connections),
        app.node.log.head,
        None if reason is None else reason[:1000],
    )


@cache
def _machine() -> str:
    """Return what tells machines, and containers, apart that have the same host name."""
    parts = []
    with contextlib.suppress(OSError):  # another system than Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii"))
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def compose(
    measures: Measures,
    crew: Crew,
    views: Sequence[View],
    asked: OverviewRequest,
    *,
    now: float,
    name: str,
    present: Sequence[PresentProcess] = (),
) -> Overview:
    """Return the overview that was asked for, of the node of this `name` and of these processes, one at least.

    `now` is in Unix seconds. `present` are `others`.
    """
    value = measures.values.get
    reasons = {reason for view in views for reason in _labels(view.measures, "unready")}
    census = merge(view.census for view in views)
    listed = sorted(census.channels, key=ORDERS[asked.order], reverse=True)[: asked.limit]
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
        nodes=_nodes(name, views, present),
        channels=ListedChannels(asked.order, census.total, census.complete, listed),
        listeners=None if asked.channel is None else together(asked.channel, (view.listeners for view in views)),
    )


def _nodes(name: str, views: Sequence[View], present: Sequence[PresentProcess]) -> list[PresentNode]:
    """Return this node, of what its processes have just measured, and all else of what it has said."""
    own = name, _machine()
    measured = {view.pid for view in views}
    nodes: dict[tuple[str, str], list[PresentProcess]] = {own: [_own(name, view) for view in views]}
    for each in present:
        key = each.node, each.machine
        if key != own or each.pid not in measured:
            nodes.setdefault(key, []).append(each)
    return [
        PresentNode(
            name=key[0],
            this=key == own,
            processes=len(found),
            connections=sum(each.connections for each in found),
            head=max(each.head for each in found),
            unready=sorted({each.unready for each in found if each.unready is not None}),
            versions=sorted({each.version for each in found}),
        )
        for key, found in sorted(nodes.items())
    ]


def _own(name: str, view: View) -> PresentProcess:
    values = view.measures.values
    connections, head = int(values.get("connections", 0)), int(values.get("log_head", 0))
    return PresentProcess(name, _machine(), view.pid, __version__, connections, head, _why(view))


def _why(view: View) -> str | None:
    """Return why a process is not ready."""
    return next(iter(_labels(view.measures, "unready")), None)


def _figures(view: View) -> WorkerFigures:
    values = view.measures.values
    return WorkerFigures(
        view.pid,
        _why(view),
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
