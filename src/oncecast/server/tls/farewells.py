"""What a TLS connection that is refused at its acceptance is told, as one past a limit of its address.

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
from functools import partial

from ...policy.bucket import Bucket
from . import Tls
from .meters import TlsMeters
from .opening import REFUSED_ALERT, PlainHttpError, discard, refuse
from .shared import Shared

__all__ = ["MOST", "Farewells"]

logger = logging.getLogger("oncecast.server")

MOST = 8
A_SECOND = 20.0
SECONDS = 5.0


class Farewells:
    """The refused connections of one acceptor, until they are closed."""

    def __init__(self, shared: Shared, tls: Tls, meters: TlsMeters) -> None:
        self._shared = shared
        self._tls = tls
        self._meters = meters
        self._bucket = Bucket.steady(A_SECOND, shared.monotonic())
        self.tasks: set[asyncio.Task[None]] = set()

    def say(self, sock: socket.socket, answer: Callable[[bytes], bytes]) -> None:
        """Close the socket, which becomes this object's, after an answer or an alert.

        `answer` gets the first bytes of the request, and returns the answer.
        """
        if len(self.tasks) >= MOST or self._bucket.take(self._shared.monotonic()) > 0:
            self.alert(sock)
            return
        own = socket.socket(fileno=sock.detach())
        own.setblocking(False)
        task = self._shared.loop.create_task(self._say(own, answer))
        self.tasks.add(task)
        task.add_done_callback(partial(self._said, own))

    def alert(self, sock: socket.socket) -> None:
        """Close the socket after an alert."""
        with sock, contextlib.suppress(OSError):
            discard(sock)
            sock.send(REFUSED_ALERT)

    async def _say(self, sock: socket.socket, answer: Callable[[bytes], bytes]) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                await refuse(self._shared, sock, self._tls.context, answer)
        except PlainHttpError:
            self._meters.plain += 1
        except OSError:  # a handshake that failed or was late, or a client that has gone
            self._meters.failed += 1

    def _said(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        sock.close()  # here, as a task that is cancelled at once does not begin
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a refused connection could not be told so", exc_info=error)
