"""The oracle of the client's runs: compares what applications received, and what was published, with the log.

`judge`: per channel, the messages of a listener are a contiguous slice of the log, with a gap exactly where it is not.
`judge_log`: a publish is in the log once if it was acknowledged, and at most once if it was not.

A life of a log may continue under another epoch, as that of a durable log does when it is opened again. `heirs` maps
such an epoch to the first epoch of its life; older cursors of that life stay valid, without a gap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from oncecast import ClientMessage, Gap
from oncecast.message import Cursor, Message

__all__ = ["Lives", "Wrong", "judge", "judge_log"]


class Wrong(AssertionError):
    """The promise was broken."""


Lives = Mapping[str, Sequence[Message]]  # by its first epoch, everything that was in the log of a life
Heirs = Mapping[str, str]  # of each epoch that a life went on under, the first epoch of that life
NO_HEIRS: Heirs = {}


def judge(
    channel: str,
    lives: Lives,
    start: Cursor,
    seen: Sequence[ClientMessage | Gap],
    *,
    trimmed: bool = False,
    heirs: Heirs = NO_HEIRS,
) -> Cursor:
    """Hold what was seen of a channel, from after `start` on, against the lives of its log; return where it ended.

    Places are held in the first epoch of their life.

    `trimmed`: not all of a life is kept, so what it began with may be gone when its first gap comes. Raises `Wrong`.
    """
    logs = {epoch: [message for message in log if message.channel == channel] for epoch, log in lives.items()}
    place = _place(str(start), heirs)
    for before, item in zip([None, *seen], seen, strict=False):
        if isinstance(item, Gap):
            place = _judge_gap(logs, place, item, heirs)
            continue
        here = _place(item.id, heirs)
        if trimmed and isinstance(before, Gap) and before.reason == "epoch" and here.epoch == place.epoch:
            place = max(place, Cursor(place.epoch, here.seq - 1), key=lambda each: each.seq)
        place = _judge_message(logs, place, item, here)
    if rest := [message.seq for message in logs[place.epoch] if message.seq > place.seq]:
        raise Wrong(f"{channel}: {rest[:3]} of {place.epoch} never came")
    return place


def _place(text: str, heirs: Heirs) -> Cursor:
    """Return a cursor in the first epoch of its life."""
    cursor = Cursor.parse(text)
    return Cursor(heirs.get(cursor.epoch, cursor.epoch), cursor.seq)


def _judge_message(logs: Lives, place: Cursor, message: ClientMessage, here: Cursor) -> Cursor:
    expected = next((each for each in logs[place.epoch] if each.seq > place.seq), None)
    if expected is None or here != Cursor(place.epoch, expected.seq):
        raise Wrong(f"{message.channel}: after {place} came {message.id}, not {expected and expected.seq}")
    if expected.data != str(message.data).encode():
        raise Wrong(f"{message.channel}: {message.id} came with other data")
    return here


def _judge_gap(logs: Lives, place: Cursor, gap: Gap, heirs: Heirs) -> Cursor:
    first = _place(gap.missed_from or "", heirs)
    if gap.reason == "epoch":
        # What the old life held after the place may be lost; the new one begins with the oldest that is kept.
        here = _place(gap.cursor, heirs)
        if first.epoch != place.epoch or first.seq <= place.seq or here.epoch == place.epoch:
            raise Wrong(f"{gap.channel}: after {place} came {gap}")
        return here
    last = _place(gap.missed_to or "", heirs)
    missed = [each.seq for each in logs[place.epoch] if place.seq < each.seq <= last.seq]
    if {first.epoch, last.epoch} != {place.epoch} or not missed or not place.seq < first.seq <= missed[0]:
        raise Wrong(f"{gap.channel}: a gap from {first} to {last} after {place}, where {missed[:3]} were missed")
    return last


def judge_log(lives: Lives, acknowledged: Mapping[str, str], others: Sequence[str], *, heirs: Heirs = NO_HEIRS) -> None:
    """Hold the log against what was published: data by data, with the ids that were acknowledged. Raises `Wrong`."""
    found = [(message.data.decode(), Cursor(epoch, message.seq)) for epoch, log in lives.items() for message in log]
    counts = Counter((data, place.epoch) for data, place in found)
    if wrong := [data for (data, _), count in counts.items() if count > 1]:
        raise Wrong(f"{wrong} are in the log more than once")
    if lost := [data for data, text in acknowledged.items() if (data, _place(text, heirs)) not in set(found)]:
        raise Wrong(f"{lost} were acknowledged, and are not in the log with those ids")
    known = {*acknowledged, *others}
    if strange := [data for data, _ in found if data not in known]:
        raise Wrong(f"{strange} are in the log, and were never published")
