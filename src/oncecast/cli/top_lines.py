"""The lines of `oncecast top`: from one overview, and the one before it, to text that fits a terminal.

Invariant: no line is longer than the width, none has a control character, and there are no more of them than the
height. To show another figure, add it to `_head`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ..core.census import ListedChannel
from ..http.overview import Overview, PresentNode
from .base import escaped

__all__ = ["Style", "TopLine", "lines_of", "waiting_lines"]

Style = str  # "", "bold", "dim", "red" or "reverse"
LEAST_NAME = 12  # columns for the name of a channel, however narrow the terminal is
REFUSALS = 4  # kinds of refusal that are shown
NODES = 4  # that are shown, those that are not ready first
_TITLES = ("CHANNEL", "MSG/S", "LISTENERS", "BEHIND", "LAG", "HELD")
_WIDTHS = (9, 10, 7, 9, 8)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class TopLine(NamedTuple):
    """A line without its end, and how it is to look."""

    text: str
    style: Style = ""


def lines_of(
    where: str, now: Overview, before: Overview | None, width: int, height: int, trouble: str | None = None
) -> list[TopLine]:
    """Return the lines. `before` is an earlier overview, for rates; `trouble` is why `now` is not of this moment."""
    head = [*_head(where, now, before), TopLine("")]
    if trouble is not None:
        head[0:0] = [TopLine(trouble, "red")]
    room = max(0, height - len(head) - 1)
    listed = now.channels.listed
    if room and listed:
        shown = listed[: room if len(listed) <= room and len(listed) == now.channels.total else room - 1]
        head += [TopLine(_row(_TITLES, width), "reverse"), *(_channel(row, width) for row in shown)]
        if (more := now.channels.total - len(shown)) > 0:
            head.append(TopLine(f"and {more:,} more{'' if now.channels.complete else ', at least'}", "dim"))
    elif room:
        head.append(TopLine("No channel has a message or a listener.", "dim"))
    return [TopLine(escaped(text)[:width], style) for text, style in head[:height]]


def waiting_lines(where: str, trouble: str, width: int) -> list[TopLine]:
    """Return the lines while there are no figures yet."""
    return [TopLine(escaped(text)[:width], style) for text, style in ((where, "bold"), (trouble, "red"))]


def _head(where: str, now: Overview, before: Overview | None) -> Iterator[TopLine]:
    node = now.node
    state = "ready" if node.ready else "NOT READY"
    workers = f"{node.workers} workers" if node.workers != 1 else "1 worker"
    silent = f", {node.silent} silent" if node.silent else ""
    yield TopLine(f"{where}  {state}  {workers}{silent}  Oncecast {node.version}", "bold" if node.ready else "red")
    for reason in node.reasons:
        yield TopLine(f"not ready    {reason}", "red")
    lag = f", this node is {node.broker_lag:,} behind" if node.broker_lag else ""
    yield TopLine(f"log          {node.broker}, {node.epoch}-{node.head:,}{lag}")
    counts = now.connections
    yield TopLine(f"connections  {counts.open:,} of {counts.limit:,}  {_pairs(counts.listeners)}".rstrip())
    sums = (("published", now.messages.published), ("delivered", now.messages.delivered))
    if before is not None and (seconds := now.time - before.time) > 0:
        earlier = (before.messages.published, before.messages.delivered)
        rates = zip(sums, earlier, strict=True)
        yield TopLine("messages     " + "  ".join(f"{_rate(n, old, seconds)}/s {name}" for (name, n), old in rates))
        cpu = f"{_share(node.cpu_seconds, before.node.cpu_seconds, seconds)} of a core"
    else:
        yield TopLine("messages     " + "  ".join(f"{count:,} {name}" for name, count in sums))
        cpu = f"{node.cpu_seconds:,.0f} s of CPU"
    behind = now.subscriptions
    late = f"{behind.catching_up:,} catch up, {behind.blocked:,} blocked, the last by {behind.lag:,}"
    yield TopLine(f"listeners    {behind.open:,} subscriptions; {late}")
    yield TopLine(f"processes    {cpu}, {_size(node.memory_bytes)}, {node.restarts:,} restarts")
    if len(now.nodes) > 1:
        ordered = sorted(now.nodes, key=lambda each: (not each.unready, not each.this))
        more = f"  and {len(ordered) - NODES:,} more" if len(ordered) > NODES else ""
        text = "nodes        " + "  ".join(_node(each) for each in ordered[:NODES]) + more
        yield TopLine(text, "red" if ordered[0].unready else "")
    refusals = {f"{row.code} ({row.transport})": row.count for row in now.refusals[:REFUSALS]}
    yield TopLine(f"refusals     {_pairs(refusals) or 'none'}")


def _node(row: PresentNode) -> str:
    this = " (this)" if row.this else ""
    return f"{row.name}{this} {'NOT READY' if row.unready else f'{row.connections:,}'}"


def _channel(row: ListedChannel, width: int) -> TopLine:
    figures = (f"{row.rate:,.1f}", f"{row.listeners:,}", f"{row.behind:,}", f"{row.lag:,}", f"{row.messages:,}")
    return TopLine(_row((row.name, *figures), width), "red" if row.behind else "")


def _row(cells: Iterable[str], width: int) -> str:
    name, *figures = cells
    room = max(LEAST_NAME, width - sum(_WIDTHS))
    shown = name if len(name) <= room else name[: room - 1] + "…"
    return f"{shown:<{room}}" + "".join(f"{cell:>{size}}" for cell, size in zip(figures, _WIDTHS, strict=True))


def _pairs(counts: Mapping[str, int]) -> str:
    return "  ".join(f"{name} {count:,}" for name, count in counts.items())


def _rate(now: float, before: float, seconds: float) -> str:
    """Return how many a second; a server that has started again counts from 0."""
    return f"{max(0.0, now - before) / seconds:,.1f}"


def _share(now: float, before: float, seconds: float) -> str:
    return f"{max(0.0, now - before) / seconds:.0%}"


def _size(number: float) -> str:
    for unit in _UNITS[:-1]:
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} {_UNITS[-1]}"
