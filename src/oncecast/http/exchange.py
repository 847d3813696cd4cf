"""A connection as the routes see it: how a request is answered, now, later or for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..errors import Refusal
from ..protocol.base import Link, Listener, Reply
from ..wire import http1


class Exchange(Link, Protocol):
    """One request and the connection it came on."""

    def reply(self, reply: Reply | Refusal, /) -> None:
        """Answer the request, and go on to the next."""
        ...

    def send(self, answer: bytes, /) -> None:
        """Do as `reply` does, with an answer that is bytes already."""
        ...

    def fail(self, refusal: Refusal, /) -> None:
        """Answer with an error and close, where it is not known where the next request begins."""
        ...

    def wait(self, request: http1.Request, listener: Listener | None = None) -> None:
        """Unless it has come already, the answer comes later, by `reply`."""
        ...

    def stream(self, make: Callable[[], Listener], /) -> None:
        """Give the connection to a transport. `make` may raise `Refusal`, before it has written anything."""
        ...

    def spend_publishes(self, count: int, /) -> None:
        """Count publishes against the flood guard. Raises `Refusal` (`too_many_requests`)."""
        ...
