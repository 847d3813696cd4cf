"""The carrier in memory: what it keeps, and the misuse that it finds."""

from __future__ import annotations

import pytest

from oncecast.message import Kind, Message
from oncecast.protocol.raw import ENCODER
from oncecast.testing.carrier import ListCarrier, memory_node
from oncecast.testing.clock import FakeClock


def test_messages_and_blocks_are_kept_in_order() -> None:
    """A block of the carrier's own format is taken apart again."""
    carrier = ListCarrier()
    format_ = carrier.format(ENCODER)
    assert format_ is carrier.format(ENCODER)
    parts = [format_.message(Message(n, "c", b"%d" % n, Kind.TEXT, None, 0.0), "e") for n in (1, 2)]
    carrier.send(b"first")
    carrier.write(format_.block(parts))
    assert [b"first", b"1", b"2"] == carrier.take()
    assert [] == carrier.take()


def test_a_session_that_goes_on_after_its_close_is_found() -> None:
    """Nothing may be sent after `close`, and it is called once."""
    carrier = ListCarrier(FakeClock(monotonic=5))
    carrier.wake_at(7)
    carrier.stop()
    carrier.close(1000, "done")
    assert (5, 7, True, (1000, "done")) == (carrier.now(), carrier.wake, carrier.stopped, carrier.closed_with)
    with pytest.raises(AssertionError, match="after close"):
        carrier.send(b"late")
    with pytest.raises(AssertionError, match="closed twice"):
        carrier.close(1000, "again")


def test_a_node_in_memory_is_ready() -> None:
    """A node in memory has an empty log, and turns that a test ends."""
    node, turns = memory_node("e")
    assert (None, "e", 0) == (node.unready, node.log.epoch, turns.run_all())
