"""The oracle of the broker's faults: holds what an application saw of a channel against what was acknowledged.

For each epoch what was seen is a contiguous slice of what was acknowledged, or a gap stands exactly where it is not.
Nothing comes twice or out of order, and a number never means two messages. What was tried and never acknowledged may
come, once. No gap names what is in the log.

What may happen depends on the faults. Where nothing can have been lost and no life has ended, there is no gap at all.
Where a server was killed and has started on its data, there may be gaps, and each acknowledged message has come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oncecast import ClientMessage, Gap
from oncecast.message import Cursor

from .client_oracle import Wrong

__all__ = ["Acknowledged", "judge", "judge_log"]


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
    kept: Sequence[Cursor],
    *,
    gaps: bool,
    loss: bool,
) -> None:
    """Hold what was seen, from after `start` on. `tried` has each data's channel, `kept` is in the log. Raises `Wrong`.

    `gaps` says whether there may be any, and `loss` whether what was acknowledged may be lost.
    """
    known = {each.cursor: each.data for each in acknowledged if each.channel == channel}
    place, passed = start, list[Gap]()
    cursors: set[Cursor] = set()
    since_gap: set[str] = set()
    for item in seen:
        if isinstance(item, Gap):
            if not gaps:
                raise Wrong(f"{channel}: after {place} came {item}, where nothing can be lost")
            if named := [each for each in kept if _covers(item, each.epoch, each.seq)]:
                raise Wrong(f"{channel}: after {place} came {item}, and the log has {named[0]} to {named[-1]} of it")
            passed.append(item)
            since_gap.clear()
            continue
        here, data = Cursor.parse(item.id), str(item.data)
        if here in cursors or data in since_gap:
            raise Wrong(f"{channel}: {here} {data!r} came twice")
        if data not in tried or known.get(here, data) != data:
            raise Wrong(f"{channel}: {here} came with {data!r}, not {known.get(here)!r}")
        if here.epoch == place.epoch and here.seq <= place.seq:
            raise Wrong(f"{channel}: after {place} came {here}")
        if here.epoch != place.epoch and not any(gap.reason == "epoch" for gap in passed):
            raise Wrong(f"{channel}: after {place} came {here}, without a gap")
        _judge_missing(channel, place, here, passed if loss else [], known)
        cursors.add(here)
        since_gap.add(data)
        place, passed = here, []
    if rest := [cursor for cursor in known if cursor.epoch == place.epoch and cursor.seq > place.seq]:
        raise Wrong(f"{channel}: {rest[:3]} never came")


def judge_log(
    channel: str,
    log: Sequence[tuple[Cursor, str]],
    acknowledged: Sequence[Acknowledged],
    tried: Mapping[str, str],
    *,
    loss: bool,
) -> None:
    """Hold what is in the log in the end: in order, each message once, and where nothing can be lost all of them.

    A publish is repeated with its key until it is acknowledged. Raises `Wrong`.
    """
    known = {each.cursor: each.data for each in acknowledged if each.channel == channel}
    found: dict[str, Cursor] = {}
    place = 0
    for cursor, data in log:
        if data not in tried or known.get(cursor, data) != data:
            raise Wrong(f"{channel}: the log has {data!r} at {cursor}, not {known.get(cursor)!r}")
        if data in found:
            raise Wrong(f"{channel}: the log has {data!r} twice, at {found[data]} and {cursor}")
        if cursor.seq <= place:
            raise Wrong(f"{channel}: the log has {cursor} after {place}")
        found[data] = cursor
        place = cursor.seq
    if not loss and (lost := known.keys() - {cursor for cursor, _ in log}):
        raise Wrong(f"{channel}: {min(lost, key=lambda each: each.seq)} was acknowledged, and is not in the log")


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
