"""The bell between the loop and a thread: no ring is lost, and no flood of them fills anything."""

from __future__ import annotations

import select
import socket

import pytest

from oncecast.brokers.bell import Bell


def heard(bell: Bell) -> bool:
    """Whether the thread that waits would wake."""
    return bool(select.select([bell.ear], [], [], 0)[0])


@pytest.fixture
def bell() -> Bell:
    """A bell that was not rung."""
    return Bell()


def test_a_ring_is_heard_until_it_is_cleared(bell: Bell) -> None:
    """However often it is rung, one clear is enough; and it may be cleared without a ring."""
    bell.clear()
    assert not heard(bell)
    for _ in range(100_000):
        bell.ring()
    assert heard(bell)
    bell.clear()
    assert not heard(bell)
    bell.ring()
    assert heard(bell)
    bell.close()


class Interrupted:
    """The ear's socket, where the loop rings just before the byte is taken."""

    def __init__(self, bell: Bell) -> None:
        self.bell = bell
        self.ear: socket.socket = bell.ear

    def recv(self, size: int) -> bytes:
        """Take what is there, after a ring."""
        self.bell.ring()
        return self.ear.recv(size)


def test_a_ring_in_the_middle_of_a_clear_does_not_silence_the_next(bell: Bell) -> None:
    """The byte of a ring must not be taken while the bell counts as rung: nobody would be woken again."""
    bell.ring()
    ear = bell.ear
    bell.ear = Interrupted(bell)  # type: ignore[assignment]
    bell.clear()
    bell.ear = ear
    bell.ring()
    assert heard(bell)
    bell.close()


def test_a_full_bell_is_no_fault(bell: Bell) -> None:
    """The reader is woken by the bytes that are there."""
    while True:
        bell._rung = False
        bell.ring()
        try:
            bell._mouth.send(b"\0" * 4096)
        except BlockingIOError:
            break
    bell._rung = False
    bell.ring()
    assert heard(bell)
    bell.close()
