"""The records of the internal channels, as they are written and as they are read."""

from __future__ import annotations

import msgspec
import pytest

from oncecast.http.notices import LINES, Granted, NodeNotice, read_notice
from oncecast.message import TICKETS, Kind, Message


def test_a_record_is_read_as_it_was_written() -> None:
    """What is not said takes no bytes, and each line begins with the cursor of its record."""
    notice = NodeNotice(5.0, ticket="x", granted=Granted("ann", ("c",), (), 1.0, 2.0))
    data = msgspec.json.encode(notice)
    assert notice == read_notice(data)
    assert b'{"at":6.0,"call":true}' == msgspec.json.encode(NodeNotice(6.0, call=True))
    parts = [LINES.message(Message(seq, TICKETS, data, Kind.JSON, None, 0.0), "e") for seq in (7, 8)]
    assert b"e-7 " + data + b"\ne-8 " + data + b"\n" == LINES.block(parts)


def test_a_record_of_a_newer_node() -> None:
    """A field that is not known is passed over; a known one of another type is an error."""
    assert NodeNotice(5.0) == read_notice(b'{"at":5.0,"newer":{"x":1}}')
    with pytest.raises(msgspec.ValidationError):
        read_notice(b'{"disconnect":5}')
