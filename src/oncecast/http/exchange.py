"""A connection as the routes see it: it answers a request now or later, or becomes a stream or a WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..errors import Refusal
from ..policy.identity import Identity
from ..policy.origin import Headers
from ..protocol.base import Carrier, Clock, Duplex, Reply, Session
from ..wire import http1
from ..wire.ws_deflate import Parameters
from ..wire.ws_handshake import Upgrade


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the handshake of a WebSocket has led to: the subprotocol if any, and what `headers` say beside it.

    `deflate` is what was agreed for messages that are compressed; its header is the connection's to write.
    """

    upgrade: Upgrade
    protocol: str | None
    headers: Headers
    deflate: Parameters | None = None


class Exchange(Clock, Protocol):
    """One request and the connection it came on. The routes set `identity` for each request."""

    identity: Identity

    def reply(self, reply: Reply | Refusal, /) -> None:
        """Answer the request, and go on to the next."""
        ...

    def send(self, answer: bytes, /) -> None:
        """Do as `reply` does, with an answer that is bytes already: of a connection whose requests are kept alive."""
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

    def answer_events(self, headers: Headers, events: bytes, /) -> None:
        """Answer with an event stream that ends after `events`; or with its head alone, as HEAD asks for."""
        ...

    def open_events(self, headers: Headers, make: Callable[[Carrier], Session], /) -> None:
        """Give the connection to an event stream. `make` may raise `Refusal`: nothing is written then."""
        ...

    def open_websocket(self, agreement: Agreement, make: Callable[[Carrier], Duplex], /) -> None:
        """Give the connection to a WebSocket, also after `wait`. Do nothing where the client is gone.

        `make` may raise `Refusal`: nothing is written then.
        """
        ...

    def may_read(self) -> Refusal | None:
        """Count a page of the broker's history. Return why it may read none now, or None."""
        ...

    def spend_publishes(self, count: int, size: int, now: float, /) -> None:
        """Count messages and their bytes against the flood guard. Raises `Refusal` (`too_many_requests`)."""
        ...
