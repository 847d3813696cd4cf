"""A connection as the routes see it: it answers a request now or later, or becomes a stream or a WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..errors import Refusal
from ..policy.identity import Identity
from ..protocol.base import Carrier, Clock, Duplex, Reply, Session
from ..wire import http1
from ..wire.ws_deflate import Parameters


class Exchange(Clock, Protocol):
    """One request and the connection it came on. `identity` is who asks: the routes set it for each request."""

    identity: Identity

    def reply(self, reply: Reply | Refusal, /) -> None:
        """Answer the request, and go on to the next."""
        ...

    def send(self, answer: bytes, /) -> None:
        """Do as `reply` does, with an answer that is bytes already."""
        ...

    def fail(self, refusal: Refusal, /) -> None:
        """Answer with an error and close: the place where the next request begins is unknown."""
        ...

    def wait(self, request: http1.Request, session: Session | None = None) -> None:
        """Expect the answer later, by `reply`; do nothing where it has come already."""
        ...

    def proceed(self, request: http1.Request, call: Callable[[], None], /) -> None:
        """Go on with a request that has waited, unless the client is gone. `call` may raise what a route may."""
        ...

    def open_events(self, head: bytes, make: Callable[[Carrier], Session], /, *, chunked: bool) -> None:
        """Give the connection to an event stream, after `head`. `make` may raise `Refusal`: nothing is written then."""
        ...

    def open_websocket(
        self, head: bytes, make: Callable[[Carrier], Duplex], /, *, deflate: Parameters | None = None
    ) -> None:
        """Give the connection to a WebSocket, after `head`, also after `wait`. Do nothing where the client is gone.

        `make` may raise `Refusal`: nothing is written then.
        """
        ...

    def end(self) -> None:
        """Send what is written, then close, reading no more."""
        ...

    def may_read(self) -> Refusal | None:
        """Count a page of the broker's history. Return why it may read none now, or None."""
        ...

    def spend_publishes(self, count: int, size: int, /) -> None:
        """Count messages and their bytes against the flood guard. Raises `Refusal` (`too_many_requests`)."""
        ...
