"""The records of the internal channels: what one holds, and the lines in which the bulletin reads them.

To tell the other nodes something else, add a field to `NodeNotice`: a node that does not know it skips the record.
"""

from __future__ import annotations

import msgspec

from ..message import Message
from .roll import PresentProcess

__all__ = ["LINES", "Granted", "NodeNotice", "read_notice"]


class Granted(msgspec.Struct, omit_defaults=True):
    """What a ticket grants."""

    subject: str | None = None
    subscribe: tuple[str, ...] | None = None
    publish: tuple[str, ...] | None = None
    issued: float | None = None
    expires: float | None = None


class NodeNotice(msgspec.Struct, omit_defaults=True):
    """One of five: a ticket (its hash), a redemption (the hash and a nonce), a disconnection (a user), a call of the
    roll, or an answer to it.
    """

    at: float = 0.0
    ticket: str | None = None
    granted: Granted | None = None
    redeem: str | None = None
    nonce: str = ""
    disconnect: str | None = None
    not_before: float | None = None
    call: bool = False
    here: PresentProcess | None = None


read_notice = msgspec.json.Decoder(NodeNotice).decode


class NoticeLines:
    """The format of the subscription: a line for each record, with its cursor."""

    def message(self, message: Message, epoch: str) -> bytes:
        """Return a record."""
        return b"%s-%d %s\n" % (epoch.encode(), message.seq, message.data)

    def block(self, parts: list[bytes]) -> bytes:
        """Join records."""
        return b"".join(parts)


LINES = NoticeLines()
