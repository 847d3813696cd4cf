"""A record of a followed log: a message, a life, a list of the lives, a probe, or an order to trim a channel.

Layout, big-endian: `oc` (2 bytes), the kind (1), the node that wrote it (8), the node's number for it (8), the hash of
channel and key (16, zeros without a key), the lengths of channel (1) and event (2); then channel, event and data.
"""

from __future__ import annotations

import hashlib
from struct import Struct
from typing import NamedTuple

import msgspec

from ...message import Draft, Message
from ..stored import STORED_KINDS, stored_data, stored_kind, stored_message

MAGIC = b"oc"
LIFE, LIVES, PROBE, TRIM = 16, 17, 18, 19  # kinds of records; those of messages are `STORED_KINDS`
NO_KEY = bytes(16)
HEAD = Struct(">2sB8sQ16sBH")
HEAD_SIZE = HEAD.size
NAMES_SIZE = HEAD_SIZE + 128 + 512  # the head, the longest channel and the longest event

_NONE = b""


def encode_draft(draft: Draft, node: bytes, number: int) -> bytes:
    """Return the record of a draft."""
    channel = draft.channel.encode()
    event = _NONE if draft.event is None else draft.event.encode()
    key = NO_KEY if draft.key is None else hash_key(channel, draft.key)
    head = HEAD.pack(MAGIC, stored_kind(draft), node, number, key, len(channel), len(event))
    return head + channel + event + stored_data(draft)


def encode_control(kind: int, node: bytes, number: int, data: bytes = b"") -> bytes:
    """Return a record that is no message."""
    return HEAD.pack(MAGIC, kind, node, number, NO_KEY, 0, 0) + data


def hash_key(channel: bytes, key: str) -> bytes:
    """Return the hash that stands for a key of a channel."""
    return hashlib.blake2b(channel + b"\0" + key.encode(), digest_size=16).digest()


def decode_message(record: bytes, channel: str, seq: int, time: float) -> Message:
    """Return the message of a record of this channel. Raises `ValueError` for another record."""
    if len(record) < HEAD_SIZE:
        raise ValueError("it is too short")
    magic, kind, _, _, _, names, events = HEAD.unpack_from(record)
    at = HEAD_SIZE + names + events
    if (
        magic != MAGIC
        or kind not in STORED_KINDS
        or at > len(record)
        or record[HEAD_SIZE : at - events] != channel.encode()
    ):
        raise ValueError("it is no message of this channel")
    event = record[at - events : at].decode() if events else None
    return stored_message(seq, channel, record[at:], kind, event, time)


def encode_trim(channel: str, offset: int) -> bytes:
    """Return the data of a record that trims a channel up to an offset."""
    return msgspec.json.encode((channel, offset))


def decode_trim(data: bytes) -> tuple[str, int]:
    """Read the data of a record that trims a channel. Raises `ValueError`."""
    try:
        return msgspec.json.decode(data, type=tuple[str, int])
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None


class LifeEntry(NamedTuple):
    """A life in a list of lives. Numbers count from `turn`, messages from `record`, the offset of the life's record."""

    turn: int
    record: int
    server: str
    base: int


class LivesList(msgspec.Struct):
    """All lives of a log up to an offset."""

    epoch: str
    born: float
    upto: int
    lives: list[LifeEntry]


def decode_lives(data: bytes) -> LivesList:
    """Read the data of a record that lists the lives. Raises `ValueError`."""
    try:
        read = msgspec.json.decode(data, type=LivesList)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    if not read.lives:
        raise ValueError("it lists no life")
    return read
