"""What brokers on other machines share: their life from connecting to stopping, away and back.

`Remote` is the broker as the node sees it. Each kind of broker has a `RemoteSession` (`session.py`): one connection to
its server, from `open` to the first fault. `Remote` owns the tasks:

* `_live` opens a session, runs it until it is lost, tells the sink that the broker is away, and opens the next one.
* Of a session: `follow` hands messages over, `tend` probes and trims, one task sends the publishes in batches
  (`remote_publishes.py`), and `READERS` tasks answer reads (`remote_reads.py`).

Each task of a session that ends, ends the session; nothing dies unnoticed. A fault of the network is `Lost`. Another
exception is a defect: it is logged with its traceback, and the session is opened again like a lost one.

Invariants
* While no session runs nothing waits: a publish and a read are refused at once, and those that waited were refused.
* A session is closed once, also where the broker is stopped meanwhile.
* The sink is called by one task at a time: by `open`, then by `follow`.

To add a broker, write a `RemoteSession` for it and pass `Remote` a function that makes one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ..errors import ConfigurationError, Refusal, UsageError
from ..message import Draft, Retention, Start
from .base import AWAY, STARTING, STOP_SECONDS, STOPPING, BrokerUnreachable, Capabilities, Done, Read, Sink
from .intake import Intake
from .meters import Meters
from .operable import ChannelState, LogState, Operable
from .remote_publishes import RemotePublishes
from .remote_reads import READERS, RemoteReads
from .session import CLOSE_SECONDS, GuardedSink, Lost, RemoteSession, SinkFailed, finish

logger = logging.getLogger("oncecast.brokers.remote")

OPEN_SECONDS = 5.0  # to connect and to catch up with the head
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds before each next attempt to open; the last one stays
OPERATE_SECONDS = 60.0  # for what a person asks: 10,000 channels are counted one by one

T = TypeVar("T")


class Remote:
    """A broker on another machine.

    `make` makes a session for a sink. `name` says in one line, without a password, where it is. Publishes are sent
    together until they have `batch_drafts` drafts; a session splits a batch that its server can't take at once.
    `open_seconds` bounds the opening of a session.
    `forget` is called with channels that are unwanted while no session is open: what is known of them is void.
    """

    def __init__(
        self,
        make: Callable[[GuardedSink], RemoteSession],
        *,
        name: str,
        capabilities: Capabilities,
        batch_drafts: int,
        open_seconds: float = OPEN_SECONDS,
        forget: Callable[[Sequence[str]], None] = lambda channels: None,
    ) -> None:
        self.name = name
        self.capabilities = capabilities
        self.opened = 0  # sessions
        self.meters = Meters()
        self._make = make
        self._open_seconds = open_seconds
        self._forget = forget
        self._sink: Sink | None = None
        self._refusal: Refusal | None = STARTING  # what everything is answered with, unless a session runs
        self._session: RemoteSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._intake = Intake(batch_drafts)
        self._publishes = RemotePublishes(self._intake, self.meters)
        self._reads = RemoteReads(name)
        self._wanted: dict[str, None] = {}
        self._unwanted: set[str] = set()  # while a session is being opened
        self._stopped = False

    # -- what the node calls

    async def start(self, sink: Sink) -> None:
        """Connect, and begin. Raises `ConfigurationError` where that can't be done."""
        if self._sink is not None:
            raise UsageError("This broker was started already: make one for each node.")
        self._sink = sink
        session = self._make(GuardedSink(sink, self.meters))
        try:
            await self._open(session)
        except Lost as lost:
            raise BrokerUnreachable(f"broker: {self.name}: {lost}") from None
        except SinkFailed as failed:
            raise ConfigurationError(f"broker: {self.name}: {failed}") from failed
        if self._stopped:
            await self._close(session)
            raise ConfigurationError(f"broker: {self.name}: it was stopped while it was started")
        self._task = asyncio.create_task(self._live(session), name="oncecast-broker")
        self._task.add_done_callback(self._ended)
        await asyncio.sleep(0)  # a task that is cancelled before its first step would not close its session

    async def stop(self) -> None:
        """Disconnect. What is not answered is refused."""
        self._stopped = True
        self._refusal = STOPPING
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,), timeout=STOP_SECONDS)
        self._refuse_all(STOPPING)

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Send the drafts with the next batch."""
        if self._refusal is not None:
            self.meters.refused += len(drafts)
            done([self._refusal] * len(drafts))
        elif self._intake.put(drafts, done):
            self._publishes.waiting.set()

    def read(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int, done: Read) -> None:
        """Read a page, once it is this read's turn."""
        if self._refusal is not None:
            done(self._refusal)
        else:
            self._reads.put(channels, start, limit, max_bytes, done)

    def want(self, channels: Sequence[str]) -> None:
        """Deliver these channels, in each session."""
        if self.capabilities.only_wanted:
            self._wanted.update(dict.fromkeys(channels))
            if self._session is not None:
                self._session.want(channels)

    def unwant(self, channels: Sequence[str]) -> None:
        """Deliver these channels no longer."""
        if self.capabilities.only_wanted:
            for channel in channels:
                self._wanted.pop(channel, None)
            if self._session is not None:
                self._session.unwant(channels)
            else:
                self._unwanted.update(channels)
                self._forget(channels)

    # -- `operable.Operable`, by the session

    async def inspect(self) -> LogState:
        """Return the state of the log."""
        return await self._operate(lambda session: session.inspect())

    async def channels(self) -> list[ChannelState]:
        """Return every channel that holds a message."""
        return await self._operate(lambda session: session.channels())

    async def trim(self, channel: str, retention: Retention) -> ChannelState:
        """Trim a channel now."""
        return await self._operate(lambda session: session.trim(channel, retention))

    async def _operate(self, ask: Callable[[Operable], Awaitable[T]]) -> T:
        if self._session is None:
            raise AWAY
        if not isinstance(self._session, Operable):
            raise UsageError(f"{self.name}: this kind of broker can't be asked for the state of its log.")
        try:
            async with asyncio.timeout(OPERATE_SECONDS):
                return await ask(self._session)
        except TimeoutError:
            text = f"{self.name} did not answer within {OPERATE_SECONDS:g} s: try again."
            raise Refusal("unavailable", text) from None
        except Lost as lost:
            raise Refusal("unavailable", f"{self.name}: {lost}") from None

    # -- the life of the broker

    async def _open(self, session: RemoteSession) -> None:
        """Open a session, or close what of it is open. What was wanted and unwanted meanwhile is applied to it."""
        asked = tuple(self._wanted)
        self._unwanted.clear()
        opened = False
        try:
            async with asyncio.timeout(self._open_seconds):
                await session.open(asked)
            opened = True
        except TimeoutError:
            raise Lost(f"it did not answer within {self._open_seconds:g} s") from None
        finally:
            if not opened:
                await finish(self._close(session))
        self.opened += 1
        self._session = session
        self._refusal = STOPPING if self._stopped else None
        ended = self._unwanted.intersection(asked)
        if ended:
            session.unwant(tuple(ended))
        fresh = self._wanted.keys() - (set(asked) - ended)
        if fresh:
            session.want([channel for channel in self._wanted if channel in fresh])

    async def _close(self, session: RemoteSession) -> None:
        """Close a session. One that does not close in time is left behind."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await session.close()
        except Exception:
            logger.exception("a connection to the broker %s could not be closed", self.name)

    async def _live(self, session: RemoteSession) -> None:
        assert self._sink is not None
        while True:
            reason = await self._run(session)
            self._session = None
            self._refusal = AWAY
            logger.warning("the broker %s is away: %s", self.name, reason)
            self._sink.away(f"{self.name}: {reason}")
            self._refuse_all(AWAY)
            session = await self._reopen(reason)
            logger.warning("the broker %s is back", self.name)
            self._sink.back()

    async def _run(self, session: RemoteSession) -> str:
        """Run a session until one of its tasks ends, close it, and return why."""
        tasks = [
            asyncio.create_task(each, name=f"oncecast-broker-{name}")
            for name, each in (
                ("follow", session.follow()),
                ("tend", session.tend()),
                ("publish", self._publishes.send(session)),
                ("expire", self._reads.expire()),
                *((f"read-{number}", self._reads.answer(session)) for number in range(READERS)),
            )
        ]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return _why([task for task in tasks if task in ended])
        finally:
            await finish(self._end(session, tasks))

    async def _end(self, session: RemoteSession, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
        await self._close(session)

    async def _reopen(self, reason: str) -> RemoteSession:
        assert self._sink is not None
        attempt = 0
        while True:
            await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
            attempt += 1
            session = self._make(GuardedSink(self._sink, self.meters))
            try:
                await self._open(session)
            except (Lost, ConfigurationError) as error:
                text = str(error).removeprefix(f"broker: {self.name}: ")
                if text != reason:
                    reason = text
                    self._sink.away(f"{self.name}: {reason}")
                continue
            except SinkFailed:
                raise
            except Exception as error:
                if repr(error) != reason:
                    reason = repr(error)
                    logger.exception("the broker %s could not be opened", self.name)
                    self._sink.away(f"{self.name}: {reason}")
                continue
            return session

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The broker's own task has ended: by `stop`, or as a defect, which ends the node."""
        if task.cancelled() or self._stopped:
            return
        error = task.exception()
        logger.error("the task of the broker %s has ended", self.name, exc_info=error)
        self._refusal = STOPPING
        self._refuse_all(STOPPING)
        assert self._sink is not None
        self._sink.fail(f"broker: {self.name}: {error}")

    def _refuse_all(self, refusal: Refusal) -> None:
        self._publishes.refuse(refusal)
        self._reads.refuse(refusal)


# -- helpers


def _why(ended: Sequence[asyncio.Task[None]]) -> str:
    """Return why a session is over. Raises `SinkFailed` if the node is at fault in any of the tasks."""
    errors = [None if task.cancelled() else task.exception() for task in ended]
    for failed in errors:
        if isinstance(failed, SinkFailed):
            raise failed
    task, error = ended[0], errors[0]
    if error is None:
        return "its connection was closed"
    if not isinstance(error, Lost):
        logger.error("a task of the broker has failed: %s", task.get_name(), exc_info=error)
    return str(error) or type(error).__name__
