"""One connection to a server, from its opening to its first fault: what a broker on another machine writes.

`remote.py` owns the sessions and says when which method is called. A session is opened once. After `open` has returned,
`follow` and `tend` run at the same time, `append` and `page` are called any number of times, and `close` is the last
call. A fault of the network is `Lost`; `ConfigurationError` is for what only another setting mends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from ..message import Draft, Message, Page, Start
from .base import Opening, Outcome, Sink
from .meters import Meters

logger = logging.getLogger("oncecast.brokers.session")

CLOSE_SECONDS = 3.0  # for a session to close its sockets, and for its tasks to end


class Lost(Exception):
    """The connection is of no use any more. The text is one line for the operator, without a password."""


class SinkFailed(Exception):
    """The sink has raised: the node has not got what it was handed."""


class RemoteSession(Protocol):
    """One connection to a server, of any number of sockets. Its methods raise `Lost`."""

    async def open(self, wanted: Sequence[str]) -> None:
        """Connect; hand the sink what it has missed, or `begin`. Raises `ConfigurationError` for what won't heal.

        The sink is called last, without a wait after it: who reads on when a log begins is answered by this session.
        """
        ...

    async def follow(self) -> None:
        """Hand messages over until the connection is lost."""
        ...

    async def tend(self) -> None:
        """Probe and trim until the connection is lost."""
        ...

    def append(self, drafts: Sequence[Draft]) -> asyncio.Future[Sequence[Outcome]]:
        """Send one batch; the answer has an outcome for each draft, once the sink has the messages."""
        ...

    async def page(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        """Read one page."""
        ...

    def want(self, channels: Sequence[str]) -> None:
        """Deliver these channels too; confirm by `Sink.wanted`."""
        ...

    def unwant(self, channels: Sequence[str]) -> None:
        """Deliver these channels no longer."""
        ...

    async def close(self) -> None:
        """Close every socket. Raises nothing."""
        ...


class GuardedSink:
    """The node, as a session calls it. An exception of the node ends the broker; it is never swallowed."""

    def __init__(self, sink: Sink, meters: Meters | None = None) -> None:
        self._sink = sink
        self._meters = Meters() if meters is None else meters

    def probed(self) -> None:
        """Note that a probe has come back by way of the log."""
        self._meters.heard = time.monotonic()

    def foreign(self, record: str) -> None:
        """Count and log a record that is left out: see `Meters.skip`. The node is not told of it."""
        self._meters.skip(record)

    def begin(self, opening: Opening) -> None:
        """Do as `Sink.begin`."""
        self._call(self._sink.begin, opening)

    def receive(self, messages: Sequence[Message]) -> None:
        """Do as `Sink.receive`."""
        self._call(self._sink.receive, messages)

    def advance(self, seq: int) -> None:
        """Do as `Sink.advance`."""
        self._call(self._sink.advance, seq)

    def skip(self, seq: int) -> None:
        """Do as `Sink.skip`."""
        self._call(self._sink.skip, seq)

    def hole(self, before: int, after: int) -> None:
        """Do as `Sink.hole`."""
        self._call(self._sink.hole, before, after)

    def wanted(self, channels: Sequence[str], seq: int) -> None:
        """Do as `Sink.wanted`."""
        self._call(self._sink.wanted, channels, seq)

    def _call(self, method: Callable[..., None], *arguments: object) -> None:
        try:
            method(*arguments)
        except Exception as error:
            logger.exception("the node could not take what the broker has handed over")
            raise SinkFailed(str(error)) from error


async def finish(ending: Coroutine[Any, Any, None]) -> None:
    """Run what closes to its end, also where the caller is cancelled meanwhile, which is raised then.

    What closes has a deadline of its own.
    """
    task = asyncio.create_task(ending)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()


async def run_together(*parts: Coroutine[Any, Any, None], watched: Sequence[asyncio.Future[Any]] = ()) -> None:
    """Run the parts of a session until one of them ends, or one of `watched`; raise its error, and end the parts.

    A node that could not take something counts before a connection that is lost.
    """
    tasks = [asyncio.create_task(part, name=f"oncecast-{getattr(part, '__qualname__', 'part')}") for part in parts]
    try:
        ended, _ = await asyncio.wait((*tasks, *watched), return_when=asyncio.FIRST_COMPLETED)
        errors = [each.exception() for each in (*tasks, *watched) if each in ended and not each.cancelled()]
        for error in sorted(errors, key=lambda error: not isinstance(error, SinkFailed)):
            if error is not None:
                raise error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
