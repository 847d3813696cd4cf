"""The carrier of an event stream: one write for each call, chunks, and the end."""

from __future__ import annotations

from typing import Any

import pytest

from oncecast.errors import Refusal
from oncecast.message import Kind, Message
from oncecast.policy.access import Access
from oncecast.policy.identity import Identity
from oncecast.protocol.base import Carrier
from oncecast.protocol.events import BARE, ENVELOPED
from oncecast.server.framing.event_stream import EventStreamCarrier, event_blocks, event_stream_carrier


class Scripted:
    """A session that sends what the test asks for."""

    def __init__(self, carrier: Carrier, *payloads: bytes) -> None:
        self.carrier = carrier
        self.calls: list[str] = []
        for payload in payloads:
            carrier.send(payload)

    def blocked(self) -> None:
        self.calls.append("blocked")

    def drained(self) -> None:
        self.calls.append("drained")

    def recheck(self, access: Access, identity: Identity, /) -> None:
        self.calls.append("recheck")

    def expiring(self, seconds: float, /) -> None:
        self.calls.append(f"expiring {seconds:g}")

    def woken(self, now: float, /) -> None:
        self.carrier.send(b"woken %d\n" % now)

    def drain(self) -> None:
        self.carrier.send(b"bye\n")
        self.carrier.close(1012, "restarting")

    def refuse(self, refusal: Refusal, /) -> None:
        self.carrier.close(refusal.error.close, refusal.message)

    def closed(self) -> None:
        self.calls.append("closed")


def open_stream(rig: Any, *payloads: bytes, chunked: bool = True) -> tuple[Any, EventStreamCarrier]:
    """Return a link and the carrier on it."""
    link = rig.link()
    return link, event_stream_carrier(link, b"HEAD\n", lambda carrier: Scripted(carrier, *payloads), chunked=chunked)


def test_the_head_and_the_first_events_are_one_write(rig: Any) -> None:
    """The head and the chunk of the first events are one write, and the head goes alone without events."""
    link, _ = open_stream(rig, b"one\n", b"two\n")
    assert [b"HEAD\n8\r\none\ntwo\n\r\n"] == link.sent
    link, _ = open_stream(rig)
    assert [b"HEAD\n"] == link.sent
    link, _ = open_stream(rig, b"one\n", chunked=False)
    assert [b"HEAD\none\n"] == link.sent


@pytest.mark.parametrize("chunked, expected", [(True, b"4\r\nbye\n\r\n0\r\n\r\n"), (False, b"bye\n")])
def test_the_end_is_one_write(rig: Any, chunked: bool, expected: bytes) -> None:
    """The last event and the last chunk go together, then the connection ends; closing again changes nothing."""
    link, carrier = open_stream(rig, chunked=chunked)
    link.take()
    carrier.drain()
    assert ([expected], "ended") == (link.sent, link.state)
    carrier.close(1000, "")
    carrier.stop()
    assert 1 == len(link.sent)


@pytest.mark.parametrize("chunked, expected", [(True, [b"0\r\n\r\n"]), (False, [])])
def test_an_end_between_the_calls_is_written_at_once(rig: Any, chunked: bool, expected: list[bytes]) -> None:
    """The hub may refuse a subscription at any time."""
    link, carrier = open_stream(rig, chunked=chunked)
    link.take()
    carrier.close(4409, "slow")
    assert (expected, "ended") == (link.sent, link.state)


def test_the_calls_of_the_connection_reach_the_session(rig: Any) -> None:
    """The connection's calls reach the session of a stream, and the client's bytes do not."""
    link, carrier = open_stream(rig)
    link.take()
    carrier.blocked()
    carrier.drained()
    carrier.received(b"GET / HTTP/1.1\r\n\r\n")
    carrier.woken(7)
    carrier.closed()
    session: Any = carrier._session
    assert ["blocked", "drained", "closed"] == session.calls
    assert [b"8\r\nwoken 7\n\r\n"] == link.sent
    assert (link.identity, link.descriptor, False) == (carrier.identity, carrier.descriptor, carrier.full)
    assert carrier.slice_bytes > 0


def test_a_stream_that_the_server_refuses_ends_in_order(rig: Any) -> None:
    """The last chunk tells the client that nothing is missing."""
    link, carrier = open_stream(rig)
    link.take()
    carrier.refuse(Refusal("unavailable", "full"))
    assert ([b"0\r\n\r\n"], "ended") == (link.sent, link.state)


def test_formats_are_shared() -> None:
    """Streams of a kind share one object, and with it their bytes."""
    kinds = [event_blocks(encoder, chunked=chunked) for encoder in (BARE, ENVELOPED) for chunked in (True, False)]
    assert 4 == len(set(kinds))
    assert kinds[0] is event_blocks(BARE, chunked=True)
    assert BARE.is_text(Message(1, "c", b"\0", Kind.BINARY, None, 0.0))
