"""What a connection over TLS is told that is refused when it is accepted, as one past a limit of its address.

No answer can be read before a handshake, which costs the server a millisecond or more. So a few of those that are
refused get theirs after it: enough for people to see why, and too little for a flood. The others get an alert.

Invariant: at most `MOST` handshakes are under way here, `A_SECOND` begin in a second in the long run, and each socket
is closed in `SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable

from ...policy.bucket import Bucket
from . import Tls
from .opening import REFUSED_ALERT, discard, refuse
from .shared import Shared

__all__ = ["MOST", "Farewells"]

logger = logging.getLogger("oncecast.server")

MOST = 8
A_SECOND = 20.0
SECONDS = 5.0


class Farewells:
    """The refused connections of one acceptor, until they are closed."""

    def __init__(self, shared: Shared, tls: Tls) -> None:
        self._shared = shared
        self._tls = tls
        self._bucket = Bucket.steady(A_SECOND, shared.monotonic())
        self.tasks: set[asyncio.Task[None]] = set()

    def say(self, sock: socket.socket, answer: Callable[[bytes], bytes]) -> None:
        """Close the socket, which becomes this object's, after an answer or an alert. `answer` gets a request."""
        own = socket.socket(fileno=sock.detach())
        if len(self.tasks) >= MOST or self._bucket.take(self._shared.monotonic()) > 0:
            with own, contextlib.suppress(OSError):
                discard(own)
                own.send(REFUSED_ALERT)
            return
        task = self._shared.loop.create_task(self._say(own, answer))
        self.tasks.add(task)
        task.add_done_callback(self._said)

    async def _say(self, sock: socket.socket, answer: Callable[[bytes], bytes]) -> None:
        with sock, contextlib.suppress(OSError):  # a client that has gone, or that does not speak TLS
            async with asyncio.timeout(SECONDS):
                await refuse(self._shared, sock, self._tls.context, answer)

    def _said(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a refused connection could not be told so", exc_info=error)
