"""A message's kind and data as a broker stores them, with its trace context, where it has one.

Layout: the kind of a message with a context is `TRACED` more, and its data begins with the `TRACE_BYTES` of that.
"""

from __future__ import annotations

from ..message import TRACE_BYTES, Draft, Kind, Message

TRACED = 4
PLAIN_KINDS = {int(kind): kind for kind in Kind}
TRACED_KINDS = {TRACED + kind: kind for kind in Kind}
STORED_KINDS = frozenset(PLAIN_KINDS | TRACED_KINDS)


def stored_kind(draft: Draft) -> int:
    """Return the number that stands for a draft's kind, and for whether it has a context."""
    return int(draft.kind) if draft.trace is None else TRACED + draft.kind


def stored_data(draft: Draft) -> bytes:
    """Return the data of a draft, behind its context if it has one."""
    return draft.data if draft.trace is None else draft.trace + draft.data


def stored_message(seq: int, channel: str, data: bytes, kind: int, event: str | None, time: float) -> Message:
    """Return the message whose kind and data were stored. Raises `ValueError` where they are not a message's."""
    plain = PLAIN_KINDS.get(kind)
    if plain is not None:
        return Message(seq, channel, data, plain, event, time)
    traced = TRACED_KINDS.get(kind)
    if traced is None or len(data) < TRACE_BYTES:
        raise ValueError("its kind is not ours")
    return Message(seq, channel, data[TRACE_BYTES:], traced, event, time, data[:TRACE_BYTES])
