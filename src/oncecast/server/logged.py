"""A connection whose requests, streams and sockets are logged, each as one line at its end.

It is a class of its own, so that a server without an access log does nothing for it. Invariant: each request that was
read has one line: with its status, or without one where the client was gone before the answer. A stream or a socket has
its line when the connection is gone.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable

from ..errors import Refusal
from ..http.exchange import Agreement
from ..policy.identity import ANYBODY, Identity
from ..policy.origin import Headers
from ..protocol.base import Carrier, Duplex, Session
from ..wire import http1
from .app import App
from .connection import Connection
from .logs.audit import NAMES
from .logs.line import Value
from .logs.requests import shown_method, shown_target
from .presence import unread

__all__ = ["LoggedConnection"]

ABNORMAL = 1006  # RFC 6455 §7.1.5: a socket that ended without a Close
BYTES_SENT = 200  # offset of tcpi_bytes_sent in struct tcp_info (linux/tcp.h), since Linux 4.19


class LoggedConnection(Connection):
    """A `Connection` with a line for each request."""

    __slots__ = ("_asked", "_began", "_code", "_kind", "_sent")

    def __init__(self, app: App, descriptor: int | None = None, identity: Identity = ANYBODY) -> None:
        super().__init__(app, descriptor, identity)
        self._asked: http1.Request | None = None  # the request whose line is due
        self._began = 0.0
        self._kind = ""  # of what the connection has become: "events" or "socket"
        self._code: int | None = None  # of the close
        self._sent: int | None = None  # bytes, before the stream or socket began

    def _handle(self, request: http1.Request) -> None:
        self._asked, self._began = request, self.now()
        if self.identity.subject is not None:  # of the request before: this one may be refused before it has its own
            self.identity = Identity(self.identity.address)
        super()._handle(request)

    def send(self, answer: bytes, body: bytes = b"") -> None:
        """Log the answer, and do as without a log."""
        if self._request is not None:
            self._log({"status": int(answer[9:12]), "bytes": len(answer) + len(body)})
        super().send(answer, body)

    def fail(self, refusal: Refusal) -> None:
        """Log the error, also of a request that could not be read, and do as without a log."""
        self._log({"status": refusal.error.status, "code": refusal.code})
        super().fail(refusal)

    def open_events(self, headers: Headers, make: Callable[[Carrier], Session], /) -> None:
        """Log the stream once it ends."""
        sent = self._count_sent()
        super().open_events(headers, make)
        self._kind, self._sent = "events", sent

    def open_websocket(self, agreement: Agreement, make: Callable[[Carrier], Duplex], /) -> None:
        """Log the socket once it ends."""
        if self._request is not None:
            sent = self._count_sent()
            super().open_websocket(agreement, make)
            self._kind, self._sent = "socket", sent

    def closing(self, code: int, /, *, ours: bool = True) -> None:
        """A carrier closes with this code."""
        super().closing(code, ours=ours)
        if self._code is None:
            self._code = code

    def connection_lost(self, error: Exception | None) -> None:
        """Log the stream or socket that ends, or the request that is left without an answer."""
        if self._kind:
            fields: dict[str, Value] = {"status": 101 if self._kind == "socket" else 200}
            if self._kind == "socket":
                fields["close"] = ABNORMAL if self._code is None else self._code
            elif self._code is not None:
                fields["close"] = self._code
            sent = self._count_sent()
            if sent is not None and self._sent is not None:
                fields["bytes"] = sent - self._sent
            self._log(fields)
        elif self._asked is not None:
            self._log({})
        super().connection_lost(error)

    # -- helpers

    def _count_sent(self) -> int | None:
        """Return how many bytes the kernel has sent on this connection, with those of TLS; None where it can't say."""
        shared = None if self._transport is None else self._transport.get_extra_info("socket")
        if shared is None:
            return None
        with contextlib.suppress(OSError, ValueError, struct.error):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, shared.fileno())  # uvloop's lacks getsockopt
            try:
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_SENT + 8)
            finally:
                sock.detach()
            return int(struct.unpack_from("=Q", info, BYTES_SENT)[0])
        return None

    def _log(self, more: dict[str, Value]) -> None:
        request, self._asked = self._asked, None
        identity = self.identity if request is not None else unread(self.presence, self.identity)
        fields: dict[str, Value] = {"address": identity.address or "-"}
        name = NAMES[identity.kind]
        if name and identity.subject is not None:
            fields[name] = identity.subject
        if request is None:  # it could not be read
            fields |= {"method": "-", "path": "-"}
        else:
            fields |= {"method": shown_method(request.method), "path": shown_target(request)}
            more["seconds"] = round(self.now() - self._began, 3)
        if self._kind:
            fields["as"] = self._kind
        if self.app.logs is not None:
            self.app.logs.access(fields | more)
