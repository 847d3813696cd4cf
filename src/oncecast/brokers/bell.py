"""How the loop's thread wakes a thread that waits in `poll`: a byte through a pair of sockets, one at a time.

Invariant: after `ring`, the ear is readable until `clear`; a `ring` that comes while `clear` runs is not lost for what
the woken thread looks at after `clear`, nor does it keep a later one from waking it.
"""

from __future__ import annotations

import contextlib
import socket


class Bell:
    """One thread rings, another waits for `ear` to be readable and clears."""

    def __init__(self) -> None:
        self._mouth, self.ear = socket.socketpair()
        self._mouth.setblocking(False)
        self.ear.setblocking(False)
        self._rung = False

    def ring(self) -> None:
        """Wake the thread that waits."""
        if not self._rung:
            self._rung = True
            with contextlib.suppress(BlockingIOError):  # it is full, so there is something to hear
                self._mouth.send(b"\0")

    def clear(self) -> None:
        """Take what was rung."""
        with contextlib.suppress(BlockingIOError):
            self.ear.recv(64)
        self._rung = False  # after that, or a byte is taken whose bell then never rings again

    def close(self) -> None:
        """Close both ends."""
        self._mouth.close()
        self.ear.close()
