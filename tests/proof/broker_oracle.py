"""The oracle of the broker's faults: holds what an application saw of a channel against what was acknowledged.

For each epoch what was seen is a contiguous slice of what was acknowledged, or a gap stands exactly where it is not.
Nothing comes twice or out of order, and a number never means two messages. What was tried and never acknowledged may
come, once. A log that was not emptied, put back or failed over has no gap at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oncecast import ClientMessage, Gap
from oncecast.message import Cursor

from .client_oracle import Wrong

__all__ = ["Acknowledged", "judge"]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A message that its publisher has a receipt for."""

    channel: str
    cursor: Cursor
    data: str


def judge(
    channel: str,
    start: Cursor,
    seen: Sequence[ClientMessage | Gap],
    acknowledged: Sequence[Acknowledged],
    tried: Mapping[str, str],
    *,
    lossy: bool,
) -> None:
    """Hold what was seen, from after `start` on. `tried` has each data's channel. Raises `Wrong`."""
    known = {each.cursor: each.data for each in acknowledged if each.channel == channel}
    place, gaps = start, list[Gap]()
    cursors: set[Cursor] = set()
    since_gap: set[str] = set()
    for item in seen:
        if isinstance(item, Gap):
            if not lossy:
                raise Wrong(f"{channel}: after {place} came {item}, where nothing can be lost")
            gaps.append(item)
            since_gap.clear()
            continue
        here, data = Cursor.parse(item.id), str(item.data)
        if here in cursors or data in since_gap:
            raise Wrong(f"{channel}: {here} {data!r} came twice")
        if data not in tried or known.get(here, data) != data:
            raise Wrong(f"{channel}: {here} came with {data!r}, not {known.get(here)!r}")
        if here.epoch == place.epoch and here.seq <= place.seq:
            raise Wrong(f"{channel}: after {place} came {here}")
        if here.epoch != place.epoch and not any(gap.reason == "epoch" for gap in gaps):
            raise Wrong(f"{channel}: after {place} came {here}, without a gap")
        _judge_missing(channel, place, here, gaps, known)
        cursors.add(here)
        since_gap.add(data)
        place, gaps = here, []
    if rest := [cursor for cursor in known if cursor.epoch == place.epoch and cursor.seq > place.seq]:
        raise Wrong(f"{channel}: {rest[:3]} never came")


def _judge_missing(channel: str, place: Cursor, here: Cursor, gaps: Sequence[Gap], known: Mapping[Cursor, str]) -> None:
    """Hold what was acknowledged between two messages and not seen against the gaps that came between them."""
    after = place.seq if here.epoch == place.epoch else 0
    missing = sorted(each.seq for each in known if each.epoch == here.epoch and after < each.seq < here.seq)
    for seq in missing:
        if not any(_covers(gap, here.epoch, seq) for gap in gaps):
            said = f"between {place} and {here}, with the gaps {list(gaps)}"
            raise Wrong(f"{channel}: {here.epoch}-{seq} was acknowledged, and never came {said}")


def _covers(gap: Gap, epoch: str, seq: int) -> bool:
    if gap.missed_from is None or gap.missed_to is None:
        return False
    first, last = Cursor.parse(gap.missed_from), Cursor.parse(gap.missed_to)
    return first.epoch == last.epoch == epoch and first.seq <= seq <= last.seq
